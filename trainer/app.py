"""From the command line to an exit status.

def main(options: RunOptions) -> int: ...

if __name__ == "__main__":
app.run(main, program="cnn", synopsis=__doc__)
"""

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import NoReturn

from checkpointing import cli
from checkpointing.errors import UsageError
from configs import flags
from configs.flags import RunOptions


def run(main: Callable[[RunOptions], int], *, program: str, synopsis: str) -> NoReturn:
    """Parse the command line, call `main`, and end the process with the exit status.

    Args:
      main: gets the options, returns the exit status.
      program: "softmax" or "cnn": chooses the recipes and flags.
      synopsis: printed by --help, before the flags.
    """
    cli.run_program(partial(_status, main, program, synopsis))


def _status(main: Callable[[RunOptions], int], program: str, synopsis: str) -> int:
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
    return cli.report_errors(partial(main, options), debug=options.debug)
