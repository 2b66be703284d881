"""Train each recipe with --instruction_set=avx2 and compare the weights with those of other machines, bit for bit.

    python -m tests.digests            # some steps of each recipe: seconds
    python -m tests.digests --long     # 500 steps of the large ones, whole runs of the small ones: minutes

Exit status: 0 all as stated; 1 weights differ.
"""

import dataclasses
import platform
import sys
from collections.abc import Sequence
from typing import NamedTuple

import configs
from checkpointing import kernel_environment
from checkpointing.protocol import manifest
from checkpointing.storage import fingerprint
from checkpointing.tf_import import tensorflow_import
from configs.settings import CnnSettings, Settings
from mnist.input import dataset
from mnist.training.stopwatch import Stopwatch


class Run(NamedTuple):
    """A run from step 0, and the sha256 of its weights, as in result.json."""

    recipe: str
    steps: int
    seed: int
    sha256: str


# Made with TensorFlow 2.21.0; docs/reproducibility.md lists the processors. Other versions may compute other bits.
SHORT = (
    Run("softmax", 1000, 0, "c7ffd868970331d3cb5eaf11b23e6bb9f7a42309c3b6f2efaa606db56f906623"),
    Run("cnn", 20, 0, "9040459bdfff37892c7f1e12584b191de4600e8bae230ad8ecf635e024e472b1"),
    Run("cnn_fast", 20, 0, "acc31eb7760047bb74040f389eb46cd16dbed169f05bed810c07f548edd73a75"),
    Run("cnn_small", 10, 0, "4662b3e1cca55beff2d64de9c1dd15a1b938c3b38527f0b3e36d48293f8178d4"),
    Run("cnn_best", 10, 0, "6c35fa2e28a3e4233811c5a2e4cd6edc22e7a5eeea22d377b1df9a218e994f1d"),
)
LONG = (
    Run("cnn", 500, 0, "512d51cf4745e215b5136178d5938f894ebddc99536a5611892fb81f3664b5e5"),
    Run("cnn_small", 500, 0, "8c7807195df9d607db18de5666f0989fdd16a6705d51069d4042e84edde45895"),
    Run("cnn_best", 500, 0, "4f546fa95b39fcd76b4e43a98edacdd2134def6c8461a58a5c45f4097793a8d4"),
    *(
        Run(recipe, configs.load(recipe).train_steps, seed, configs.expected_result(recipe).weights_sha256[seed])
        for recipe, seed in (("softmax_best", 0), ("cnn_fast", 0), ("cnn_fast", 1), ("cnn_fast", 2))
    ),
)


def weights_of(run: Run) -> str:
    """Train from step 0; return the sha256 of the weights."""
    import train_cnn  # noqa: PLC0415 - imports TensorFlow, as all of these
    import train_softmax  # noqa: PLC0415
    from mnist.model import training_graph  # noqa: PLC0415
    from mnist.training import loop  # noqa: PLC0415
    from trainer import train  # noqa: PLC0415

    settings: Settings = dataclasses.replace(configs.load(run.recipe), train_steps=run.steps, seed=run.seed)
    program = train_cnn if isinstance(settings, CnnSettings) else train_softmax
    data = dataset.load(None, settings.validation_size).train
    graph = train.build_graph(settings, lambda: program.make_model(settings), data)
    with training_graph.open_session(graph.graph, settings.threads) as session:
        training_graph.initialize(session, graph, data)
        for _ in loop.run_steps(session, graph, 0, train_steps=run.steps, cut_at=(), stopwatch=Stopwatch()):
            pass
        return fingerprint.weights_sha256(session.run({each.op.name: each for each in graph.trained}))


def main(arguments: Sequence[str]) -> int:
    """Print the machine and a line for each run; return the exit status."""
    kernels = kernel_environment.summary(kernel_environment.choose_kernels(kernel_environment.AVX2))
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions().items())
    sys.stdout.write(f"{kernels}; {versions}; {platform.platform()}\n")
    differ = False
    for run in LONG if "--long" in arguments else SHORT:
        with tensorflow_import():
            found = weights_of(run)
        same = found == run.sha256
        differ = differ or not same
        verdict = "as stated" if same else f"differs, expected {run.sha256}"
        sys.stdout.write(f"{run.recipe}, {run.steps} steps, seed {run.seed}: {found} {verdict}\n")
        sys.stdout.flush()
    return int(differ)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
