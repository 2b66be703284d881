"""What every peer can be asked, how it is measured, and how it answers; needs nothing but Python.

A peer is a process of its own, often with libraries of its own. It reads one word a line from standard input,
measures, and writes one JSON object a line to standard output:

    lost     what training loses to a save: steps, a save, and steps until the save has ended
    save     a save that training waits for
    restore  the newest state is read back
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

# So long, and at least so many steps, are undisturbed before a save.
_UNDISTURBED_SECONDS = 0.5
_UNDISTURBED_STEPS = 7

Seconds = dict[str, float]


class Peer(ABC):
    """A state of VARIABLES float32 variables, a training step, and a way to keep the state."""

    libraries: tuple[str, ...]  # whose versions count

    @abstractmethod
    def step(self) -> None:
        """Changes every variable in place; returns when it is done."""

    @abstractmethod
    def begin_save(self) -> None:
        """Saves; returns as soon as training may go on."""

    def saving(self) -> bool:
        """Whether the save still goes on; never, where it is no background save."""
        return False

    def save(self) -> Seconds:
        """Saves, and waits until the files are on the disk; gives the seconds of its parts."""
        write = seconds_of(self.begin_save)
        fsync = seconds_of(lambda: _sync_below(self.directory))
        return {"write": write, "fsync": fsync, "whole": write + fsync}

    @abstractmethod
    def restore(self) -> Seconds:
        """Reads the newest save back into the variables; gives the seconds of its parts."""

    @abstractmethod
    def forget(self) -> None:
        """Deletes all saves."""

    def __init__(self, size: int, directory: Path) -> None:
        """Makes the state.

        Args:
          size: its bytes.
          directory: an empty one to save to.
        """
        self.elements = size // 4 // VARIABLES
        self.directory = directory
        self.kept = False  # whether there is a save to restore


def lost(peer: Peer) -> Seconds:
    """Trains, saves, and trains until the save has ended; gives what that took beyond as many undisturbed steps."""
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
    """Changes the state, and saves it while training waits."""
    peer.step()
    seconds = peer.save()
    peer.forget()
    return seconds


def restore(peer: Peer) -> Seconds:
    """Reads back a state that has been saved once, and so is in the page cache."""
    if not peer.kept:
        peer.save()
        peer.kept = True
    peer.step()
    return peer.restore()


QUESTIONS: dict[str, Callable[[Peer], Seconds]] = {"lost": lost, "save": save, "restore": restore}


def serve(make_peer: Callable[[int, Path], Peer]) -> None:
    """A peer's process; its arguments are the size and the directory."""
    _, size, directory = sys.argv
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # whatever a library prints is no answer
    peer = make_peer(int(size), Path(directory))
    print(json.dumps({library: version(library) for library in peer.libraries}), file=answers)
    for line in sys.stdin:
        print(json.dumps(QUESTIONS[line.strip()](peer)), file=answers)


def seconds_of(call: Callable[[], object]) -> float:
    """How long the call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def numbered(directory: Path, name: str) -> Iterator[Path]:
    """Paths that were never given before: no save writes over another."""
    number = 0
    while True:
        number += 1
        yield directory / f"{name}-{number}"


def _sync_below(directory: Path) -> None:
    """Waits until all files below a directory, and their names, are on the disk."""
    for path in [*directory.rglob("*"), directory]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
