"""The pictures in README.md of what the project itself draws: a run's report, and drawings read by `mnist.predict`.

    python -m tests.pictures [TRAIN_DIR]

TRAIN_DIR is that of a run of cnn_small which has ended, by default the first that `make reproduce` makes.
"""

import sys
from pathlib import Path

from PIL import Image

from mnist import report
from tests import drawing, programs

PLOTS = programs.ROOT / "docs" / "plots"
_TRAIN_DIR = "runs/reproduce/cnn_small/seed-0"
_SHOWN = 0.4  # of the mistakes: the page is short


def draw(train_dir: Path) -> int:
    """Writes the run's report, takes over two of its pictures, and draws the drawings; gives the exit status."""
    status = report.main([f"--train_dir={train_dir}"])
    if status:
        return status
    pictures = train_dir / "report"
    PLOTS.joinpath("report-learning.png").write_bytes((pictures / "learning.png").read_bytes())
    with Image.open(pictures / "surest-mistakes.png") as mistakes:
        width, height = mistakes.size
        mistakes.crop((0, 0, width, int(height * _SHOWN))).save(PLOTS / "report-mistakes.png")
    drawing.sheet().save(PLOTS / "drawings.png")
    return 0


if __name__ == "__main__":
    sys.exit(draw(Path(*(sys.argv[1:2] or [_TRAIN_DIR]))))
