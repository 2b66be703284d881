"""Command line of train_softmax.py and train_cnn.py: flags in, exit status out.

    if __name__ == "__main__":
        app.run(make_model, program="cnn", synopsis=__doc__)

In order: parse the flags, load the data, open the train_dir, import TensorFlow, train. Errors of a stage are reported
before the next one starts, so wrong flags do not wait for TensorFlow.
"""

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from checkpointing import cli
from checkpointing.errors import UsageError, UserError
from checkpointing.kernel_environment import choose_kernels
from checkpointing.runs import preemption, supervisor
from checkpointing.tf_import import tensorflow_import
from configs import flags
from configs.flags import RunOptions
from configs.settings import CnnSettings
from mnist.training.stopwatch import Stopwatch
from trainer import hints, members, preparation

if TYPE_CHECKING:
    from mnist.model.networks import Model

MakeModel = Callable[[Any], "Model"]  # settings of the program -> model


def run(make_model: MakeModel, *, program: str, synopsis: str | None) -> NoReturn:
    """Run a training program and end the process with its exit status.

    Args:
      make_model: makes the model for the program's settings in the current graph.
      program: "softmax" or "cnn": selects the recipes and flags.
      synopsis: printed by --help, before the flags.
    """
    cli.run_program(partial(_status, make_model, program, synopsis))


def _status(make_model: MakeModel, program: str, synopsis: str | None) -> int:
    try:
        options = flags.parse(program, sys.argv)
    except UsageError as error:
        error.hint = error.hint or "--help lists the flags"
        return cli.print_error(error)
    if options is None:
        cli.print_line(f"{synopsis}\n{flags.define_flags(program).get_help()}")
        return cli.OK
    level = logging.WARNING if options.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    if not options.debug:
        cli.silence_tensorflow()
    return cli.report_errors(partial(_main_with_hints, options, make_model, program), debug=options.debug)


def _main_with_hints(options: RunOptions, make_model: MakeModel, program: str) -> int:
    try:
        return main(options, make_model, program)
    except UserError as error:
        hints.add_hint(error)
        raise


def main(options: RunOptions, make_model: MakeModel, program: str) -> int:
    """Do what the options say: a dry run, an ensemble, a supervised run, or a run in this process.

    Returns:
      The exit status: 0 done; 75 stopped by a signal, the state saved; of a child process that failed, its status.
    """
    stopwatch = Stopwatch()
    settings = options.settings
    choose_kernels(settings.instruction_set)
    if not options.dry_run:
        if isinstance(settings, CnnSettings) and settings.members > 1:
            return members.train_members(options, settings, make_model, stopwatch)
        if options.max_restarts:
            return supervisor.supervise_run(options.train_dir, options.max_restarts)
    make_this_model = partial(make_model, settings)
    with preemption.listen_for_stop() as stop:
        with stop.interruptible():  # nothing to save yet
            data = preparation.load_data(options, stopwatch)
            if options.dry_run:
                with tensorflow_import(debug=options.debug):
                    from trainer import dry_run  # noqa: PLC0415 - imports TensorFlow
                return dry_run.dry_run(options, make_this_model, data)
            start = preparation.open_train_dir(
                options,
                preparation.run_identity(options, program, data),
                restore_from=options.restore_from,
                warm_start_from=options.warm_start_from,
                may_grow=("train_steps",),
            )
            with stopwatch("import"), tensorflow_import(debug=options.debug):
                from trainer import train  # noqa: PLC0415 - imports TensorFlow
        return train.train_and_evaluate(
            options, make_this_model, data=data, start=start, stopwatch=stopwatch, stop=stop
        )
