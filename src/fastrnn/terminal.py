"""What the command line shows: tables and progress, by rich where it is installed."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows of texts under the names of their columns; what would steer a terminal as "?"."""
    rows = [["".join(c if c.isprintable() else "?" for c in text) for text in row] for row in rows]
    if find_spec("rich") is not None and sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(*columns)
        for row in rows:
            table.add_row(*map(Text, row))  # no markup
        Console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    for row in (columns, *rows):
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


def remark(text: str) -> None:
    """Say something beside the result, on stderr. Where that is full, the work goes on unheard."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w")


@contextlib.contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function (done, total) that shows how far work is; quiet where nobody watches."""
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
