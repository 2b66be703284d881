"""Run recipes with several seeds, and check that they reach their stated results.

    python -m mnist.reproduce [--configs=softmax,cnn_fast,...] [--seeds=N] [--instruction_set=avx2|native]
        [--directory=DIR] [--killed] [--write_docs]

Each run is a run of train_softmax.py or train_cnn.py in DIR/<config>/seed-<seed>; DIR is runs/reproduce by default. An
ensemble is made once, of the runs of its members' recipe, for any --seeds. After a stop or a kill, run the same
command again: results of finished runs are read from their result.json, unfinished runs are resumed. Delete DIR to
start over, or after a recipe or a network has changed.

A recipe reaches its stated result if its mean accuracy over the seeds is at least its goal, and at most three standard
errors of the difference from its stated mean. With --instruction_set=avx2, the default, each seed's weights are also
compared with the stated ones, bit for bit (docs/reproducibility.md). --killed runs the first seed once more, kills it
with SIGKILL after its first checkpoint and runs the same command again, which must end with the same weights. The
results are printed and written to DIR/results.json; --write_docs also writes docs/results.json, docs/results.md and the
table in README.md.

Exit status: 0 all as stated; 1 a result is not as stated, or an error; 2 a usage error; 75 stopped by a signal: run the
same command again.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import configs
from checkpointing import cli
from checkpointing.errors import listed
from checkpointing.kernel_environment import AVX2, INSTRUCTION_SETS
from checkpointing.runs.preemption import STOPPED
from mnist.tools import reproduction, result_tables
from mnist.tools.reproduction import PROGRAMS, Recipe, StoppedError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    recipes = {name: Recipe(name, program) for program in PROGRAMS for name in configs.names(program)}
    parser = _parser(recipes)
    args = parser.parse_args(arguments)
    names = args.configs.split(",")
    unknown = [name for name in names if name not in recipes]
    if unknown:
        parser.error(f"--configs: expected some of {', '.join(recipes)}, got {listed(unknown)}")
    chosen = [recipes[name]._replace(instruction_set=args.instruction_set) for name in names]
    return cli.run_tool(lambda: _reproduce(chosen, args), debug=args.debug)


def _parser(names: Iterable[str]) -> argparse.ArgumentParser:
    parser = cli.parser("python -m mnist.reproduce", __doc__)
    add = parser.add_argument
    add("--configs", metavar="NAME,...", default=",".join(names), help="recipes (all)")
    add("--seeds", type=cli.positive, metavar="N", help="number of seeds, from 0 on (as many as the recipe states)")
    add("--instruction_set", choices=INSTRUCTION_SETS, default=AVX2, help="of the processor; native: all it has (avx2)")
    add("--directory", type=Path, default=Path("runs/reproduce"), metavar="DIR", help="of the runs (runs/reproduce)")
    add("--killed", action="store_true", help="kill one run of each recipe, and resume it")
    add("--write_docs", action="store_true", help="write docs/results.* and the table in README.md")
    return parser


def _reproduce(recipes: Sequence[Recipe], args: argparse.Namespace) -> int:
    try:
        rows = reproduction.reproduce(recipes, args.directory, seeds=args.seeds, killed=args.killed)
    except StoppedError:
        cli.print_line("stopped: run the same command again to continue")
        return STOPPED
    if args.write_docs:
        result_tables.write_docs(rows)
    cli.print_result(result_tables.plain(rows))
    return cli.OK if all(row["as_stated"] for row in rows) else cli.FAILED


if __name__ == "__main__":
    sys.exit(main())
