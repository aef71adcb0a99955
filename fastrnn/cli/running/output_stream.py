"""Outputs whose numbers are written in order: to stdout, or to a .npy file that grows."""

import io
from typing import Any, BinaryIO

import numpy as np
from numpy.lib import format as npy

from fastrnn.arrays import Array
from fastrnn.cli.running.pieces import Patch

# Bytes of an array in memory that go to stdout at once.
BYTES_AT_ONCE = 2**22


def npy_header(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bytes:
    """The header of a .npy file in C order. NumPy leaves room in it for a longer first axis."""
    entries = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    header = io.BytesIO()
    npy.write_array_header_1_0(header, entries)
    return header.getvalue()


class NpyWriter:
    """A .npy file that is written in order, and whose length is known only at the end. A context manager."""

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
        """Write the header again, now that the length is known."""
        self._file.seek(0)
        self._file.write(npy_header((self.count, *self._shape), self._dtype))

    def __enter__(self) -> "NpyWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


class OutputStream:
    """The numbers of an output on stdout, each piece as soon as it is there.

    Parameters
    ----------
    file : binary file
    is_raw : bool
        Send little-endian numbers and nothing else. Otherwise a .npy stream is sent.
    wants_states : bool
        Keep the states of rows for `states`.
    """

    def __init__(self, file: BinaryIO, is_raw: bool, wants_states: bool) -> None:
        self._file, self._is_raw, self._wants_states = file, is_raw, wants_states
        self._last: Patch | None = None
        self._states: dict[str, list[Array]] = {}
        self.shape: tuple[int, ...] = ()  # of what has been sent

    def write(self, patch: Patch) -> None:
        """Send the next values of y. Those that are all of y wait for `finish`: others may replace them."""
        if patch.name != "y":
            if self._wants_states:
                self._states.setdefault(patch.name, []).append(patch.values)
        elif patch.place is Ellipsis:
            self._last = patch
        else:
            self.send(patch.values, patch.shape)

    def send(self, values: Array, shape: tuple[int, ...]) -> None:
        """Send values (n, ...), the next ones along the first axis of an array of this shape.

        The first size of the shape is -1 while nobody knows it.
        """
        values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        if not self.shape:
            if not self._is_raw:
                self._file.write(npy_header(shape, values.dtype))
            self.shape = (0, *shape[1:])
        self._file.write(values.data)
        self._file.flush()
        self.shape = (self.shape[0] + len(values), *self.shape[1:])

    def finish(self) -> None:
        """Send the values that waited."""
        if self._last is not None:
            self.send(self._last.values, self._last.shape)

    def send_array(self, array: Array) -> None:
        """Send a whole array, a few rows at a time."""
        rows = max(1, BYTES_AT_ONCE // max(1, array[0].nbytes))
        for begin in range(0, len(array), rows):
            self.send(array[begin : begin + rows], array.shape)

    def states(self) -> dict[str, Array]:
        """The states of rows. {} where rows had none of their own."""
        return {name: np.concatenate(arrays, axis=1) for name, arrays in self._states.items()}
