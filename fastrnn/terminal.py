"""What the command line shows: tables and progress, drawn by rich if it is installed."""

import contextlib
import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from itertools import zip_longest
from typing import Any, TextIO, cast

from fastrnn.errors import printable as shown

__all__ = [
    "ended_by_signal",
    "print_lines",
    "print_table",
    "progress",
    "remark",
    "send_nowhere",
    "shown",
    "streams",
    "table_lines",
]


# Tables that rich does not draw: characters in a line, the gap between columns, the narrowest column.
WIDTH = 60
GAP = "  "
NARROWEST = 8


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None = WIDTH) -> None:
    """Print rows of texts under the names of their columns.

    On a terminal rich draws the table if it is installed. Otherwise lines are at most `width` characters
    long, or of any length if it is None. Long texts are wrapped. If there are too many columns, they are
    printed below each other.
    """
    rows = [list(map(shown, row)) for row in rows]
    if find_spec("rich") is not None and sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns)
        for row in rows:
            table.add_row(*map(Text, row))  # no markup
        Console().print(table)
        return
    for line in table_lines(columns, rows, width):
        print(line)


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """Yield the lines of a table, as `print_table` prints them without rich."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    room = None if width is None else width - len(GAP) * (len(widths) - 1)
    if room is not None and sum(widths) > room:
        widest = _widest(widths, room)
        if widest < NARROWEST:
            yield from _stacked(columns, rows, cast(int, width))
            return
        widths = [min(own, widest) for own in widths]
    for row in (columns, *rows):
        cells = [_wrapped(text, own) for text, own in zip(row, widths, strict=True)]
        for lines in zip_longest(*cells, fillvalue=""):
            yield GAP.join(map(str.ljust, lines, widths)).rstrip()


def _widest(widths: Sequence[int], room: int) -> int:
    """The largest width of a column with which all columns fit."""
    widest = max(widths)
    while widest > 0 and sum(min(own, widest) for own in widths) > room:
        widest -= 1
    return widest


def _stacked(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> Iterator[str]:
    """Each row as its first text, with a line for each other column below it."""
    for first, *rest in rows:
        yield from _wrapped(first, width)
        for name, text in zip(columns[1:], rest, strict=True):
            yield from (GAP + line for line in _wrapped(f"{name}: {text}", width - len(GAP)))


def _wrapped(text: str, width: int) -> list[str]:
    """All of a text in lines of a width, broken after a space or one of "._/" if possible, else anywhere."""
    lines = []
    while len(text) > width:
        end = 1 + max(text.rfind(mark, 0, width) for mark in " ._/")
        end = end if end > width // 2 else width
        lines.append(text[:end])
        text = text[end:]
    return [*lines, text]


class _Unheard:
    """A text stream whose reader may be gone or full. What is written then is lost, but no work stops."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._dropping():
            self._stream.flush()

    @contextlib.contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            send_nowhere(self._stream)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def send_nowhere(stream: TextIO) -> None:
    """Discard what a stream still holds and all that is written to it later, at exit too."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Set up stdout and stderr for a command.

    stdout can print any file name, a broken stderr stops no work, and either may have been closed from the
    start.
    """
    before = sys.stdout, sys.stderr
    errors = getattr(sys.stdout, "errors", None)
    with open(os.devnull, "w") as nowhere:
        sys.stdout = sys.stdout or nowhere
        sys.stderr = cast(TextIO, _Unheard(sys.stderr or nowhere))
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            if isinstance(sys.stdout, io.TextIOWrapper):
                try:
                    sys.stdout.reconfigure(errors=errors)
                except OSError:
                    send_nowhere(sys.stdout)


@contextlib.contextmanager
def ended_by_signal() -> Iterator[None]:
    """Turn SIGTERM into an exception while a command runs, so that unfinished files are removed."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():  # others cannot handle signals
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def remark(text: str) -> None:
    """Print a text to stderr, next to the result on stdout."""
    print_lines(text, sys.stderr)


def print_lines(text: str, file: TextIO | None = None) -> None:
    """Print a text that may quote files, to stdout or another stream.

    Its lines stay lines. Control characters are replaced, so that no file can control a terminal.
    """
    for line in text.split("\n"):
        print(shown(line), file=file or sys.stdout)
    (file or sys.stdout).flush()


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Yield a function (done, total) that shows progress. It does nothing if stderr is no terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
    elif find_spec("rich") is not None:
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True)) as bar:
            task = bar.add_task(title)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        try:
            yield lambda done, total: print(
                f"\r{title} {100 * done // total} %", end="", file=sys.stderr, flush=True
            )
        finally:
            print(file=sys.stderr)
