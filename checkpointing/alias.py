"""TensorFlow's readers take brackets, stars and backslashes in a path for a pattern; users have such paths.

    with alias.without_pattern(prefix) as prefix:
        tf.train.load_checkpoint(str(prefix))

Where TensorFlow finds nothing under "run[1]", it finds all under a link to it with a plainer name.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PATTERN = frozenset("*?[\\")


@contextmanager
def without_pattern(path: Path) -> Iterator[Path]:
    """Another name for the same place, as long as the block lasts, if the path's directories could be a pattern."""
    if not _PATTERN & set(str(path.parent)):
        yield path
        return
    with tempfile.TemporaryDirectory() as directory:
        link = Path(directory) / "directory"
        link.symlink_to(path.parent.absolute(), target_is_directory=True)
        yield link / path.name
