import pytest

from checkpointing.errors import listed


@pytest.mark.parametrize(
    ("count", "end"),
    [(0, "none"), (1, "0"), (10, "8, 9"), (11, "8, 9 and 1 more"), (3000, "8, 9 and 2,990 more")],
)
def test_a_message_lists_at_most_ten_names(count, end):
    """It says how many more there are."""
    assert listed(range(count)).endswith(end)
    assert listed(range(count)).count(",") <= 10


def test_sentences_have_another_separator():
    """Sentences may contain commas."""
    assert listed(iter("ab"), "; ") == "a; b"
