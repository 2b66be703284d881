from mnist import program


def test_too_little_memory_is_one_sentence(capsys):
    """A program that runs out of memory ends with status 1 and without a traceback."""

    def act():
        raise MemoryError

    assert program.status(act) == 1
    assert capsys.readouterr().err == "error: not enough memory; end other programs, or use a machine with more.\n"
