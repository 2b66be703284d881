"""What became of a run, on one page: curves, mistakes, filters, calibration, checkpoints, settings.

    python -m mnist.report [--train_dir=DIR] [--data_dir=DIR] [--trust]

Writes `<train_dir>/report.html`, which needs nothing but a browser, and its pictures as `<train_dir>/report/*.png`;
nothing else in the train_dir is touched. A run does so itself when it ends, unless --noreport; this asks the newest
checkpoint, also of a run that is still going on.
Exit status: 0 done; 1 an error, in one sentence; 2 wrong usage.
"""

from __future__ import annotations

import argparse
import base64
import io
import logging
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from checkpointing import cli
from checkpointing.errors import OddFileError, reason
from checkpointing.protocol import lookup
from checkpointing.protocol.manifest import Manifest
from checkpointing.runs import history
from checkpointing.runs.preemption import StopRequested, StopSignal
from checkpointing.storage import durable, layout
from checkpointing.storage.json_kinds import is_finite
from checkpointing.tf_import import tensorflow_import
from checkpointing.tools import inspection
from mnist.errors import DataError
from mnist.reporting import results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from mnist.input.dataset import Split
    from mnist.training.evaluation import Predictions

Record = dict[str, Any]

_DEFAULT_TRAIN_DIR = Path("runs/cnn")
_METRICS = {"step", "loss", "learning_rate", "images_per_second"}
_VALIDATION = "validation_accuracy"
_MOST_POINTS = 5000  # of a curve; the page is some hundred pixels wide
_DPI = 130

_log = logging.getLogger(__name__)


class Section(NamedTuple):
    """A part of the page. figure: its picture. rows: a table's, under the names of its columns if it has any."""

    title: str
    text: str
    figure: Figure | None = None
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[object]] = ()


def main(arguments: Sequence[str] | None = None) -> int:
    """Does what the command line says; gives the exit status."""
    given = _parser().parse_args(arguments)
    return cli.run_tool(lambda: _report(given.train_dir, given.data_dir, trusted=given.trust), debug=given.debug)


def _parser() -> argparse.ArgumentParser:
    parser = cli.parser("python -m mnist.report", __doc__)
    add = parser.add_argument
    add("--train_dir", type=Path, default=_DEFAULT_TRAIN_DIR, metavar="DIR", help=f"the run ({_DEFAULT_TRAIN_DIR})")
    add("--data_dir", type=Path, metavar="DIR", help="its data: IDX files or a TFDS directory (the bundled MNIST)")
    add("--trust", action="store_true", help="load a model that can touch files (SECURITY.md)")
    return parser


def _report(train_dir: Path, data_dir: Path | None, *, trusted: bool) -> int:
    """Asks the newest checkpoint, writes the report, and tells where; gives the exit status."""
    from mnist.input import dataset  # noqa: PLC0415 - --help waits for nobody

    prefix, recorded = lookup.newest_of_run(train_dir)
    settings = recorded.settings
    data = dataset.load(data_dir, 0)
    if settings.get("data", data.fingerprint) != data.fingerprint:
        found = f"{data_dir or 'the bundled MNIST'}: data {data.fingerprint} found"
        raise DataError(f"{found}, the run was made with {settings['data']}: give its --data_dir.")
    print(write(train_dir, prefix, data.test, _ask(prefix, data.test, trusted=trusted)))
    return cli.OK


def write(train_dir: Path, prefix: Path, split: Split, answers: Predictions) -> Path:
    """Writes the report of a run; gives its path.

    Args:
      train_dir: where it goes.
      prefix: a complete checkpoint of the run.
      split: the test set.
      answers: what the checkpoint's model says of it.

    Raises:
      CheckpointError: the checkpoint cannot be read. ResultError: nor can result.json. OSError: the disk refuses.
    """
    run = _Run(train_dir, prefix, Manifest.read(layout.manifest_path(prefix)))
    sections = [
        (section, _png(section.figure) if section.figure else b"") for section in _sections(run, split, answers)
    ]
    pictures = train_dir / "report"
    if pictures.is_symlink():
        raise OddFileError(pictures, "expected a directory, got a symbolic link")
    durable.make_directory(pictures)
    for section, png in sections:
        if png:
            durable.atomic_write(pictures / f"{section.title.lower().replace(' ', '-')}.png", png)
    path = train_dir / "report.html"
    durable.atomic_write(path, _page(run, _headline(run, split, answers), sections).encode())
    return path


def leave(train_dir: Path, step: int, split: Split, answers: Predictions, stop: StopSignal) -> None:
    """Writes the report of a run that has ended at that step; that it cannot be written is no failure of the run.

    A signal that `stop` hears ends the writing, not the run: all else is done. The others are the arguments of `write`.
    """
    try:
        with stop.interruptible():
            _log.info("report: %s", write(train_dir, layout.prefix(train_dir, step), split, answers))
    except StopRequested as signal:
        _log.warning("the report is left out: stopped by %s; all else is done", signal)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a page, the run has ended well
        _log.warning("the report could not be written (%s: %s)", type(error).__name__, reason(error))


class _Run:
    """What lies in a train_dir besides the newest checkpoint."""

    def __init__(self, train_dir: Path, prefix: Path, recorded: Manifest) -> None:
        self.train_dir, self.prefix, self.recorded = train_dir, prefix, recorded
        self.metrics, self.logged_steps = _metrics(train_dir)
        self.attempts = history.read(train_dir)
        self.checkpoints = inspection.list_checkpoints(train_dir, check=False)
        ended = train_dir / layout.RESULT
        self.result: Record = results.read(ended) if ended.exists() else {}

    @property
    def members(self) -> dict[str, Record]:
        """Of an ensemble, what its result.json says of each network, by the name of its train_dir."""
        return {f"seed-{each['seed']}": each for each in self.result.get("members", [])}

    @property
    def resumes(self) -> list[tuple[int, str]]:
        """Where the run was taken up again, and how the attempt before had ended."""
        pairs = zip(self.attempts, self.attempts[1:], strict=False)
        return [(later["from_step"], earlier["ended"] or "cut off") for earlier, later in pairs]


def _metrics(train_dir: Path) -> tuple[list[Record], int]:
    """The figures of the logged steps in order, thinned out evenly where there are many; and their number."""
    validated, others, count = _Thinned(), _Thinned(), 0
    for record in history.metrics(train_dir):
        figures = {name: record[name] for name in (*_METRICS, _VALIDATION) if is_finite(record.get(name))}
        if figures.keys() >= _METRICS:
            count += 1
            (validated if _VALIDATION in figures else others).add(figures)
    return sorted([*validated.records(), *others.records()], key=lambda each: each["step"]), count


class _Thinned:
    """Every nth of any number of records, and the last one: n doubles whenever there are too many."""

    def __init__(self) -> None:
        self._kept: list[Record] = []
        self._last: Record | None = None
        self._every, self._count = 1, 0

    def add(self, record: Record) -> None:
        if self._count % self._every == 0:
            self._kept.append(record)
        self._count, self._last = self._count + 1, record
        if len(self._kept) > _MOST_POINTS:
            self._kept, self._every = self._kept[::2], 2 * self._every

    def records(self) -> list[Record]:
        return self._kept if self._last is None or self._kept[-1] is self._last else [*self._kept, self._last]


def _ask(prefix: Path, split: Split, *, trusted: bool) -> Predictions:
    """What the checkpoint's model says of all images of a split."""
    with tensorflow_import():
        from checkpointing.graphs import predictor  # noqa: PLC0415 - needs TensorFlow
        from mnist.training.evaluation import Predictions  # noqa: PLC0415
    with predictor.open_predictor(prefix, {"images"}, set(Predictions._fields), trusted=trusted) as model:
        return Predictions(**predictor.predict_in_batches(model.predict, {"images": split.images}))


def _sections(run: _Run, split: Split, answers: Predictions) -> list[Section]:
    """The page, part by part."""
    return [*_pictures(run, split, answers), *_tables(run)]


def _pictures(run: _Run, split: Split, answers: Predictions) -> Iterator[Section]:
    from checkpointing.format import tensor_io  # noqa: PLC0415 - needs NumPy
    from mnist.reporting import plots  # noqa: PLC0415 - needs matplotlib

    asked = (split.labels, answers.classes)
    if run.metrics:
        text = f"{run.logged_steps} logged steps; dotted lines are where the run was taken up again."
        yield Section("Learning", text, plots.learning_curve(run.metrics, run.resumes))
    members = {name: _metrics(run.train_dir / name)[0] for name in run.members}
    logged = {name: metrics for name, metrics in members.items() if metrics}
    if logged:
        text = "The networks whose answers are averaged, each a run of its own with a report of its own."
        yield Section("Learning of the members", text, plots.loss_curve(logged))
    wrong = int((answers.classes != split.labels).sum())
    yield Section(
        "Mistakes by digit", f"{wrong} of {len(split.labels)} test images are wrong.", plots.confusion(*asked)
    )
    if wrong:
        text = (
            "The surest of the wrong answers, with label, answer and its probability. Some labels are wrong themselves."
        )
        yield Section("Surest mistakes", text, plots.confusion_matrix(split.images, *asked, answers.probabilities))
    figure, error = plots.reliability_diagram(*asked, answers.probabilities)
    text = f"How often answers are right that are given so surely; expected calibration error {error:.4f}."
    yield Section("Calibration", text, figure)
    weights = tensor_io.read(run.prefix).get("layer1/weights")
    if weights is not None:
        text = "What the first layer looks for: red speaks for it, blue against it."
        yield Section("First layer", text, plots.first_weights(weights))


def _tables(run: _Run) -> Iterator[Section]:
    rows: list[Sequence[object]] = [
        (each.prefix.name, _when(each.saved_at), f"{each.bytes / 1e6:.1f} MB", _share(each.score), each.why_kept or "-")
        for each in run.checkpoints
    ]
    columns: Sequence[str] = ("checkpoint", "saved", "size", "validation", "kept, because it is")
    yield Section("Checkpoints", f"In {run.train_dir}.", columns=columns, rows=rows)
    yield from _attempts(run)
    if run.members:
        rows = [(name, f"{each['test_accuracy']:.4f}", each["weights_sha256"]) for name, each in run.members.items()]
        yield Section("Members", "Each alone.", columns=("train_dir", "test accuracy", "weights sha256"), rows=rows)
    named = ("machine", "weights_sha256", "export_dir", "images_per_second")
    where = {name: run.result[name] for name in named if run.result.get(name) is not None}
    rows = [
        *run.recorded.versions.items(),
        *where.items(),
        ("code sha256", run.recorded.code),
        ("checkpoint", run.prefix),
    ]
    yield Section("Made with", "Versions, machine and hashes.", rows=rows)
    yield Section("Settings", "All that the weights are a function of.", rows=list(run.recorded.settings.items()))


def _attempts(run: _Run) -> Iterator[Section]:
    """What the run's processes did; of an ensemble, the members' own reports tell it."""
    if not run.attempts:
        return
    rows = [
        (
            *(number, _when(each["started_at"]), each["from_step"], each["to_step"], each["steps_redone"]),
            *(f"{each['seconds'].get('total', 0):.1f}", each["ended"] or "cut off, or under way"),
        )
        for number, each in enumerate(run.attempts, start=1)
    ]
    columns = ("attempt", "started", "from step", "to step", "made again", "seconds", "ended")
    yield Section("Attempts", "An attempt is the life of one process.", columns=columns, rows=rows)


def _headline(run: _Run, split: Split, answers: Predictions) -> list[tuple[str, str]]:
    accuracy = float((answers.classes == split.labels).mean())
    error = math.sqrt(accuracy * (1 - accuracy) / len(split.labels))  # binomial
    recorded = [each[_VALIDATION] for each in run.metrics if _VALIDATION in each]
    validated = recorded[-1] if recorded else run.result.get("validation_accuracy")
    if run.attempts:
        seconds = sum(each["seconds"].get("total", 0.0) for each in run.attempts)
        taken = [(f"in {len(run.attempts)} attempt{'s' * (len(run.attempts) != 1)}", f"{seconds:,.0f} s")]
    else:
        taken = [(f"{len(run.members)} members", f"{run.result['seconds']['total']:,.0f} s")] if run.members else []
    return [
        (f"test accuracy, \u00b1 {error:.4f}", f"{accuracy:.4f}"),
        *([("validation accuracy", f"{validated:.4f}")] if validated is not None else []),
        (f"of {run.recorded.settings.get('train_steps', '?')} steps", f"{run.recorded.step:,}"),
        *taken,
    ]


def _page(run: _Run, headline: Sequence[tuple[str, str]], sections: Sequence[tuple[Section, bytes]]) -> str:
    """The HTML, its pictures inside."""
    import jinja2  # noqa: PLC0415 - --help waits for nobody

    source = (Path(__file__).parent / "reporting" / "report.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    parts = [(section, base64.b64encode(png).decode()) for section, png in sections]
    return template.render(title=f"{run.train_dir.name}: {run.prefix.name}", headline=headline, sections=parts)


def _png(figure: Figure) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=_DPI)
    return content.getvalue()


def _when(seconds: float) -> str:
    """A time of day; in seconds where the calendar has no such day."""
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    except (OverflowError, ValueError, OSError):
        return f"{seconds:.0f} s after 1970"


def _share(score: float | None) -> str:
    return "-" if score is None else f"{score:.4f}"


if __name__ == "__main__":
    sys.exit(main())
