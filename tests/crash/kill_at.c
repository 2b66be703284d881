/* Kills a process just before its k-th system call that changes files below a directory, or in the middle of it.
 *
 *     child:   start_being_followed();        and then whatever is to be followed
 *     parent:  status = follow(child, "/tmp/run", 57, 0, "/tmp/calls");
 *
 * The calls of all threads and subprocesses are counted together, in the one order in which they are seen here. (strace
 * can kill at a call too, but counts for each thread by itself, and knows single paths, not all below a directory.)
 *
 * The child asks the kernel, by a seccomp filter, to stop it before each call of CHANGES, and only there: all other
 * calls run at full speed. The parent is told of each stop (ptrace), looks whether it is about our directory, counts,
 * and lets the child go on or kills it. Because the call has not begun at the stop, nothing of it is seen on the disk.
 * A kill may also cut a write short: that is made by writing the first half of the bytes from here.
 *
 * Not seen: writing through memory maps or io_uring. TensorFlow and Python use neither to write.
 * Built as a shared library and called from Python, by zygote.py. Linux only.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* What stands in place of an argument's number. */
enum { NO_PATH = -1, WORKING_DIRECTORY = -2 };

/* A call that changes files, and which of its arguments (counted from 0) say where.
 * directory: the open directory that `path` starts from; or, where the call has no path, the open file.
 * Of two paths, as rename has, the new one counts. */
struct change {
    int number;
    const char *name;
    int directory;
    int path;
};

static const struct change CHANGES[] = {
#ifdef __NR_open /* younger architectures than x86 have only the forms that end in "at" */
    {__NR_open, "open", WORKING_DIRECTORY, 0},
    {__NR_creat, "creat", WORKING_DIRECTORY, 0},
    {__NR_rename, "rename", WORKING_DIRECTORY, 1},
    {__NR_link, "link", WORKING_DIRECTORY, 1},
    {__NR_symlink, "symlink", WORKING_DIRECTORY, 1},
    {__NR_unlink, "unlink", WORKING_DIRECTORY, 0},
    {__NR_mkdir, "mkdir", WORKING_DIRECTORY, 0},
    {__NR_rmdir, "rmdir", WORKING_DIRECTORY, 0},
#endif
#ifdef __NR_renameat
    {__NR_renameat, "renameat", 2, 3},
#endif
    {__NR_openat, "openat", 0, 1},
    {__NR_openat2, "openat2", 0, 1},
    {__NR_renameat2, "renameat2", 2, 3},
    {__NR_linkat, "linkat", 2, 3},
    {__NR_symlinkat, "symlinkat", 1, 2},
    {__NR_unlinkat, "unlinkat", 0, 1},
    {__NR_mkdirat, "mkdirat", 0, 1},
    {__NR_truncate, "truncate", WORKING_DIRECTORY, 0},
    {__NR_ftruncate, "ftruncate", 0, NO_PATH},
    {__NR_fallocate, "fallocate", 0, NO_PATH},
    {__NR_write, "write", 0, NO_PATH},
    {__NR_pwrite64, "pwrite64", 0, NO_PATH},
    {__NR_writev, "writev", 0, NO_PATH},
    {__NR_pwritev, "pwritev", 0, NO_PATH},
    {__NR_pwritev2, "pwritev2", 0, NO_PATH},
    {__NR_sendfile, "sendfile", 0, NO_PATH},
    {__NR_copy_file_range, "copy_file_range", 2, NO_PATH},
    {__NR_fsync, "fsync", 0, NO_PATH},
    {__NR_fdatasync, "fdatasync", 0, NO_PATH},
    {__NR_sync_file_range, "sync_file_range", 0, NO_PATH},
};

/* ---- The child's side -------------------------------------------------------------------------------------------- */

/* Makes the kernel stop this process and its offspring before each call of CHANGES. 0, or -1 with errno set. */
static int stop_before_changes(void) {
    struct sock_filter filter[2 * LENGTH(CHANGES) + 2];
    unsigned short length = 0;
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < LENGTH(CHANGES); i++) {
        /* If it is this call: the next line, stop. If not: skip that line. */
        filter[length++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CHANGES[i].number, 0, 1);
        filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRACE);
    }
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {length, filter};
    /* Without this promise only root may install a filter. */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* Called by the child: waits until the parent follows it. 0, or -1 with errno set. */
int start_being_followed(void) {
    /* A process group of its own: what it starts can be killed together with it. */
    if (setpgid(0, 0) != 0 || ptrace(PTRACE_TRACEME, 0, NULL, NULL) != 0 || stop_before_changes() != 0)
        return -1;
    return raise(SIGSTOP);
}

/* ---- The parent's side ------------------------------------------------------------------------------------------- */

/* The call before which this thread stands still. */
static struct __ptrace_syscall_info call_of(pid_t thread) {
    struct __ptrace_syscall_info call = {0};
    if (ptrace(PTRACE_GET_SYSCALL_INFO, thread, (void *)sizeof(call), &call) < 0)
        call.op = PTRACE_SYSCALL_INFO_NONE;
    return call;
}

/* Copies from the child's memory. Gives the bytes copied: fewer than asked for where the memory ends. */
static ssize_t read_memory(pid_t thread, uint64_t address, void *buffer, size_t size) {
    struct iovec here = {buffer, size}, there = {(void *)(uintptr_t)address, size};
    return process_vm_readv(thread, &here, 1, &there, 1, 0);
}

/* Copies a string out of the child's memory, a page at a time: what lies behind its page may not be there. */
static void read_string(pid_t thread, uint64_t address, char text[PATH_MAX]) {
    const size_t page = 4096;
    size_t length = 0;
    while (length < PATH_MAX - 1) {
        size_t size = page - (address + length) % page;
        if (size > PATH_MAX - 1 - length)
            size = PATH_MAX - 1 - length;
        ssize_t got = read_memory(thread, address + length, text + length, size);
        if (got <= 0)
            break;
        if (memchr(text + length, '\0', got) != NULL)
            return;
        length += got;
    }
    text[length] = '\0';
}

/* The path of an open file, or of the working directory, of the child; "" where it is none. */
static void read_open_path(pid_t thread, int descriptor, char path[PATH_MAX]) {
    char link[64];
    if (descriptor == AT_FDCWD)
        snprintf(link, sizeof(link), "/proc/%d/cwd", thread);
    else
        snprintf(link, sizeof(link), "/proc/%d/fd/%d", thread, descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = '\0';
}

/* The path that a call is about. */
static void read_path(pid_t thread, const struct change *change, const uint64_t *arguments, char path[2 * PATH_MAX]) {
    char name[PATH_MAX] = "", directory[PATH_MAX] = "";
    if (change->path != NO_PATH)
        read_string(thread, arguments[change->path], name);
    if (name[0] != '/')
        read_open_path(thread, change->directory == WORKING_DIRECTORY ? AT_FDCWD : (int)arguments[change->directory],
                       directory);
    snprintf(path, 2 * PATH_MAX, "%s%s%s", directory, directory[0] && name[0] ? "/" : "", name);
}

/* Whether a call of CHANGES that opens a file could change one; true for all other calls. */
static int opens_to_write(pid_t thread, int number, const uint64_t *arguments) {
    uint64_t flags = O_WRONLY;
    if (number == __NR_openat)
        flags = arguments[2];
    if (number == __NR_openat2) /* its flags come first in a structure */
        read_memory(thread, arguments[2], &flags, sizeof(flags));
#ifdef __NR_open
    if (number == __NR_open)
        flags = arguments[1];
#endif
    return (flags & O_ACCMODE) != O_RDONLY || (flags & (O_CREAT | O_TRUNC)) != 0;
}

static int lies_below(const char *path, const char *directory) {
    size_t length = strlen(directory);
    return strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

/* Looks at the call before which a thread stands still. Gives its row of CHANGES and its path, or NULL where it does
 * not change anything below the directory. */
static const struct change *find_change(pid_t thread, const char *directory, char path[2 * PATH_MAX]) {
    struct __ptrace_syscall_info call = call_of(thread);
    if (call.op != PTRACE_SYSCALL_INFO_SECCOMP) /* a kill from elsewhere came in between: there is no call any more */
        return NULL;
    for (size_t i = 0; i < LENGTH(CHANGES); i++) {
        if (CHANGES[i].number != (int)call.seccomp.nr)
            continue;
        read_path(thread, &CHANGES[i], call.seccomp.args, path);
        int counts = lies_below(path, directory) && opens_to_write(thread, CHANGES[i].number, call.seccomp.args);
        return counts ? &CHANGES[i] : NULL;
    }
    return NULL;
}

/* Does the first half of the write before which a thread stands still; nothing for any other call.
 * The bytes go to the end of the file, as all bytes of the programs that are followed do. */
static void write_half(pid_t thread) {
    struct __ptrace_syscall_info call = call_of(thread);
    if (call.op != PTRACE_SYSCALL_INFO_SECCOMP || (int)call.seccomp.nr != __NR_write)
        return;
    char link[64];
    snprintf(link, sizeof(link), "/proc/%d/fd/%d", thread, (int)call.seccomp.args[0]);
    int file = open(link, O_WRONLY | O_APPEND | O_CLOEXEC);
    size_t half = call.seccomp.args[2] / 2;
    void *bytes = malloc(half);
    if (read_memory(thread, call.seccomp.args[1], bytes, half) != (ssize_t)half ||
        write(file, bytes, half) != (ssize_t)half)
        fprintf(stderr, "kill_at: half a write to %s failed\n", link);
    free(bytes);
    close(file);
}

/* Waits for the child's start_being_followed, and sets what is followed. 0, or -1: it has ended without. */
static int begin(pid_t child) {
    const long options = PTRACE_O_TRACESECCOMP | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK |
                         PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL; /* nothing is left running where the parent dies */
    int status;
    if (waitpid(child, &status, 0) != child || !WIFSTOPPED(status))
        return -1;
    if (ptrace(PTRACE_SETOPTIONS, child, NULL, (void *)options) != 0)
        return -1;
    return ptrace(PTRACE_CONT, child, NULL, NULL);
}

/* Called by the parent: follows the child until it and all that it started have ended.
 *
 * kill_before: the number, from 1, of the call that is not to happen any more; 0 for none.
 * in_the_middle: whether the first half of that call, if it is a write, still happens.
 * calls: a file to write a line a call to: its number, name and path. Where killed, the last line is the call that did
 *   not happen any more.
 * Gives the child's wait status, or -1 where it could not be followed. For a process without other children. */
int follow(pid_t child, const char *directory, int kill_before, int in_the_middle, const char *calls) {
    FILE *log = fopen(calls, "w");
    if (log == NULL || begin(child) != 0) /* whoever calls gives up: no need to close the file */
        return -1;
    int number = 0, result = -1, status;
    pid_t thread;
    /* Waits for any thread or process; an error says that none is left. */
    while ((thread = waitpid(-1, &status, __WALL)) > 0) {
        if (!WIFSTOPPED(status)) {
            if (thread == child)
                result = status;
            continue;
        }
        int event = status >> 16, signal = 0;
        if (event == PTRACE_EVENT_SECCOMP) {
            char path[2 * PATH_MAX];
            const struct change *change = find_change(thread, directory, path);
            if (change != NULL)
                fprintf(log, "%d %s %s\n", ++number, change->name, path);
            if (change != NULL && number == kill_before) {
                if (in_the_middle)
                    write_half(thread);
                kill(-child, SIGKILL);
                continue;
            }
        } else if (event == 0 && WSTOPSIG(status) != SIGSTOP) {
            /* A signal on its way to the child: hand it on. SIGSTOP is only how a new thread makes itself known. */
            signal = WSTOPSIG(status);
        }
        ptrace(PTRACE_CONT, thread, NULL, (void *)(intptr_t)signal);
    }
    fclose(log);
    return result;
}
