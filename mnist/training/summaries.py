"""What TensorBoard shows of a run, in TensorFlow's own event files: `tensorboard --logdir runs`.

    events = Events(train_dir / "events", append)
    events.begin(0, graph_def, settings)
    events.scalars(100, {"loss": 0.5})

An event file is a TFRecord of Event messages. Each attempt of a run writes one of its own, which begins by telling
TensorBoard from which step on it counts: what an attempt that was killed wrote beyond that is not shown any more, so
that no curve is double. Records are appended whole and no file is held open in between, which TensorFlow's own writers
do: a disk whose files are open cannot be turned read-only or taken away. Nothing here may stop a run.
"""

import io
import logging
import os
import struct
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import tensorflow as tf
from PIL import Image
from tensorboard.plugins.hparams import summary as hparams

from mnist.input.dataset import CLASSES, IMAGE_SHAPE
from mnist.input.idx import Bytes

Array = np.ndarray[Any, Any]

# How TensorBoard knows files by, and the version that its purging needs (source: its event_accumulator.py).
_NAME = "events.out.tfevents"
_VERSION = "brain.Event:2"

_BINS = 40
_MOST_SHOWN = 64
_ENLARGED = 16
_BYTE = 255

_log = logging.getLogger(__name__)


class SummaryWriter:
    """Writes the events of one attempt; each is in the file when its method returns."""

    def __init__(
        self, directory: Path, append: Callable[[Path, bytes], object], clock: Callable[[], float] = time.time
    ) -> None:
        """Nothing is written before an attempt begins.

        Args:
          directory: where the files go.
          append: adds bytes to a file, which it makes where there is none; all of them or none. Where it raises
            OSError, one warning says so, and that record is missing.
          clock: gives seconds since 1970.
        """
        self._directory = directory
        self._append = append
        self._clock = clock
        self._path: Path | None = None
        self._unwritten = b""
        self._refused = False

    def begin(self, step: int, graph_def: tf.compat.v1.GraphDef, settings: Mapping[str, Any]) -> None:
        """Begins a file; with the graph and the settings in it, where it is the run's first.

        Args:
          step: where the attempt goes on; whatever was written beyond it is void.
          graph_def: the graph that is trained.
          settings: shown as hyper-parameters.
        """
        first = not any(self._directory.glob(f"{_NAME}.*"))
        # TensorBoard reads them in the order of their names.
        self._path = self._directory / f"{_NAME}.{int(self._clock()):010d}.{os.getpid()}"
        self._write(tf.compat.v1.Event(file_version=_VERSION))
        self.purge_from(step)
        if first:
            self._write(tf.compat.v1.Event(graph_def=graph_def.SerializeToString()))
            self._add(0, hparams.session_start_pb(dict(settings)))

    def purge_from(self, step: int) -> None:
        """Tells TensorBoard to forget what it was told of later steps than this."""
        begun = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._write(tf.compat.v1.Event(session_log=begun, step=step + 1))

    def scalars(self, step: int, figures: Mapping[str, float]) -> None:
        """Figures of a step, by their tags."""
        values = [tf.compat.v1.Summary.Value(tag=tag, simple_value=figure) for tag, figure in figures.items()]
        self._add(step, tf.compat.v1.Summary(value=values))

    def histograms(self, step: int, arrays: Mapping[str, Array]) -> None:
        """How the numbers in arrays are spread, by their tags; what is no finite number is left out."""
        finite = {tag: array[np.isfinite(array)] for tag, array in arrays.items()}
        values = [
            tf.compat.v1.Summary.Value(tag=tag, histo=_histogram(array)) for tag, array in finite.items() if array.size
        ]
        self._add(step, tf.compat.v1.Summary(value=values))

    def judged(self, step: int, images: Bytes, labels: Array, classes: Array) -> None:
        """The confusion matrix of a judged split, and the images that were taken for something else.

        Args:
          step: after which it was judged.
          images: uint8 [N, 28, 28].
          labels: [N].
          classes: integers [N], the answers.
        """
        wrong = np.flatnonzero(classes != labels)[:_MOST_SHOWN]
        pictures = {"validation/confusion_matrix": confusion(labels, classes), "validation/wrong": grid(images[wrong])}
        values = [tf.compat.v1.Summary.Value(tag=tag, image=_image(pixels)) for tag, pixels in pictures.items()]
        self._add(step, tf.compat.v1.Summary(value=values))

    def _add(self, step: int, summary: Any) -> None:  # noqa: ANN401 - a Summary of TensorFlow, or one of TensorBoard
        summary = tf.compat.v1.Summary.FromString(summary.SerializeToString())
        self._write(tf.compat.v1.Event(step=step, summary=summary))

    def _write(self, event: tf.compat.v1.Event) -> None:
        if self._path is None:
            return
        event.wall_time = self._clock()
        content = _framed(event.SerializeToString())
        try:
            self._append(self._path, self._unwritten + content)
            self._unwritten = b""
        except OSError as error:
            if not event.HasField("summary"):  # without what a file begins with, the rest is shown wrongly
                self._unwritten += content
            if not self._refused:
                _log.warning("%s: cannot be written (%s); training goes on", self._path, error.strerror or error)
            self._refused = True


def _framed(record: bytes) -> bytes:
    """A record of a TFRecord file: its length, the bytes, and a checksum of either (source: record_writer.h)."""
    length = struct.pack("<Q", len(record))
    return length + _masked_crc32c(length) + record + _masked_crc32c(record)


def _masked_crc32c(content: bytes) -> bytes:
    """Masked, for a checksum of bytes that hold checksums is weak (source: crc32c.h)."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def confusion(labels: Array, classes: Array) -> Bytes:
    """How often each label (rows) was taken for each class (columns), uint8 [160, 160]: the darker the more often."""
    counts = np.zeros((CLASSES, CLASSES))
    np.add.at(counts, (labels.astype(int), classes.astype(int)), 1)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    dark = np.sqrt(shares)  # or one mistake in a thousand would not be seen
    return np.kron(_BYTE - np.round(_BYTE * dark), np.ones((_ENLARGED, _ENLARGED))).astype(np.uint8)


def grid(images: Bytes) -> Bytes:
    """Images (uint8 [N, 28, 28]) beside and below one another, eight a row; one black one where there are none."""
    columns = 8
    rows = max(1, -(-len(images) // columns))
    cells = np.zeros((rows * columns, *IMAGE_SHAPE), np.uint8)
    cells[: len(images)] = images
    height, width = IMAGE_SHAPE
    return cells.reshape(rows, columns, height, width).swapaxes(1, 2).reshape(rows * height, columns * width)


def _histogram(array: Array) -> tf.compat.v1.HistogramProto:
    numbers = array.ravel().astype(np.float64)
    counts, edges = np.histogram(numbers, _BINS)
    return tf.compat.v1.HistogramProto(
        min=numbers.min(),
        max=numbers.max(),
        num=numbers.size,
        sum=numbers.sum(),
        sum_squares=(numbers**2).sum(),
        bucket_limit=edges[1:].tolist(),
        bucket=counts.tolist(),
    )


def _image(pixels: Bytes) -> tf.compat.v1.Summary.Image:
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return tf.compat.v1.Summary.Image(
        height=pixels.shape[0], width=pixels.shape[1], colorspace=1, encoded_image_string=content.getvalue()
    )
