"""The report of a run: one page of learning curves, errors, calibration, checkpoints and settings.

    path = run_report.write(train_dir, prefix, data.test, predictions)

Files: `<train_dir>/report.html`, `<train_dir>/report/<title>.png`.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checkpointing.errors import OddFileError, reason
from checkpointing.protocol.manifest import Manifest
from checkpointing.runs import history
from checkpointing.runs.preemption import StopRequested, StopSignal
from checkpointing.storage import durable, layout
from checkpointing.storage.json_kinds import is_finite
from checkpointing.tf_import import silenced
from checkpointing.tools import inspection, output
from mnist.reporting import html_report, results
from mnist.reporting.html_report import Section

if TYPE_CHECKING:
    from mnist.input.dataset import Split
    from mnist.training.evaluation import Predictions

Record = dict[str, Any]

_METRICS = {"step", "loss", "learning_rate", "images_per_second"}
_VALIDATION = "validation_accuracy"
_MAX_POINTS = 5000  # of a curve; the page is some hundred pixels wide

_log = logging.getLogger(__name__)


def write(train_dir: Path, prefix: Path, split: Split, predictions: Predictions) -> Path:
    """Write the report of a run; return the path of the page.

    Args:
      train_dir: of the run.
      prefix: a complete checkpoint of the run.
      split: the test set.
      predictions: the checkpoint's, for the test set.

    Raises:
      CheckpointError: the checkpoint cannot be read.
      ResultError: result.json cannot be read.
      OSError: the disk refuses.
    """
    run = _Run(train_dir, prefix, Manifest.read(layout.manifest_path(prefix)))
    with _without_messages_of_matplotlib():
        sections = [*_plots(run, split, predictions), *_tables(run)]
        page = html_report.render(f"{train_dir.name}: {prefix.name}", _headline(run, split, predictions), sections)
    plots = train_dir / "report"
    if plots.is_symlink():
        raise OddFileError(plots, "expected a directory, got a symbolic link")
    durable.make_directory(plots)
    for name, png in page.pngs.items():
        durable.atomic_write(plots / name, png)
    path = train_dir / "report.html"
    durable.atomic_write(path, page.html.encode())
    return path


def write_at_end(train_dir: Path, step: int, split: Split, predictions: Predictions, stop: StopSignal) -> None:
    """Write the report of a run that has ended at a step. A failure is logged: it is not a failure of the run.

    A signal ends the writing, not the run. The other arguments are those of `write`.
    """
    try:
        with stop.interruptible():
            _log.info("report: %s", write(train_dir, layout.prefix(train_dir, step), split, predictions))
    except StopRequested as signal:
        _log.warning("no report: stopped by %s; the run itself has ended", signal)
    except Exception as error:  # noqa: BLE001 - no error of the report may fail the run
        _log.warning("the report could not be written (%s: %s)", type(error).__name__, reason(error))


class _Run:
    """What a train_dir holds."""

    def __init__(self, train_dir: Path, prefix: Path, manifest: Manifest) -> None:
        self.train_dir, self.prefix, self.manifest = train_dir, prefix, manifest
        self.metrics, self.logged_steps = read_metrics(train_dir)
        self.attempts = history.read(train_dir)
        self.checkpoints = inspection.list_checkpoints(train_dir, check=False)
        path = train_dir / layout.RESULT
        self.result: Record = results.read(path) if path.exists() else {}

    @property
    def members(self) -> dict[str, Record]:
        """The results of an ensemble's networks, by the names of their train_dirs; empty for a single network."""
        return {f"seed-{each['seed']}": each for each in self.result.get("members", [])}

    @property
    def resumes(self) -> list[tuple[int, str]]:
        """The steps from which the run was resumed, and how the attempt before had ended."""
        pairs = zip(self.attempts, self.attempts[1:], strict=False)
        return [(later["from_step"], earlier["ended"] or "cut off") for earlier, later in pairs]


def read_metrics(train_dir: Path) -> tuple[list[Record], int]:
    """Read the metrics of the logged steps, in order and thinned out evenly if there are many.

    Returns:
      The records, and the number of logged steps before they were thinned out.
    """
    validated, others, count = _Thinned(), _Thinned(), 0
    for record in history.metrics(train_dir):
        finite = {name: record[name] for name in (*_METRICS, _VALIDATION) if is_finite(record.get(name))}
        if finite.keys() >= _METRICS:
            count += 1
            (validated if _VALIDATION in finite else others).add(finite)
    return sorted([*validated.records(), *others.records()], key=lambda each: each["step"]), count


class _Thinned:
    """Every nth of any number of records, and the last one; n doubles as soon as there are too many."""

    def __init__(self) -> None:
        self._kept: list[Record] = []
        self._last: Record | None = None
        self._every, self._count = 1, 0

    def add(self, record: Record) -> None:
        if self._count % self._every == 0:
            self._kept.append(record)
        self._count, self._last = self._count + 1, record
        if len(self._kept) > _MAX_POINTS:
            self._kept, self._every = self._kept[::2], 2 * self._every

    def records(self) -> list[Record]:
        return self._kept if self._last is None or self._kept[-1] is self._last else [*self._kept, self._last]


@contextmanager
def _without_messages_of_matplotlib() -> Iterator[None]:
    """Hide what matplotlib logs and warns about: its cache, its fonts. Its errors arrive as exceptions."""
    logging.getLogger("matplotlib").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with silenced():  # the programs that search for fonts write to standard error
            from mnist.reporting import plots  # noqa: F401, PLC0415 - with its first import it searches for fonts
        yield


def _plots(run: _Run, split: Split, predictions: Predictions) -> Iterator[Section]:
    from checkpointing.format import tensor_io  # noqa: PLC0415 - needs NumPy
    from mnist.reporting import metrics, plots  # noqa: PLC0415 - needs matplotlib

    if run.metrics:
        text = f"{run.logged_steps} logged steps. A dotted line marks each step from which the run was resumed."
        yield Section("Learning curves", text, plots.learning_curve(run.metrics, run.resumes))
    member_metrics = {name: read_metrics(run.train_dir / name)[0] for name in run.members}
    logged = {name: records for name, records in member_metrics.items() if records}
    if logged:
        text = "The networks whose predictions are averaged. Each has a train_dir and a report."
        yield Section("Learning curves of the members", text, plots.loss_curve(logged))
    labels, (classes, probabilities) = split.labels, predictions
    wrong = int((classes != labels).sum())
    text = f"{wrong} of {len(labels)} test images are classified wrongly."
    yield Section("Confusion matrix", text, plots.confusion_matrix(labels, classes))
    if wrong:
        text = "Label, prediction and its probability. Some labels of MNIST are themselves wrong."
        figure = plots.most_confident_errors(split.images, labels, classes, probabilities)
        yield Section("Most confident errors", text, figure)
    calibration = metrics.calibration(labels, classes, probabilities)
    text = f"Accuracy by predicted probability. Expected calibration error: {calibration.expected_error:.4f}."
    yield Section("Reliability diagram", text, plots.reliability_diagram(calibration))
    weights = tensor_io.read(run.prefix).get("layer1/weights")
    if weights is not None:
        text = "Weights of the first layer: red is positive, blue is negative."
        yield Section("First layer", text, plots.first_weights(weights))


def _tables(run: _Run) -> Iterator[Section]:
    yield _checkpoints_table(run)
    if run.attempts:  # an ensemble has none: its members have
        yield _attempts_table(run)
    if run.members:
        rows = [(name, f"{each['test_accuracy']:.4f}", each["weights_sha256"]) for name, each in run.members.items()]
        text = "The networks of the ensemble."
        yield Section("Members", text, columns=("train_dir", "test accuracy", "weights sha256"), rows=rows)
    names = ("machine", "weights_sha256", "export_dir", "images_per_second")
    of_result = {name: run.result[name] for name in names if run.result.get(name) is not None}
    made_with = [
        *run.manifest.versions.items(),
        *(run.manifest.environment or {}).items(),
        *of_result.items(),
        ("code sha256", run.manifest.code),
        ("checkpoint", run.prefix),
    ]
    yield Section("Made with", "Versions, machine and hashes.", rows=made_with)
    yield Section("Settings", "The settings that determine the weights.", rows=list(run.manifest.settings.items()))


def _checkpoints_table(run: _Run) -> Section:
    rows = [
        (
            *(each.prefix.name, output.moment(each.saved_at), f"{each.bytes / 1e6:.1f} MB"),
            *("-" if each.score is None else f"{each.score:.4f}", each.why_kept or "-"),
        )
        for each in run.checkpoints
    ]
    columns = ("checkpoint", "saved", "size", "validation accuracy", "kept because")
    return Section("Checkpoints", f"In {run.train_dir}.", columns=columns, rows=rows)


def _attempts_table(run: _Run) -> Section:
    rows = [
        (
            *(number, output.moment(each["started_at"]), each["from_step"], each["to_step"], each["steps_redone"]),
            *(f"{each['seconds'].get('total', 0):.1f}", each["ended"] or "cut off, or running"),
        )
        for number, each in enumerate(run.attempts, start=1)
    ]
    columns = ("attempt", "started", "from step", "to step", "steps redone", "seconds", "ended")
    return Section("Attempts", "An attempt is the life of one process.", columns=columns, rows=rows)


def _headline(run: _Run, split: Split, predictions: Predictions) -> list[tuple[str, str]]:
    from mnist.reporting import metrics  # noqa: PLC0415 - needs NumPy

    accuracy = float((predictions.classes == split.labels).mean())
    error = metrics.standard_error(accuracy, len(split.labels))
    recorded = [each[_VALIDATION] for each in run.metrics if _VALIDATION in each]
    validation = recorded[-1] if recorded else run.result.get(_VALIDATION)
    return [
        (f"test accuracy, \u00b1 {error:.4f}", f"{accuracy:.4f}"),
        *([("validation accuracy", f"{validation:.4f}")] if validation is not None else []),
        (f"of {run.manifest.settings.get('train_steps', '?')} steps", f"{run.manifest.step:,}"),
        *_duration(run),
    ]


def _duration(run: _Run) -> Iterable[tuple[str, str]]:
    if run.attempts:
        seconds = sum(each["seconds"].get("total", 0.0) for each in run.attempts)
        yield f"in {output.counted(len(run.attempts), 'attempt')}", f"{seconds:,.0f} s"
    elif run.members:
        yield output.counted(len(run.members), "member"), f"{run.result['seconds']['total']:,.0f} s"
