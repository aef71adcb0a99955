"""Several inputs: the names of their outputs, and one progress display for all."""

import os
from collections.abc import Callable, Sequence

from fastrnn.cli.running.kinds import NPZ, STDIO, check_input
from fastrnn.errors import message, quote


def check_names(inputs: Sequence[str]) -> list[str]:
    """The names of the outputs: those of the inputs without their folders.

    Raises
    ------
    ValueError
        Two inputs have the same name, one is stdin, or a name has no known ending.
    OSError, FormatError
        An input cannot be read, or is not what its name says.
    """
    if STDIO in inputs:
        raise ValueError(message("input", "files where there are several inputs", f'"{STDIO}" (stdin)'))
    names = [os.path.basename(path) for path in inputs]
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        hint = "Each output takes the name of its input."
        raise ValueError(message("input", "inputs of different names", f"{quote(twice)} twice", hint))
    for path in inputs:
        check_input(path)
    return names


def state_name(name: str) -> str:
    """The name of the file with the final states, for an input of this name."""
    return os.path.splitext(name)[0] + NPZ


def make_folder(option: str, path: str) -> list[str]:
    """Make a folder, and those above it, if missing. Returns the folders that were made, inner ones first.

    Raises
    ------
    NotADirectoryError
        A file has this name.
    """
    if os.path.isdir(path):
        return []
    if path == STDIO or os.path.lexists(path):
        got = '"-" (stdout)' if path == STDIO else f"{path}, which is none"
        raise NotADirectoryError(message(option, "a folder where there are several inputs", got))
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    os.makedirs(missing[0])
    return missing


class SharedProgress:
    """One progress display for several inputs, each of which counts by its size.

    Parameters
    ----------
    sizes : sequence of int
        Bytes of each input.
    report : callable (done, total)
    """

    def __init__(self, sizes: Sequence[int], report: Callable[[int, int], None]) -> None:
        self._sizes, self._report = sizes, report

    def of(self, index: int) -> Callable[[int, int], None]:
        """The function that reports for one input, in steps or rows of that input."""
        before, size, total = sum(self._sizes[:index]), self._sizes[index], sum(self._sizes)
        return lambda done, of: self._report(before + size * done // of, total)
