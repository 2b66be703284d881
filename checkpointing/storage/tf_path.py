"""Give TensorFlow a path without glob characters.

    with tf_path.without_pattern(prefix) as prefix:
        tf.train.load_checkpoint(str(prefix))

TensorFlow's readers match paths as patterns, so they find no checkpoint in a directory called "run[1]". They find it
through a symbolic link with a plain name.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checkpointing.storage import layout

_PATTERN = frozenset("*?[\\")


@contextmanager
def without_pattern(path: Path) -> Iterator[Path]:
    """Yield a path without glob characters to the same checkpoint or file; it is valid until the end of the block."""
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
