"""What reaches a terminal is text alone: models, files and servers must not move the cursor or set the title."""

import json
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO, cast

from siri.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_SEQUENCES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor, erasing
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x80-\x9f\n]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS: titles, links
    r"|\x1b[ -/]*[0-~]"
)
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""C0 but tab and newline, DEL, C1, and what turns the direction of writing round."""


def printable(text: str) -> str:
    """A text without control sequences and characters; tabs and line ends stay, whichever they were.

    Halves of surrogate pairs, which no terminal can be sent, become U+FFFD.
    """
    lines = re.sub(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]", "\n", _SEQUENCES.sub("", text))
    return re.sub(r"[\ud800-\udfff]", "\ufffd", _CONTROLS.sub("", lines))


def one_line(text: str) -> str:
    """A text that is printable, on one line."""
    return " ".join(printable(text).split("\n"))


def say(text: object, file: TextIO | None = None) -> None:
    """Print a line, or several, of what is nobody's secret and no control sequence, at once."""
    print(printable(redact(str(text))), file=file or sys.stdout, flush=True)


def say_json(value: object, default: Callable[[Any], object] | None = None) -> None:
    """Print a value as JSON, in ASCII alone: whatever moves a cursor is an escape of JSON's; what is no number is null.

    `default`: what is made of values that JSON does not know.
    """
    plain = json.loads(json.dumps(value, default=default), parse_constant=lambda _: None)
    print(json.dumps(plain, indent=1, allow_nan=False).replace("\x7f", "\\u007f"), flush=True)  # noqa: T201


class Lasting:
    """A text stream whose reader may go, and whose encoding may be narrow: no writing to it ever fails.

    What a terminal cannot show becomes a question mark. After the first write that failed, all goes to /dev/null.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lost: OSError | None = None
        """Why nobody reads it any more."""
        with suppress(AttributeError):  # a test's
            stream.reconfigure(errors="replace")  # type: ignore[attr-defined]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, or drop it."""
        with self._kept():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush what is buffered, or drop it."""
        with self._kept():
            self.stream.flush()

    @contextmanager
    def _kept(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.lost = self.lost or error
            void = os.open(os.devnull, os.O_WRONLY)
            os.dup2(void, self.stream.fileno())  # what is buffered can be flushed now, at the exit too
            os.close(void)


@contextmanager
def lasting_output() -> Iterator[None]:
    """In this block printing never fails, whatever stdout and stderr are; at its end it is said what was not read."""
    _open_missing()
    before = sys.stdout, sys.stderr
    out, err = Lasting(sys.stdout), Lasting(sys.stderr)
    sys.stdout, sys.stderr = cast(TextIO, out), cast(TextIO, err)
    try:
        yield
    finally:
        out.flush()
        if out.lost is not None:
            say(f"siri: stdout was lost ({out.lost.strerror}); what was printed after that is gone", sys.stderr)
        err.flush()
        sys.stdout, sys.stderr = before


def _open_missing() -> None:
    """Give closed standard streams /dev/null: a file that is opened later would get their numbers, and their lines."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            void = os.open(os.devnull, os.O_RDWR)
            if void != number:
                os.dup2(void, number)
                os.close(void)
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115 - as long as the process
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


class Safe(logging.Filter):
    """Takes secrets and control sequences out of what is logged, whoever reads the log."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, its message safe."""
        record.msg, record.args = printable(redact(record.getMessage())), ()
        return True


def print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """`sys.excepthook` as Python's own, without secrets: an address may stand in an error of any library."""
    say("".join(traceback.format_exception(kind, error, trace)).rstrip(), sys.stderr)


class Printable:
    """A rich renderable whose text has no control sequences but those that rich itself writes for its styles."""

    def __init__(self, renderable: Any) -> None:
        self.renderable = renderable

    def __rich_console__(self, console: "Console", options: "ConsoleOptions") -> "RenderResult":
        """The segments of what is inside, less what a terminal would obey."""
        from rich.segment import Segment

        for segment in console.render(self.renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)
