"""What a disk may hold after a power cut: a model of it, and every state that it allows.

    for cut in power_cut.cuts(operations):
        for state in cut.states:
            state.materialise(root)      # as a real directory, to restart a run in

The method is that of ALICE ("All File Systems Are Not Created Equal", Pillai et al., OSDI '14) and of CrashMonkey
("Finding Crash-Consistency Bugs with Bounded Black-Box Crash Testing", Mohan et al., OSDI '18): what a program did is
recorded, and what could be left of it is built. The disk assumed here promises no more than the following, after
ALICE's abstract persistence model. What survives here survives on every file system that promises as much.

- fsync of a file makes durable what was done to its bytes and its size before the fsync began. It does not make its
  name durable: POSIX does not say so, though ext4 does it.
- fsync of a directory makes durable what was done to its names before. It says nothing of the files' bytes.
- A change of names (create, rename, link, unlink, mkdir, rmdir) is there wholly or not at all. So a rename is never
  half done, neither onto another name nor into another directory; fsync of either directory makes it durable.
- Bytes that are durable stay, whatever becomes of those that are not.

Of the changes that are not durable, any may be there and any may be missing: names without the bytes, later names
without earlier ones, a deletion without what came before it. Those changes of names that are there took effect in the
order in which they were made; any other order would leave one of the same states, but for a file under both the old and
the new name of a rename, which no file system is known to leave.

The states are too many where many changes are not durable. So this family of them is built, after each operation:

- names: all subsets of up to 8 changes; of more, each beginning of the sequence, all without one or two, and only one
  or two;
- bytes of a file: only the durable ones (lost); all (whole); all its length, but zeros for new bytes (zeros); the first
  half of the new bytes (half); zeros but for the first page (first page), or but for the others (later pages); each
  beginning of the sequence of its writes;
- bytes of several files: all combinations up to 40; of more, all files in the same way, and each way for one while the
  others are lost or whole.
"""

import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tests.crash.recording import Create, Link, Mkdir, Operation, Rename, Resize, Rmdir, Sync, Unlink, Write

PAGE = 4096
ALL_SUBSETS_UP_TO = 8
ALL_COMBINATIONS_UP_TO = 40

ROOT = 0
Name = tuple[int, str]  # a directory's inode, and a name in it
Tree = dict[str, bytes | None]  # each path to a file's bytes, or None for a directory


class NameChange(NamedTuple):
    """What one operation makes of names: the inode that each means afterwards, or None."""

    operation: Operation
    names: dict[Name, int | None]


class State(NamedTuple):
    """One thing that the disk may hold.

    missing: the changes of names that it does not hold.
    ways: in which way the bytes of each file are there, where not all of them were durable.
    """

    tree: Tree
    missing: tuple[NameChange, ...]
    ways: dict[str, str]

    @property
    def key(self) -> frozenset[tuple[str, bytes | None]]:
        """Equal for states that nobody can tell apart."""
        return frozenset(self.tree.items())

    def materialise(self, root: Path) -> None:
        """Makes a directory hold this state and nothing else."""
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        for path, content in sorted(self.tree.items()):
            if content is None:
                (root / path).mkdir()
            else:
                (root / path).write_bytes(content)

    def __str__(self) -> str:
        """The state in words."""
        missing = [str(change.operation) for change in self.missing]
        ways = [f"{PurePosixPath(path).name} {way}" for path, way in self.ways.items()]
        return f"not on the disk: {', '.join(missing) or 'nothing'}; bytes: {', '.join(ways) or 'all durable'}"


class Cut(NamedTuple):
    """The power fails when `after` has just ended. The states must be looked at before the next cut."""

    after: Operation
    states: Iterator[State]


def cuts(operations: Iterable[Operation], durable: Iterable[Operation] = ()) -> Iterator[Cut]:
    """Each moment at which the power may fail, with the states that the disk may hold then.

    Args:
      operations: what is done.
      durable: what was done before, and is on the disk already.
    """
    disk = Disk()
    for operation in durable:
        disk.apply(operation)
    disk.make_all_durable()
    for operation in operations:
        disk.apply(operation)
        yield Cut(operation, disk.states())


class Disk:
    """Files and names as processes see them, and how much of that is durable."""

    def __init__(self) -> None:
        """An empty directory."""
        self._next_inode = ROOT + 1
        self._directories = {ROOT}
        self._names: dict[Name, int] = {}
        self._durable_names: dict[Name, int] = {}
        self._name_changes: list[NameChange] = []
        self._durable_bytes: dict[int, bytes] = {}
        self._byte_changes: dict[int, list[Resize | Write]] = {}

    def apply(self, operation: Operation) -> None:
        """Does one operation; only Sync makes anything durable."""
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
        """As sync(2)."""
        self._durable_names = dict(self._names)
        self._name_changes = []
        for inode, changes in self._byte_changes.items():
            self._durable_bytes[inode] = _changed(self._durable_bytes[inode], changes)
            changes.clear()

    def tree(self) -> Tree:
        """What processes see."""
        return {
            path: None
            if inode in self._directories
            else _changed(self._durable_bytes[inode], self._byte_changes[inode])
            for path, inode in _paths(self._names)
        }

    def states(self) -> Iterator[State]:
        """What may be left after a power cut; equal states may come more than once."""
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
        """Makes durable what had ended before the fsync began."""
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
    """Which of so many changes are there: all possibilities, or the family of them that the module describes."""
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
    """What a file's bytes may be, each under the name of the first way that leads there."""
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
    """In which way each file's bytes are there: all possibilities, or the family of them that the module describes."""
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
    """All paths that lead from the root somewhere, with what is there."""
    places = [("", ROOT)]
    while places:
        path, place = places.pop()
        for (directory, name), inode in names.items():
            if directory == place:
                yield path + name, inode
                places.append((path + name + "/", inode))


class Loss(NamedTuple):
    """A power cut after which a run does not go on as it must."""

    after: Operation
    state: State
    found: str

    def __str__(self) -> str:
        """What happened, in words."""
        return f"power cut after '{self.after}'; {self.state}; then: {self.found}"


class Judge:
    """Restarts a run in each state, and remembers what came of it.

    restart: gives the step from which a run goes on in a directory, or raises an error.
    root: where the states are made, one after the other; the same path as in the recording, for it may have been
      written into a file.
    """

    def __init__(self, restart: Callable[[Path], int], root: Path) -> None:
        """Nothing is restarted yet."""
        self._restart = restart
        self._root = root
        self.states: dict[frozenset[tuple[str, bytes | None]], State] = {}
        self.found: dict[frozenset[tuple[str, bytes | None]], int | str] = {}

    def losses(self, cuts: Iterable[Cut], promised: Callable[[Operation], int]) -> Iterator[Loss]:
        """The power cuts after which a run goes on from before the step that was promised by then, or not at all.

        Each state is told once for each step that was promised.
        """
        told = set()
        for cut in cuts:
            step = promised(cut.after)
            for state in cut.states:
                key = state.key
                if (key, step) in told:
                    continue
                told.add((key, step))
                found = self._find(key, state)
                if isinstance(found, str):
                    yield Loss(cut.after, state, found)
                elif found < step:
                    yield Loss(cut.after, state, f"it goes on from step {found}, and {step} was promised")

    def _find(self, key: frozenset[tuple[str, bytes | None]], state: State) -> int | str:
        if key not in self.found:
            state.materialise(self._root)
            self.states[key] = state
            try:
                self.found[key] = self._restart(self._root)
            except Exception as error:  # noqa: BLE001 - whatever it is, the run does not go on
                self.found[key] = f"{type(error).__name__}: {error}"
        return self.found[key]
