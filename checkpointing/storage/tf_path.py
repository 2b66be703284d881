"""TensorFlow's readers take brackets, stars and backslashes in a path for a pattern; users have such paths.

    with alias.without_pattern(prefix) as prefix:
        tf.train.load_checkpoint(str(prefix))

Where TensorFlow finds nothing under "run[1]", it finds all under a link to it with a plainer name.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpointing.storage import layout

_PATTERN = frozenset("*?[\\")


@contextmanager
def without_pattern(path: Path) -> Iterator[Path]:
    """Another name for the same checkpoint or file, as long as the block lasts, if its own could be a pattern."""
    if not _PATTERN & set(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory() as directory:
        link = Path(directory) / "directory"
        link.symlink_to(path.parent.absolute(), target_is_directory=True)
        if not _PATTERN & set(path.name):
            yield link / path.name
            return
        plain = Path(directory) / "checkpoint"
        for file in layout.contents_of(path):
            plain.with_name(plain.name + file.name.removeprefix(path.name)).symlink_to(link / file.name)
        yield plain
