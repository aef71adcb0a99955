"""What a model is to run on: an array, perhaps the lengths of its rows, perhaps an initial state."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array, State
from fastrnn.checks import check_lengths, check_tokens
from fastrnn.errors import join, message
from fastrnn.program.sequential import nest_state

if TYPE_CHECKING:
    import fastrnn


@dataclasses.dataclass(frozen=True)
class Recording:
    """An input as it was read.

    Attributes
    ----------
    x : ndarray
        (T, B, I), (B, T, I) if the model is ``batch_first``, or (T, I). Tokens have no I.
    lengths : ndarray (B,) or None
    state : tuple of ndarray
        The arrays of the initial state in order: h and c of the first recurrent layer, and so on. () means
        zeros.
    """

    x: Array
    lengths: Array | None = None
    state: tuple[Array, ...] = ()


@dataclasses.dataclass(frozen=True)
class Layout:
    """What each axis of x is.

    Attributes
    ----------
    shape : tuple of int
        That of x.
    T : int
    B : int or None
        None where there is no axis of rows.
    time_axis : int
    row_axis : int or None
    """

    shape: tuple[int, ...]
    T: int
    B: int | None
    time_axis: int
    row_axis: int | None

    @property
    def count(self) -> int:
        """How many rows x has, or steps if it has no axis of rows."""
        return self.T if self.B is None else self.B

    @property
    def unit(self) -> str:
        return "time steps" if self.B is None else "rows"


def check_layout(where: str, model: "fastrnn.Sequential", shape: tuple[int, ...]) -> Layout:
    """The layout of an x of this shape, if the model takes it."""
    takes_tokens = model.signature.takes_tokens
    axes = len(shape) - (0 if takes_tokens else 1)
    if axes not in (1, 2) or 0 in shape:
        features = "" if takes_tokens else ", I"
        batch = "B, T" if model.batch_first else "T, B"
        kind = f"(T{features or ','}) or ({batch}{features})"
        raise ValueError(message(where, f"an array of shape {kind}", f"{shape}"))
    if not takes_tokens and model.features_in not in (None, shape[-1]):
        raise ValueError(message(where, f"{model.features_in} features in its last axis", f"{shape}"))
    if axes == 1:
        return Layout(shape, shape[0], None, 0, None)
    time_axis = 1 if model.batch_first else 0
    return Layout(shape, shape[time_axis], shape[1 - time_axis], time_axis, 1 - time_axis)


def with_features(model: "fastrnn.Sequential", shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape as the model takes it: (T, 1) for (T,) if the model takes one feature."""
    is_flat = len(shape) == 1 and not model.signature.takes_tokens and model.features_in == 1
    return (*shape, 1) if is_flat else shape


def check_recording(
    where: str, model: "fastrnn.Sequential", recording: Recording, rows: slice | None = None
) -> tuple[Recording, Layout]:
    """The recording as the model takes it, or the part of it that `rows` names, and its layout.

    Parameters
    ----------
    where : str
        What messages call the recording.
    model : Sequential
    recording : Recording
    rows : slice, optional
        Which rows to keep, or which time steps if there is no axis of rows. Bounds are those of a Python
        slice: negative ones count from the end, and what is beyond the end is cut off.

    Raises
    ------
    ValueError
        A shape, a length, a token or a bound does not fit, or lengths would change nothing.
    TypeError
        An array does not hold numbers, or tokens or lengths are not whole numbers.
    """
    x = recording.x.reshape(with_features(model, recording.x.shape))
    layout = check_layout(where, model, x.shape)
    lengths = recording.lengths
    if lengths is not None:
        lengths = _check_lengths(where, model, lengths, layout)
    state = _check_state(where, model, recording.state, layout.B)
    if rows is not None:
        x, lengths, state = _cut(where, rows, layout, x, lengths, state)
        layout = check_layout(where, model, x.shape)
    if model.signature.tokens is not None:
        check_tokens(where, x, model.signature.tokens)
    elif x.dtype.kind not in "fiub":
        raise TypeError(message(where, "an array of real numbers", f"one of {x.dtype}"))
    return Recording(x, lengths, state), layout


def _check_lengths(where: str, model: "fastrnn.Sequential", lengths: Array, layout: Layout) -> Array:
    if layout.B is None:
        raise ValueError(message(where, "a batch beside lengths", f"an array of shape {layout.shape}"))
    if not (model.signature.states or model.signature.gives_last):
        hint = "Lengths change nothing of what its layers give."
        raise ValueError(message(where, "no lengths for this model", "lengths", hint))
    return check_lengths(where, lengths, layout.T, layout.B)


def _check_state(
    where: str, model: "fastrnn.Sequential", state: Sequence[Array], B: int | None
) -> tuple[Array, ...]:
    """The arrays of an initial state, if they are as many as the model's and have its shapes."""
    if not state:
        return ()
    shapes = state_shapes(model, B)
    if len(state) != len(shapes):
        raise ValueError(message(where, f"{len(shapes)} arrays of an initial state", f"{len(state)}"))
    for index, (array, shape) in enumerate(zip(state, shapes, strict=True)):
        if array.shape != shape:
            raise ValueError(message(where, f"state{index} of shape {shape}", f"{array.shape}"))
    return tuple(state)


def _cut(
    where: str, rows: slice, layout: Layout, x: Array, lengths: Array | None, state: tuple[Array, ...]
) -> tuple[Array, Array | None, tuple[Array, ...]]:
    n = layout.count
    begin, end, _ = rows.indices(n)
    if begin >= end:
        got = ":".join("" if bound is None else str(bound) for bound in (rows.start, rows.stop))
        raise ValueError(message(where, f"at least one of the {layout.unit} 0:{n}", got))
    chosen = slice(begin, end)
    if layout.row_axis is None:
        return x[chosen], lengths, state
    return (
        x[chosen] if layout.row_axis == 0 else x[:, chosen],
        None if lengths is None else lengths[chosen],
        tuple(array[:, chosen] for array in state),
    )


# ---------------------------------------------------------------- the state of a model, as a list of arrays


def state_shapes(model: "fastrnn.Sequential", B: int | None) -> list[tuple[int, ...]]:
    """The shapes of the arrays of a model's state, for B rows or without an axis of rows."""
    return list(model.signature.state_shapes(B).values())


def state_names(model: "fastrnn.Sequential") -> list[str]:
    """The names of those arrays in files: state0, state1, ..."""
    return list(model.signature.states)


def pack_state(model: "fastrnn.Sequential", arrays: Sequence[Array]) -> State | None:
    """The state made of these arrays, as the model takes it. None, which means zeros, if there are none."""
    return nest_state(model, arrays) if arrays else None


def describe_names(model: "fastrnn.Sequential") -> str:
    """The names that arrays of an .npz input may have."""
    return join(["x", "lengths", *state_names(model)])


def input_dtype(model: "fastrnn.Sequential") -> np.dtype[Any] | None:
    """The dtype that inputs are converted to: int64 for tokens, None if no layer has a dtype."""
    if model.signature.takes_tokens:
        return np.dtype(np.int64)
    dtypes = [layer.dtype for layer in model.layers if hasattr(layer, "dtype")]
    return dtypes[0] if dtypes else None
