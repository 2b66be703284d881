"""A model of a disk, and all states that it may be in after a power cut.

    for cut in power_cut.cuts(operations):
        for state in cut.states:
            state.materialise(root)      # create it as a directory, to restart a run there

The method is that of ALICE ("All File Systems Are Not Created Equal", Pillai et al., OSDI '14) and CrashMonkey
("Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing", Mohan et al., OSDI '18): record the operations
of a program, and build the states that they may leave. The model follows ALICE's abstract persistence model. What
survives here survives on every file system with at least these guarantees:

- fsync of a file makes the changes of its bytes and size durable that ended before the fsync began. It does not make
  its name durable: POSIX does not require it, though ext4 does it.
- fsync of a directory makes earlier changes of its names durable. It does not affect the files' bytes.
- A change of names (create, rename, link, unlink, mkdir, rmdir) is atomic: a rename is never half done, in one
  directory or between two; fsync of either directory makes it durable.
- Durable bytes stay, independent of those that are not durable.

Of the changes that are not durable, any may be on the disk and any may be missing: names without bytes, later names
without earlier ones, a deletion without earlier changes. The changes of names on the disk took effect in order. Any
other order would leave one of the same states, except for a file under both names of a rename, which no file system is
known to leave.

If many changes are not durable, there are too many states. After each operation this family of them is built:

- names: all subsets of up to 8 changes; of more, each prefix of the sequence, all but one or two, and only one or two;
- bytes of a file: the durable ones (lost); all (whole); the full length with zeros for new bytes (zeros); the first
  half of the new bytes (half); zeros except for the first page (first page), or except for the others (later pages);
  each prefix of the sequence of its writes;
- bytes of several files: all combinations up to 40; of more, all files in the same way, and each way for one while the
  others are lost or whole.
"""

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tests.crash.operations import Create, Link, Mkdir, Operation, Rename, Resize, Rmdir, Sync, Unlink, Write

PAGE = 4096
ALL_SUBSETS_UP_TO = 8
ALL_COMBINATIONS_UP_TO = 40

ROOT = 0
Name = tuple[int, str]  # a directory's inode, and a name in it
Tree = dict[str, bytes | None]  # each path to a file's bytes, or None for a directory


class NameChange(NamedTuple):
    """The effect of one operation on names: the inode of each name afterwards; None if it is gone."""

    operation: Operation
    names: dict[Name, int | None]


class State(NamedTuple):
    """One possible content of the disk.

    missing: changes of names that it lacks.
    ways: which bytes are on the disk of each file whose bytes were not all durable; see `ways`.
    """

    tree: Tree
    missing: tuple[NameChange, ...]
    ways: dict[str, str]

    @property
    def key(self) -> frozenset[tuple[str, bytes | None]]:
        """Return a value that is equal for equal contents."""
        return frozenset(self.tree.items())

    def materialise(self, root: Path) -> None:
        """Make a directory hold exactly this state."""
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for path, content in sorted(self.tree.items()):
            if content is None:
                (root / path).mkdir()
            else:
                (root / path).write_bytes(content)

    def __str__(self) -> str:
        """Describe the state."""
        missing = [str(change.operation) for change in self.missing]
        ways = [f"{PurePosixPath(path).name} {way}" for path, way in self.ways.items()]
        return f"not on the disk: {', '.join(missing) or 'nothing'}; bytes: {', '.join(ways) or 'all durable'}"


class Cut(NamedTuple):
    """A power cut just after an operation. Its states must be read before the next cut."""

    after: Operation
    states: Iterator[State]


def cuts(operations: Iterable[Operation], durable: Iterable[Operation] = ()) -> Iterator[Cut]:
    """Yield each moment at which the power may fail, with the states that the disk may hold then.

    Args:
      operations: recorded operations.
      durable: operations before them, all of which are on the disk.
    """
    disk = Disk()
    for operation in durable:
        disk.apply(operation)
    disk.make_all_durable()
    for operation in operations:
        disk.apply(operation)
        yield Cut(operation, disk.states())


class Disk:
    """Files and names as processes see them, and which of that is durable."""

    def __init__(self) -> None:
        """Create an empty directory."""
        self._next_inode = ROOT + 1
        self._directories = {ROOT}
        self._names: dict[Name, int] = {}
        self._durable_names: dict[Name, int] = {}
        self._name_changes: list[NameChange] = []
        self._durable_bytes: dict[int, bytes] = {}
        self._byte_changes: dict[int, list[Resize | Write]] = {}

    def apply(self, operation: Operation) -> None:
        """Apply one operation; only Sync makes changes durable."""
        match operation:
            case Sync():
                self._sync(operation)
            case Resize() | Write():
                self._byte_changes[self._inode(operation.path)].append(operation)
            case Create():
                if self._name(operation.path) not in self._names:
                    self._change(operation, {self._name(operation.path): self._new_inode()})
            case Mkdir():
                inode = self._new_inode()
                self._directories.add(inode)
                self._change(operation, {self._name(operation.path): inode})
            case Rename():
                inode = self._inode(operation.path)
                self._change(operation, {self._name(operation.path): None, self._name(operation.target): inode})
            case Link():
                self._change(operation, {self._name(operation.target): self._inode(operation.path)})
            case Unlink() | Rmdir():
                self._change(operation, {self._name(operation.path): None})
            case _:
                raise NotImplementedError(operation)

    def make_all_durable(self) -> None:
        """Do what sync(2) does."""
        self._durable_names = dict(self._names)
        self._name_changes = []
        for inode, changes in self._byte_changes.items():
            self._durable_bytes[inode] = _changed(self._durable_bytes[inode], changes)
            changes.clear()

    def tree(self) -> Tree:
        """Return what processes see."""
        return {
            path: None
            if inode in self._directories
            else _changed(self._durable_bytes[inode], self._byte_changes[inode])
            for path, inode in _paths(self._names)
        }

    def states(self) -> Iterator[State]:
        """Yield what may be left after a power cut; equal states may be repeated."""
        ways_of = {inode: ways(self._durable_bytes[inode], changes) for inode, changes in self._byte_changes.items()}
        for there in subsets(len(self._name_changes)):
            changes = [change for change, is_there in zip(self._name_changes, there, strict=True) if is_there]
            missing = tuple(change for change, is_there in zip(self._name_changes, there, strict=True) if not is_there)
            paths = list(_paths(_renamed(self._durable_names, changes)))
            files = {path: ways_of[inode] for path, inode in paths if inode not in self._directories}
            tree: Tree = {path: None for path, inode in paths if inode in self._directories}
            tree |= {path: contents["lost"] for path, contents in files.items()}
            undecided = {path: contents for path, contents in files.items() if len(contents) > 1}
            for chosen in combinations(undecided):
                yield State(tree | {path: undecided[path][way] for path, way in chosen.items()}, missing, chosen)

    def _new_inode(self) -> int:
        inode, self._next_inode = self._next_inode, self._next_inode + 1
        self._durable_bytes[inode] = b""
        self._byte_changes[inode] = []
        return inode

    def _change(self, operation: Operation, names: dict[Name, int | None]) -> None:
        change = NameChange(operation, names)
        self._names = _renamed(self._names, [change])
        self._name_changes.append(change)

    def _sync(self, sync: Sync) -> None:
        """Make the changes durable that ended before the fsync began."""
        inode = self._inode(sync.path)
        if inode in self._directories:
            durable = [
                change
                for change in self._name_changes
                if change.operation.ended < sync.began and any(directory == inode for directory, _ in change.names)
            ]
            self._durable_names = _renamed(self._durable_names, durable)
            self._name_changes = [change for change in self._name_changes if change not in durable]
        else:
            changes = self._byte_changes[inode]
            durable = [change for change in changes if change.ended < sync.began]
            self._durable_bytes[inode] = _changed(self._durable_bytes[inode], durable)
            self._byte_changes[inode] = changes[len(durable) :]

    def _name(self, path: PurePosixPath) -> Name:
        return self._inode(path.parent), path.name

    def _inode(self, path: PurePosixPath) -> int:
        inode = ROOT
        for part in path.parts:
            inode = self._names[inode, part]
        return inode


def subsets(count: int) -> Iterator[tuple[bool, ...]]:
    """Yield which of some changes are on the disk: all subsets, or the family in the module's docstring."""
    if count <= ALL_SUBSETS_UP_TO:
        yield from itertools.product([False, True], repeat=count)
        return
    for length in range(count + 1):
        yield tuple(number < length for number in range(count))
    for size in (1, 2):
        for odd in itertools.combinations(range(count), size):
            yield tuple(number in odd for number in range(count))
            yield tuple(number not in odd for number in range(count))


def ways(durable: bytes, changes: list[Resize | Write]) -> dict[str, bytes]:
    """Return the possible contents of a file, each under the name of the first way to get it."""
    whole = _changed(durable, changes)
    middle = (len(durable) + len(whole)) // 2 if len(whole) > len(durable) else len(whole) // 2
    kept = durable[: len(whole)]
    zeros = kept + bytes(len(whole) - len(kept))
    candidates = {
        "lost": durable,
        "whole": whole,
        "zeros": zeros,
        "half": whole[:middle] + durable[middle:],
        "first page": whole[:PAGE] + zeros[PAGE:],
        "later pages": zeros[:PAGE] + whole[PAGE:],
    }
    for length in range(1, len(changes)):
        candidates[f"after {length} of {len(changes)} changes"] = _changed(durable, changes[:length])
    names: dict[bytes, str] = {}
    for name, content in candidates.items():
        names.setdefault(content, name)
    return {name: content for content, name in names.items()}


def combinations(files: dict[str, dict[str, bytes]]) -> Iterator[dict[str, str]]:
    """Yield a way for each file: all combinations, or the family in the module's docstring."""
    count = 1
    for contents in files.values():
        count *= len(contents)
    if count <= ALL_COMBINATIONS_UP_TO:
        for chosen in itertools.product(*files.values()):
            yield dict(zip(files, chosen, strict=True))
        return
    for way in ("lost", "zeros", "half"):
        yield {path: way if way in contents else "whole" for path, contents in files.items()}
    for others in ("lost", "whole"):
        for odd, contents in files.items():
            for way in contents:
                yield {path: way if path == odd else others for path in files}


def _changed(content: bytes, changes: Iterable[Resize | Write]) -> bytes:
    for change in changes:
        match change:
            case Resize(size=size):
                content = content[:size] + bytes(max(0, size - len(content)))
            case Write(offset=offset, data=data):
                start = len(content) if offset is None else offset
                content = content[:start] + bytes(max(0, start - len(content))) + data + content[start + len(data) :]
    return content


def _renamed(names: dict[Name, int], changes: Iterable[NameChange]) -> dict[Name, int]:
    after: dict[Name, int | None] = dict(names)
    for change in changes:
        after.update(change.names)
    return {name: inode for name, inode in after.items() if inode is not None}


def _paths(names: dict[Name, int]) -> Iterator[tuple[str, int]]:
    """Yield all paths below the root with their inodes."""
    places = [("", ROOT)]
    while places:
        path, place = places.pop()
        for (directory, name), inode in names.items():
            if directory == place:
                yield path + name, inode
                places.append((path + name + "/", inode))


class Loss(NamedTuple):
    """A power cut after which a run does not resume as promised."""

    after: Operation
    state: State
    found: str

    def __str__(self) -> str:
        """Describe the loss."""
        return f"power cut after '{self.after}'; {self.state}; then: {self.found}"


class Judge:
    """Restarts a run in each state, and caches the results.

    restart: returns the step at which a run resumes in a directory, or raises an error.
    root: where the states are created, one after the other. The path of the recording, because files may hold it.
    """

    def __init__(self, restart: Callable[[Path], int], root: Path) -> None:
        """Nothing is restarted yet."""
        self._restart = restart
        self._root = root
        self.states: dict[frozenset[tuple[str, bytes | None]], State] = {}
        self.found: dict[frozenset[tuple[str, bytes | None]], int | str] = {}

    def losses(self, cuts: Iterable[Cut], promised: Callable[[Operation], int]) -> Iterator[Loss]:
        """Yield the power cuts after which a run resumes before the promised step, or not at all.

        A state is yielded once for each promised step.
        """
        seen = set()
        for cut in cuts:
            step = promised(cut.after)
            for state in cut.states:
                key = state.key
                if (key, step) in seen:
                    continue
                seen.add((key, step))
                found = self._find(key, state)
                if isinstance(found, str):
                    yield Loss(cut.after, state, found)
                elif found < step:
                    yield Loss(cut.after, state, f"expected to resume at step {step} or later, got step {found}")

    def _find(self, key: frozenset[tuple[str, bytes | None]], state: State) -> int | str:
        if key not in self.found:
            state.materialise(self._root)
            self.states[key] = state
            try:
                self.found[key] = self._restart(self._root)
            except Exception as error:  # noqa: BLE001 - after any exception the run does not resume
                self.found[key] = f"{type(error).__name__}: {error}"
        return self.found[key]
