"""The pictures in README.md of what the project itself draws: a run's report, and drawings read by `mnist.predict`.

    python -m tests.pictures [TRAIN_DIR]

They are of the first run that `make reproduce` makes of cnn_small, or of any other run of it; one that has not ended
goes on first.
"""

import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests import drawing, programs

PLOTS = programs.ROOT / "docs" / "plots"
_TRAIN_DIR = Path("runs/reproduce/cnn_small/seed-0")
_ROWS, _ROWS_SHOWN = 10, 4


def draw(train_dir: Path) -> None:
    """Ends the run, and takes over what its report shows; the surest mistakes alone, for the page is short."""
    train = programs.command("cnn", "--config=cnn_small", f"--train_dir={train_dir}", "--report")
    subprocess.run(train, check=True)
    pictures = train_dir / "report"
    PLOTS.joinpath("report-learning.png").write_bytes((pictures / "learning.png").read_bytes())
    with Image.open(pictures / "surest-mistakes.png") as mistakes:
        width, height = mistakes.size
        mistakes.crop((0, 0, width, height * _ROWS_SHOWN // _ROWS)).save(PLOTS / "report-mistakes.png")
    drawing.sheet().save(PLOTS / "drawings.png")


if __name__ == "__main__":
    draw(Path(*sys.argv[1:]) if sys.argv[1:] else _TRAIN_DIR)
