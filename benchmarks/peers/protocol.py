"""Protocol and measurements of a peer process; uses only the standard library.

A peer is a separate process, often with other libraries. It reads one word per line from standard input, measures, and
writes one JSON object per line to standard output:

    lost     time that training loses to a save: steps, a save, and steps until the save has ended
    save     a save in the foreground
    restore  a restore of the newest save
"""

import json
import os
import statistics
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

VARIABLES = 16

# Minimum duration and number of undisturbed steps before a save.
_UNDISTURBED_SECONDS = 0.5
_UNDISTURBED_STEPS = 7

Seconds = dict[str, float]


class Peer(ABC):
    """A state of VARIABLES float32 variables, a training step, and a way to save and restore the state."""

    libraries: tuple[str, ...]  # whose versions are reported

    @abstractmethod
    def step(self) -> None:
        """Change every variable in place; return when that is done."""

    @abstractmethod
    def begin_save(self) -> None:
        """Save; return as soon as training can continue."""

    def saving(self) -> bool:
        """Return whether a background save is running."""
        return False

    def save(self) -> Seconds:
        """Save, and wait until the files are on the disk; return the seconds of the parts."""
        write = seconds_of(self.begin_save)
        fsync = seconds_of(lambda: _sync_below(self.directory))
        return {"write": write, "fsync": fsync, "whole": write + fsync}

    @abstractmethod
    def restore(self) -> Seconds:
        """Restore the newest save into the variables; return the seconds of the parts."""

    @abstractmethod
    def forget(self) -> None:
        """Delete all saves."""

    def __init__(self, size: int, directory: Path) -> None:
        """Initialize the state.

        Args:
          size: size of the state, in bytes.
          directory: empty directory to save to.
        """
        self.elements = size // 4 // VARIABLES
        self.directory = directory
        self.kept = False  # whether there is a save to restore


def lost(peer: Peer) -> Seconds:
    """Train, save, and train until the save has ended; return the seconds beyond those of undisturbed steps."""
    undisturbed: list[float] = []
    while sum(undisturbed) < _UNDISTURBED_SECONDS or len(undisturbed) < _UNDISTURBED_STEPS:
        undisturbed.append(seconds_of(peer.step))
    step = statistics.median(undisturbed)
    began = time.perf_counter()
    stall = seconds_of(peer.begin_save)
    first = seconds_of(peer.step) - step
    later = []
    while peer.saving():
        later.append(seconds_of(peer.step) - step)
    ended = time.perf_counter() - began
    peer.forget()
    return {
        "lost": stall + first,
        "stall": stall,
        "first step": first,
        "later steps": sum(later),
        "save ended after": ended,
        "a step": step,
    }


def save(peer: Peer) -> Seconds:
    """Change the state, and save it in the foreground."""
    peer.step()
    seconds = peer.save()
    peer.forget()
    return seconds


def restore(peer: Peer) -> Seconds:
    """Restore a state that has been saved once, and so is in the page cache."""
    if not peer.kept:
        peer.save()
        peer.kept = True
    peer.step()
    return peer.restore()


MEASUREMENTS: dict[str, Callable[[Peer], Seconds]] = {"lost": lost, "save": save, "restore": restore}


def serve(make_peer: Callable[[int, Path], Peer]) -> None:
    """Run a peer's process; the command line has the size and the directory."""
    _, size, directory = sys.argv
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # lines that a library prints go to stderr
    peer = make_peer(int(size), Path(directory))
    print(json.dumps({library: version(library) for library in peer.libraries}), file=replies)
    for line in sys.stdin:
        print(json.dumps(MEASUREMENTS[line.strip()](peer)), file=replies)


def seconds_of(call: Callable[[], object]) -> float:
    """Return the seconds of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def numbered(directory: Path, name: str) -> Iterator[Path]:
    """Yield new paths, so that no save overwrites another."""
    number = 0
    while True:
        number += 1
        yield directory / f"{name}-{number}"


def _sync_below(directory: Path) -> None:
    """Fsync all files and directories below a directory."""
    for path in [*directory.rglob("*"), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
