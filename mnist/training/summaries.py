"""Write TensorBoard summaries as TensorFlow event files: `tensorboard --logdir runs`.

    writer = SummaryWriter(train_dir / "events", append)
    writer.begin(0, graph_def, settings)
    writer.scalars(100, {"loss": 0.5})

An event file is a TFRecord file of Event messages. Each attempt of a run writes its own file, which starts with the
step from which it replaces earlier files: TensorBoard discards what a killed attempt wrote after that step. Records are
appended whole. Unlike TensorFlow's writers, this one keeps no file open between records, so that the disk can be
unmounted or remounted read-only. Errors are logged, and never stop a run.
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

from mnist.input.dataset import IMAGE_SHAPE
from mnist.input.idx import Bytes
from mnist.reporting import metrics

Array = np.ndarray[Any, Any]

# File name that TensorBoard recognises, and the version that purging needs (source: event_accumulator.py).
_NAME = "events.out.tfevents"
_VERSION = "brain.Event:2"

_BINS = 40
_MAX_IMAGES = 64
_PIXELS_PER_CELL = 16
_WHITE = 255

_log = logging.getLogger(__name__)


class SummaryWriter:
    """Writes the events of one attempt; each is in the file when the method returns."""

    def __init__(
        self, directory: Path, append: Callable[[Path, bytes], object], clock: Callable[[], float] = time.time
    ) -> None:
        """Create a writer; before `begin`, all records are ignored.

        Args:
          directory: of the event files.
          append: appends bytes to a file, all or none, and creates the file if necessary. If it raises OSError, the
            record is lost, and the first such error is logged as a warning.
          clock: returns seconds since 1970.
        """
        self._directory = directory
        self._append = append
        self._clock = clock
        self._path: Path | None = None
        self._pending = b""
        self._has_warned = False

    def begin(self, step: int, graph_def: tf.compat.v1.GraphDef, settings: Mapping[str, Any]) -> None:
        """Begin an event file. The first file of a run also contains the graph and the settings.

        Args:
          step: the step from which the attempt continues; earlier records of later steps are purged.
          graph_def: the training graph.
          settings: shown as hyperparameters.
        """
        first = not any(self._directory.glob(f"{_NAME}.*"))
        # TensorBoard reads files in the order of their names.
        self._path = self._directory / f"{_NAME}.{int(self._clock()):010d}.{os.getpid()}"
        self._write(tf.compat.v1.Event(file_version=_VERSION))
        self.purge_from(step)
        if first:
            self._write(tf.compat.v1.Event(graph_def=graph_def.SerializeToString()))
            self._add(0, hparams.session_start_pb(dict(settings)))

    def purge_from(self, step: int) -> None:
        """Make TensorBoard discard all earlier records of steps after this one."""
        session_log = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        self._write(tf.compat.v1.Event(session_log=session_log, step=step + 1))

    def scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write scalars of a step, by tag."""
        values = [tf.compat.v1.Summary.Value(tag=tag, simple_value=scalar) for tag, scalar in scalars.items()]
        self._add(step, tf.compat.v1.Summary(value=values))

    def histograms(self, step: int, arrays: Mapping[str, Array]) -> None:
        """Write histograms of arrays, by tag; NaN and infinity are left out."""
        finite = {tag: array[np.isfinite(array)] for tag, array in arrays.items()}
        values = [
            tf.compat.v1.Summary.Value(tag=tag, histo=_histogram(array)) for tag, array in finite.items() if array.size
        ]
        self._add(step, tf.compat.v1.Summary(value=values))

    def predictions(self, step: int, images: Bytes, labels: Array, classes: Array) -> None:
        """Write the confusion matrix of the validation split, and its misclassified images.

        Args:
          step: the step of the weights.
          images: uint8 [N, 28, 28].
          labels: integers [N].
          classes: integers [N], the predictions.
        """
        wrong = np.flatnonzero(classes != labels)[:_MAX_IMAGES]
        shown = {"validation/confusion_matrix": confusion(labels, classes), "validation/wrong": grid(images[wrong])}
        values = [tf.compat.v1.Summary.Value(tag=tag, image=_image(pixels)) for tag, pixels in shown.items()]
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
            self._append(self._path, self._pending + content)
            self._pending = b""
        except OSError as error:
            if not event.HasField("summary"):  # the records at the start of a file are needed
                self._pending += content
            if not self._has_warned:
                _log.warning("%s: cannot be written (%s); training continues", self._path, error.strerror or error)
            self._has_warned = True


def _framed(record: bytes) -> bytes:
    """Frame a TFRecord: length, masked CRC of the length, data, masked CRC of the data (source: record_writer.h)."""
    length = struct.pack("<Q", len(record))
    return length + _masked_crc32c(length) + record + _masked_crc32c(record)


def _masked_crc32c(content: bytes) -> bytes:
    """Mask as in LevelDB: a CRC of data that contain CRCs is weak (source: crc32c.h)."""
    crc = google_crc32c.value(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def confusion(labels: Array, classes: Array) -> Bytes:
    """Draw the confusion matrix, labels as rows and classes as columns, uint8 [160, 160]; dark cells are frequent."""
    counts = metrics.confusion_matrix(labels, classes)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    dark = np.sqrt(shares)  # makes one error in a thousand visible
    return np.kron(_WHITE - np.round(_WHITE * dark), np.ones((_PIXELS_PER_CELL, _PIXELS_PER_CELL))).astype(np.uint8)


def grid(images: Bytes) -> Bytes:
    """Arrange images (uint8 [N, 28, 28]) in rows of eight: uint8 [28 * rows, 224]; at least one row, padded black."""
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
