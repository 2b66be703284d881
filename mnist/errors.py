"""What can go wrong with the task, told so that a person can act on it."""


class DataError(Exception):
    """The data is not what it should be. The message names the file, what was found, and what was wanted."""


class PictureError(Exception):
    """A picture cannot be read. The message names the file, and says what was found in it."""


class NonFiniteLossError(Exception):
    """Training cannot go on, for the loss is no finite number. The message names the step."""


class ResultError(Exception):
    """A run's result.json cannot be read. The message names the file, and says what to do."""


class QuestionError(Exception):
    """A graph cannot be asked what it sees. The message says what was found in it, and what was wanted."""


class MachineError(Exception):
    """This machine cannot compute what was asked for. The message says what it lacks."""
