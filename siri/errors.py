"""The user's mistakes as errors of their own, apart from all that are ours."""

from siri.redaction import redact
from siri.terminal import one_line

LONGEST = 1200
"""Most characters of a message."""


class InputError(ValueError):
    """Bad input: one line that names the field, the value and what is allowed.

    The command line prints it without a traceback and exits with 2. Wherever it is shown or stored, it holds no
    password and no control sequence: values come from files, and addresses from the environment. A value of any length
    may stand in it: what is too long for a line to read is left out in the middle.
    """

    def __init__(self, message: str) -> None:
        line = one_line(redact(message))
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} … {line[-LONGEST // 2 :]}")


class StoppedError(Exception):
    """The user asked this process to stop, and it did, with a checkpoint; names what was under way."""


class AlarmError(StoppedError):
    """A guard stopped the run, with a checkpoint; names the run, the guard and what it saw."""


class LostEngineError(RuntimeError):
    """The process that an engine trains in was killed; what it had stored stands, and the run can go on from there."""
