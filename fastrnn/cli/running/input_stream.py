"""Numbers from stdin, and a model that runs over them as they come.

The stream is a .npy file, or raw numbers without a header.
"""

import io
import os
import tempfile
from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy

from fastrnn.arrays import Array, flat_state
from fastrnn.checks import check_tokens
from fastrnn.cli.running.kinds import NPY_MAGIC
from fastrnn.cli.running.pieces import (
    Patch,
    Piece,
    looks_across_rows,
    open_stream,
    rows_in_piece,
    set_state,
    steps_in_piece,
    takes_last,
)
from fastrnn.cli.running.recording import (
    Layout,
    check_layout,
    input_dtype,
    with_features,
)
from fastrnn.errors import FormatError, message
from fastrnn.importers.numpy_file import OBJECTS

if TYPE_CHECKING:
    import fastrnn

WHERE = "stdin"
MOST_HEADER = 2**16
_HEADERS = {
    (1, 0): ("<u2", npy.read_array_header_1_0),
    (2, 0): ("<u4", npy.read_array_header_2_0),
}


class Header(NamedTuple):
    """What is known of a stream before its numbers come.

    `shape` is that of x as the model takes it. T is -1 in a raw stream.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    is_raw: bool


class InputStream:
    """A stream of numbers from stdin.

    Parameters
    ----------
    file : binary file
        Its ``read1`` is called if it has one, which returns what is there, else ``read``.
    model : Sequential

    Attributes
    ----------
    header : Header
    layout : Layout
        That of x. T is 1 while nobody knows it.
    count : int
        How many items (steps or rows) have come so far.

    Raises
    ------
    FormatError
        The stream is empty, or begins as a .npy stream and its header is damaged.
    ValueError
        The model does not take numbers of that shape.
    """

    def __init__(self, file: BinaryIO, model: "fastrnn.Sequential") -> None:
        self._read = getattr(file, "read1", file.read)
        self._rest = bytearray()
        self.count = 0
        self.model = model
        self.header = self._read_npy_header() if self._begins_as_npy() else self._raw_header()
        self.layout = check_layout(WHERE, model, tuple(abs(size) for size in self.header.shape))

    def arrays(self, item: tuple[int, ...], most: int) -> Iterator[Array]:
        """The numbers as arrays (n, *item), n from 1 to `most`, each as soon as one item is complete.

        Raises
        ------
        FormatError
            The stream ends too soon or too late. All complete items have been returned by then.
        """
        size = prod(item) * self.header.dtype.itemsize
        wanted = None if self.header.is_raw else prod(self.header.shape) // prod(item)
        self.count = 0
        while wanted is None or self.count < wanted:
            if len(self._rest) < size and not self._receive(size * most):
                break
            n = min(len(self._rest) // size, most if wanted is None else min(most, wanted - self.count))
            if n:
                array = np.frombuffer(self._pop(n * size), self.header.dtype)
                self.count += n
                yield array.reshape(n, *item).astype(self.header.dtype.newbyteorder("="), copy=False)
        self._check_end(wanted, size)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what has come, as the model takes it."""
        return (self.count, *self.header.shape[1:]) if self.header.is_raw else self.header.shape

    def spool(self, folder: str | None = None) -> Array:
        """All the numbers, as an array mapped from a nameless file in a folder."""
        file: Any
        with tempfile.TemporaryFile(dir=folder) as file:
            item = self.header.shape[1:] if self.header.is_raw else ()
            for array in self.arrays(item, max(1, 2**20 // prod(item))):
                file.write(array.tobytes())
            file.flush()
            dtype = self.header.dtype.newbyteorder("=")
            shape = self.header.shape
            if self.header.is_raw:
                shape = (os.path.getsize(file.fileno()) // (prod(item) * dtype.itemsize), *item)
            order: Any = "F" if self.header.is_fortran else "C"
            whole: Array = np.memmap(file, dtype, "r", shape=shape, order=order)
        return whole

    def _receive(self, most: int) -> bool:
        """Wait for more bytes and take those that are there. False at the end of the stream."""
        data: bytes = self._read(max(1, most - len(self._rest)))
        self._rest += data
        return bool(data)

    def _pop(self, size: int) -> bytes:
        taken = bytes(memoryview(self._rest)[:size])
        del self._rest[:size]
        return taken

    def _begins_as_npy(self) -> bool:
        while len(self._rest) < len(NPY_MAGIC) and NPY_MAGIC.startswith(bytes(self._rest)):
            if not self._receive(2**16):
                break
        if not self._rest:
            raise FormatError(message(WHERE, "a .npy stream, or raw numbers", "nothing"))
        return self._rest.startswith(NPY_MAGIC)

    def _raw_header(self) -> Header:
        model, dtype = self.model, input_dtype(self.model)
        if model.signature.takes_tokens:
            return Header((-1,), np.dtype("<i8"), False, True)
        if model.features_in is None or dtype is None:
            hint = "Send a .npy stream, whose header says it."
            expected = "a model that says what numbers it takes"
            raise ValueError(message(WHERE, expected, "one of any", hint))
        return Header((-1, model.features_in), dtype.newbyteorder("<"), False, True)

    def _read_npy_header(self) -> Header:
        try:
            self._need(12)
            version = (self._rest[6], self._rest[7])
            if version not in _HEADERS:
                raise ValueError(f"version {version[0]}")
            kind, read = _HEADERS[version]
            before = 8 + np.dtype(kind).itemsize
            size = before + int(np.frombuffer(self._rest, kind, 1, 8)[0])
            if size > MOST_HEADER:
                raise ValueError(f"a header of {size} bytes")
            self._need(size)
            shape, is_fortran, dtype = read(io.BytesIO(self._rest[8:size]))
            if min(shape, default=1) < 0:
                raise ValueError(f"a shape {shape}")
        # NumPy parses the header as Python text, which fails in many ways.
        except Exception as error:
            got = f"a damaged one ({type(error).__name__}: {str(error)[:200]})"
            raise FormatError(message(WHERE, "a whole .npy stream", got)) from error
        if dtype.kind not in "fiub":
            got = OBJECTS if dtype.hasobject else f"an array of {dtype}"
            raise FormatError(message(WHERE, "an array of real numbers", got))
        self._pop(size)
        return Header(with_features(self.model, shape), dtype, is_fortran and len(shape) > 1, False)

    def _need(self, size: int) -> None:
        while len(self._rest) < size:
            if not self._receive(size):
                raise EOFError(f"{len(self._rest)} bytes of its header")

    def _check_end(self, wanted: int | None, size: int) -> None:
        if self.count == wanted:
            if self._rest or self._receive(1):
                raise FormatError(message(WHERE, "the end after the array", "more bytes"))
            return
        got = f"{self.count}"
        if self._rest:
            got += f" and {len(self._rest)} bytes of the next"
        if wanted is not None:
            raise FormatError(message(WHERE, f"{wanted} items of {size} bytes, as its header says", got))
        if self._rest:
            raise FormatError(message(WHERE, f"whole steps of {size} bytes each", got))


def run_live(stream_in: InputStream) -> Iterator[Piece] | None:
    """Run the stream's model as the numbers come. None where their order does not allow it.

    That is so where the model needs whole sequences and these do not come one after the other. Then
    `InputStream.spool` keeps all numbers until the end.
    """
    header, model, layout = stream_in.header, stream_in.model, stream_in.layout
    if header.is_fortran:
        return None
    if layout.time_axis == 0:
        stream = open_stream(model, layout.B)
        return None if stream is None else _steps(stream_in, stream, layout)
    return None if looks_across_rows(model) else _rows(stream_in, layout, rows_in_piece(model, layout))


def _steps(stream_in: InputStream, stream: "fastrnn.Stream", layout: Layout) -> Iterator[Piece]:
    model, T = stream_in.model, stream_in.header.shape[0]
    is_last = takes_last(model)
    set_state(stream, model, ())
    done = 0
    for x in stream_in.arrays(layout.shape[1:], steps_in_piece(model, layout)):
        _check_tokens(model, x, done, "step")
        y = stream.run(x)
        shape = y.shape[1:] if is_last else (T, *y.shape[1:])
        place: Any = Ellipsis if is_last else slice(done, done + len(y))
        done += len(y)
        patch = Patch("y", shape, place, y[-1] if is_last else y)
        yield Piece(done, (patch,), tuple(flat_state(stream.state)))


def _rows(stream_in: InputStream, layout: Layout, most: int) -> Iterator[Piece]:
    model, B = stream_in.model, layout.shape[0]
    done = 0
    for x in stream_in.arrays(layout.shape[1:], most):
        _check_tokens(model, x, done, "row")
        y, after = model(x)
        rows = slice(done, done + len(x))
        done += len(x)
        patches = [Patch("y", (B, *y.shape[1:]), rows, y)]
        for index, array in enumerate(flat_state(after)):
            shape = (array.shape[0], B, *array.shape[2:])
            patches.append(Patch(f"state{index}", shape, (slice(None), rows), array))
        yield Piece(done, tuple(patches), ())


def _check_tokens(model: "fastrnn.Sequential", x: Array, done: int, unit: str) -> None:
    """Refuse tokens out of range, and say where in the whole stream they came."""
    if model.signature.tokens is not None:
        check_tokens(f"{WHERE}, from {unit} {done} on", x, model.signature.tokens)
