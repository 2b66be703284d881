"""Make the plots in README.md: of a run's report, and of drawings that `mnist.predict` reads.

    python -m tests.pictures [TRAIN_DIR]

TRAIN_DIR is that of a finished run of cnn_small; by default the first one of `make reproduce`.
"""

import sys
from pathlib import Path

from PIL import Image

from mnist import report
from tests import drawing, programs

PLOTS = programs.ROOT / "docs" / "plots"
_TRAIN_DIR = "runs/reproduce/cnn_small/seed-0"
_SHOWN = 0.4  # of the height of the most confident errors


def draw(train_dir: Path) -> int:
    """Write the run's report, copy two of its plots, and draw the drawings; return the exit status."""
    status = report.main([f"--train_dir={train_dir}"])
    if status:
        return status
    plots = train_dir / "report"
    PLOTS.joinpath("report-learning.png").write_bytes((plots / "learning-curves.png").read_bytes())
    with Image.open(plots / "most-confident-errors.png") as errors:
        width, height = errors.size
        errors.crop((0, 0, width, int(height * _SHOWN))).save(PLOTS / "report-mistakes.png")
    drawing.sheet().save(PLOTS / "drawings.png")
    return 0


if __name__ == "__main__":
    sys.exit(draw(Path(*(sys.argv[1:2] or [_TRAIN_DIR]))))
