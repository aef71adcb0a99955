"""Whole recordings through a model, block by block, from and to arrays on disk."""

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fastrnn.errors import (
    Array,
    FormatError,
    State,
    check_lengths,
    check_regular,
    check_tokens,
    message,
    quote,
)
from fastrnn.files import replacing
from fastrnn.importers.archive import Archive
from fastrnn.importers.numpy_file import read_npz

if TYPE_CHECKING:
    import fastrnn

# A block's input: this many numbers at most, unless a single step or row has more.
BLOCK_NUMBERS = 2**20


def read_inputs(path: str) -> tuple[Array, Array | None]:
    """Read what a model is to run on: (x, lengths), lengths None where there are none.

    A .npy file is x, mapped from disk; an .npz holds x (or one array of any name) and perhaps
    lengths, and is read whole.
    """
    where = os.path.basename(path)
    check_regular(where, path)
    with open(path, "rb") as file:
        head = file.read(6)
    if head == b"\x93NUMPY":
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False), None
        # NumPy parses the header as Python text, which fails in many ways.
        except Exception as error:
            got = f"a damaged one ({type(error).__name__}: {str(error)[:200]})"
            raise FormatError(message(where, "a whole .npy file", got)) from error
    if not head.startswith(b"PK"):
        raise FormatError(message(where, "an input as .npy or .npz", "a file of another kind"))
    with Archive(path, where) as archive:
        arrays = read_npz(archive, where)
    lengths = arrays.pop("lengths", None)
    if "x" in arrays or len(arrays) == 1:
        return arrays.get("x", next(iter(arrays.values()))), lengths
    raise FormatError(message(where, "an array x", f"the arrays {quote(arrays)}" if arrays else "none"))


def run_file(
    model: "fastrnn.Sequential",
    x: Array,
    path: str,
    lengths: Array | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[tuple[int, ...], State | None]:
    """Run x through a model and write the output as a .npy file.

    A model that only runs forward takes blocks of time through a stream, so that neither x
    (which may be a memory map) nor the output is ever in memory whole. One that needs whole
    sequences, or is given lengths, takes blocks of rows.

    Parameters
    ----------
    model : Sequential
    x : ndarray
        As ``model(x)`` takes it.
    path : str
        The file appears when it is complete.
    lengths : ndarray (B,), optional
    report : callable
        Told how many of x's steps or rows are done, and of how many.

    Returns
    -------
    shape : tuple
        Of the output.
    state
        As ``model(x)`` returns it.
    """
    axes = _axes(model, x)
    if model.layers[0].takes_tokens:
        check_tokens("input", x, model.layers[0].num_tokens)
    if lengths is not None:
        rows = x.shape[:axes][::-1] if model.batch_first else x.shape[:axes]
        if axes == 1:
            raise ValueError(message("input", "a batch beside lengths", f"an array of shape {x.shape}"))
        lengths = check_lengths("input", lengths, *rows)
    stream = _stream(model, x, lengths)
    with replacing(path) as draft:
        output = _Output(draft)
        if stream is None:
            state = _run_rows(model, x, lengths, output, report)
        else:
            state = _run_times(model, stream, x, output, report)
        return output.finish(), state


def _stream(model: "fastrnn.Sequential", x: Array, lengths: Array | None) -> "fastrnn.Stream | None":
    """A stream for x, or None where the model needs whole sequences."""
    if lengths is not None:
        return None
    batch_size = _batch_size(model, x)
    try:
        return model.stream(batch_size)
    except ValueError:
        return None


def _axes(model: "fastrnn.Sequential", x: Array) -> int:
    """How many axes come before the features: 1 or 2."""
    takes_tokens = model.layers[0].takes_tokens
    axes = x.ndim - (0 if takes_tokens else 1)
    if axes not in (1, 2) or 0 in x.shape:
        features = "" if takes_tokens else ", I"
        batch = "B, T" if model.batch_first else "T, B"
        kind = f"(T{features or ','}) or ({batch}{features})"
        raise ValueError(message("input", f"an array of shape {kind}", f"{x.shape}"))
    if not takes_tokens and model.features_in not in (None, x.shape[-1]):
        raise ValueError(message("input", f"{model.features_in} features in its last axis", f"{x.shape}"))
    return axes


def _batch_size(model: "fastrnn.Sequential", x: Array) -> int | None:
    return None if _axes(model, x) == 1 else x.shape[0 if model.batch_first else 1]


def _run_times(
    model: "fastrnn.Sequential",
    stream: "fastrnn.Stream",
    x: Array,
    output: "_Output",
    report: Callable[[int, int], None],
) -> State | None:
    """Blocks of time; where the model takes the Last step, only that of the last block stays."""
    is_batch_first = model.batch_first and _axes(model, x) == 2
    steps = x.swapaxes(0, 1) if is_batch_first else x
    T = len(steps)
    block = max(1, BLOCK_NUMBERS // steps[0].size)
    takes_last = any(layer.is_last_step for layer in model.layers)
    for begin in range(0, T, block):
        y = stream.run(steps[begin : begin + block])
        if not takes_last:
            place: Any = slice(begin, begin + block)
            shape = (T, *y.shape[1:])
            if is_batch_first:
                y, shape = y.swapaxes(0, 1), (shape[1], T, *shape[2:])
                place = (slice(None), place)
            output.write(shape, place, y)
        report(min(begin + block, T), T)
    if takes_last:
        output.write(y.shape[1:], Ellipsis, y[-1])
    return stream.state


def _run_rows(
    model: "fastrnn.Sequential",
    x: Array,
    lengths: Array | None,
    output: "_Output",
    report: Callable[[int, int], None],
) -> State | None:
    """Blocks of rows, each with its whole sequence; all at once where there are no rows."""
    if _axes(model, x) == 1:
        y, state = model(x, lengths=lengths)
        output.write(y.shape, Ellipsis, y)
        return state
    axis = 0 if model.batch_first else 1
    B = x.shape[axis]
    block = max(1, BLOCK_NUMBERS // (x.size // B))
    if any(layer.dim != -1 for layer in model.layers if hasattr(layer, "dim")):
        block = B  # a softmax over another axis may be one over the rows
    states = []
    for begin in range(0, B, block):
        rows = slice(begin, begin + block)
        part = x[rows] if axis == 0 else x[:, rows]
        y, state = model(part, lengths=None if lengths is None else lengths[rows])
        states.append(state)
        # Behind Last there is no time axis, and the rows come first.
        row_axis = axis if y.ndim == part.ndim + model.layers[0].takes_tokens else 0
        place = rows if row_axis == 0 else (slice(None), rows)
        shape = list(y.shape)
        shape[row_axis] = B
        output.write(tuple(shape), place, y)
        report(min(begin + block, B), B)
    return _join_rows(states)


def _join_rows(states: list[Any]) -> State | None:
    """The states of blocks of rows as one; rows are their axis 1."""
    if states[0] is None:
        return None
    if isinstance(states[0], tuple):
        return tuple(cast("State", _join_rows(list(parts))) for parts in zip(*states, strict=True))
    return np.concatenate(states, axis=1)


class _Output:
    """A .npy file that is written in blocks."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.array: Any = None  # a memory map, when its shape is known

    def write(self, shape: tuple[int, ...], place: Any, values: Array) -> None:
        if self.array is None:
            self.array = np.lib.format.open_memmap(self.path, mode="w+", dtype=values.dtype, shape=shape)
            if hasattr(os, "posix_fallocate"):
                # Or a full disk would be a signal that kills the process, in the middle of an assignment.
                with open(self.path, "r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, os.path.getsize(self.path))
        self.array[place] = values

    def finish(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self.array.shape
        self.array.flush()
        self.array = None
        return shape
