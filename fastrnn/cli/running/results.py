"""Outputs as files of each kind, and as numbers on stdout."""

import io
import os
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from fastrnn.arrays import Array
from fastrnn.cli.running.blocks import Part
from fastrnn.cli.running.draft import Draft
from fastrnn.cli.running.journal import sync_file, sync_folder
from fastrnn.cli.running.kinds import NPY, NPZ, PARQUET, kind_of
from fastrnn.cli.running.table import import_pyarrow, write_table
from fastrnn.errors import message
from fastrnn.saving.whole_files import check_target, put_in_place

# Bytes that go to stdout at a time, of an array that is there whole.
CHUNK_BYTES = 2**22


def check_result(path: str, out_axes: int) -> str:
    """The kind of the output, if an output of so many axes can be one, before any work is done.

    Raises
    ------
    ValueError
        The name has no known ending, or a table cannot hold the axes.
    RuntimeError
        It is a .parquet, and pyarrow is not installed.
    """
    kind = kind_of(path)
    where = os.path.basename(path)
    if kind == PARQUET:
        if out_axes > 2:
            hint = f"{NPY} and {NPZ} hold any."
            raise ValueError(message(where, "an output of 2 axes in a table", f"one of {out_axes}", hint))
        import_pyarrow(where)
    return kind


def make_result(kind: str, draft: Draft, states: Mapping[str, Array]) -> str:
    """Make the file of an output of what is in a draft, beside the arrays there; give its path."""
    if kind == NPY:
        draft.arrays.pop("y").flush()
        return draft.path("y.npy")
    path = draft.path(f"result{kind}")
    if kind == NPZ:
        write_states(path, {"y": draft.arrays["y"], **states})
        return path
    write_table(path, draft.arrays["y"])
    return path


def write_states(path: str, arrays: Mapping[str, Array]) -> None:
    """Write arrays as an .npz file, one after the other, so that those on disk stay there."""
    with open(path, "wb") as file:
        named: dict[str, Any] = dict(arrays)
        np.savez(file, **named)


def place(made: str, path: str) -> None:
    """Let a file that is complete appear where it is wanted, on disk before it has its name."""
    check_target(path)
    sync_file(made)
    put_in_place(made, path)
    sync_folder(os.path.dirname(os.path.realpath(path)))


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The header of a .npy file in C order. NumPy leaves room in it for a first axis that grows."""
    entries = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    header = io.BytesIO()
    npy.write_array_header_1_0(header, entries)
    return header.getvalue()


class Growing:
    """A .npy file whose first axis grows with what is written; use it as a context manager."""

    def __init__(self, path: str) -> None:
        self._file = open(path, "wb")
        self.count = 0

    def write(self, values: Array) -> None:
        """Append values (n, ...)."""
        if not self.count:
            self._file.write(npy_header((0, *values.shape[1:]), values.dtype))
        self._file.write(np.ascontiguousarray(values).data)
        self.count += len(values)
        self._shape, self._dtype = values.shape[1:], values.dtype

    def finish(self) -> None:
        """Write the header, which knows the size now."""
        self._file.seek(0)
        self._file.write(npy_header((self.count, *self._shape), self._dtype))

    def __enter__(self) -> "Growing":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class Outgoing:
    """stdout: the numbers of an output, each block as soon as it is there.

    Parameters
    ----------
    file : binary file
    is_raw : bool
        Little-endian numbers and nothing else; else a .npy stream.
    wants_states : bool
        Keep the states of rows, for `states`.
    """

    def __init__(self, file: BinaryIO, is_raw: bool, wants_states: bool) -> None:
        self._file, self._is_raw, self._wants_states = file, is_raw, wants_states
        self._last: Part | None = None
        self._states: dict[str, list[Array]] = {}
        self.shape: tuple[int, ...] = ()  # of what has been sent

    def write(self, part: Part) -> None:
        """Send a part of y that comes next; one that is all of y waits for `finish`."""
        if part.name != "y":
            if self._wants_states:
                self._states.setdefault(part.name, []).append(part.values)
        elif part.place is Ellipsis:
            self._last = part
        else:
            self.send(part.values, part.shape)

    def send(self, values: Array, shape: tuple[int, ...]) -> None:
        """Send values (n, ...), the next along the first axis of an array of a shape (its first size -1:
        nobody knows it yet)."""
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        if not self.shape:
            if not self._is_raw:
                self._file.write(npy_header(shape, values.dtype))
            self.shape = (0, *shape[1:])
        self._file.write(values.data)
        self._file.flush()
        self.shape = (self.shape[0] + len(values), *self.shape[1:])

    def finish(self) -> None:
        """Send what waited."""
        if self._last is not None:
            self.send(self._last.values, self._last.shape)

    def send_array(self, array: Array) -> None:
        """Send an array that is there whole, a piece at a time."""
        rows = max(1, CHUNK_BYTES // max(1, array[0].nbytes))
        for begin in range(0, len(array), rows):
            self.send(array[begin : begin + rows], array.shape)

    def states(self) -> dict[str, Array]:
        """The states of rows; {} where there were none."""
        return {name: np.concatenate(parts, axis=1) for name, parts in self._states.items()}
