"""Whole recordings through a model, block by block, from and to arrays on disk."""

import os

import numpy as np

from fastrnn.errors import message

# A block's input: this many numbers at most, unless a single step or row has more.
BLOCK_NUMBERS = 2**20


def run_file(model, x, path, lengths=None, report=lambda done, total: None):
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
    output = _Output(path)
    try:
        try:
            stream = None if lengths is not None else model.stream(_batch_size(model, x))
        except ValueError:  # it needs whole sequences
            stream = None
        if stream is None:
            state = _run_rows(model, x, lengths, output, report)
        else:
            state = _run_times(model, stream, x, output, report)
        return output.finish(), state
    finally:
        output.close()


def _axes(model, x):
    """How many axes come before the features: 1 or 2."""
    axes = x.ndim - (0 if model.layers[0].takes_tokens else 1)
    if axes not in (1, 2) or 0 in x.shape:
        kind = "(T,) or (T, B)" if model.layers[0].takes_tokens else "(T, I) or (T, B, I)"
        raise ValueError(message("run", f"an input of shape {kind}", f"{x.shape}"))
    return axes


def _batch_size(model, x):
    return None if _axes(model, x) == 1 else x.shape[0 if model.batch_first else 1]


def _run_times(model, stream, x, output, report):
    """Blocks of time; where the model takes the Last step, only that of the last block stays."""
    is_batch_first = model.batch_first and _axes(model, x) == 2
    steps = x.swapaxes(0, 1) if is_batch_first else x
    T = len(steps)
    block = max(1, BLOCK_NUMBERS // steps[0].size)
    takes_last = any(layer.is_last_step for layer in model.layers)
    for begin in range(0, T, block):
        y = stream.run(steps[begin : begin + block])
        if not takes_last:
            place = slice(begin, begin + block)
            shape = (T, *y.shape[1:])
            if is_batch_first:
                y, shape = y.swapaxes(0, 1), (shape[1], T, *shape[2:])
                place = (slice(None), place)
            output.write(shape, place, y)
        report(min(begin + block, T), T)
    if takes_last:
        output.write(y.shape[1:], Ellipsis, y[-1])
    return stream.state


def _run_rows(model, x, lengths, output, report):
    """Blocks of rows, each with its whole sequence; all at once where there are no rows."""
    if _axes(model, x) == 1:
        y, state = model(x, lengths=lengths)
        output.write(y.shape, Ellipsis, y)
        return state
    axis = 0 if model.batch_first else 1
    B = x.shape[axis]
    block = max(1, BLOCK_NUMBERS // (x.size // B))
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


def _join_rows(states):
    """The states of blocks of rows as one; rows are their axis 1."""
    if states[0] is None:
        return None
    if isinstance(states[0], tuple):
        return tuple(_join_rows(list(parts)) for parts in zip(*states, strict=True))
    return np.concatenate(states, axis=1)


class _Output:
    """A .npy file that is written in blocks, and appears when it is complete."""

    def __init__(self, path):
        self.path = path
        self.draft = f"{path}.part"
        self.array = None

    def write(self, shape, place, values):
        if self.array is None:
            self.array = np.lib.format.open_memmap(self.draft, mode="w+", dtype=values.dtype, shape=shape)
        self.array[place] = values

    def finish(self):
        shape = self.array.shape
        self.array.flush()
        os.replace(self.draft, self.path)
        return shape

    def close(self):
        self.array = None
        if os.path.exists(self.draft):
            os.unlink(self.draft)
