import json

import pytest

from checkpointing import __main__
from tests.checkpoints import is_one_error
from tests.writers import WRITERS


@pytest.fixture(scope="module", params=WRITERS)
def written(request, tmp_path_factory):
    """A directory with a checkpoint, one for each writer; tests only read it."""
    directory = tmp_path_factory.mktemp(request.param) / request.param
    WRITERS[request.param](directory)
    return directory


@pytest.fixture
def run_command(capsys):
    """A function that runs a command; returns its exit status and output, with `--json` the record."""

    def run(*arguments):
        status = __main__.main([*map(str, arguments)])
        printed = capsys.readouterr()
        if printed.err:
            assert is_one_error(printed.err)
            assert not printed.out
            return status, printed.err
        return status, json.loads(printed.out) if "--json" in arguments else printed.out

    return run
