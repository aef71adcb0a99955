"""Every check of a user's argument. A ``check_*`` function raises, or returns what it checked, ready for use.

`where` is the caller's name, with which every message begins. What a file says about itself is not checked
here but where it is read (`importers`, `saving`).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array, Floats
from fastrnn.errors import FormatError, brief, message, quote

if TYPE_CHECKING:
    from numpy.typing import NDArray

# The precisions of what has no products, and the dtype of inputs, weights, outputs and states at each.
WIDE: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float64": np.float64}
# The precisions of products, and the dtype of inputs, outputs and states. Narrow weights are stored as named;
# "bfloat16x2" and "bfloat16x3" take float32 weights for sums of two and three bfloat16 numbers.
PRECISIONS: dict[str, type[np.floating[Any]]] = {
    **WIDE,
    **dict.fromkeys(("bfloat16", "bfloat16x2", "bfloat16x3", "int8"), np.float32),
}
# The matrices of a layer, in the order in which they are packed: those of x, of h, and of h's projection.
MATRICES = ("input", "recurrent", "projection")
# One precision, or that of each of MATRICES by its name.
Precision: TypeAlias = "str | Mapping[str, str]"
BACKENDS = ("auto", "simd", "blas")


# ---------------------------------------------------------------- options


def check_choice(where: str, name: str, value: object, choices: Collection[str], hint: str = "") -> str:
    """Return value if it is one of the choices, which are strings."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(message(where, f"{name} to be one of {quote(choices)}", brief(value), hint))
    return value


def check_precision(
    where: str, precision: object, choices: Collection[str] = PRECISIONS, name: str = "precision"
) -> np.dtype[np.floating[Any]]:
    """Return the dtype of inputs, outputs and states at this precision."""
    hint = _precision_hint(precision, choices)
    return np.dtype(PRECISIONS[check_choice(where, name, precision, choices, hint)])


def check_precisions(where: str, precision: object) -> dict[str, str]:
    """Return the precision of each of `MATRICES`, given one for all or some by name. The rest are float32."""
    if not isinstance(precision, Mapping):
        check_precision(where, precision)
        return dict.fromkeys(MATRICES, str(precision))
    strange = [brief(name) for name in precision if name not in MATRICES]
    if strange:
        raise ValueError(message(where, f"precisions of {quote(MATRICES)}", strange[0]))
    for name, of_matrix in precision.items():
        if isinstance(of_matrix, str) and of_matrix == "float64":
            hint = 'All of a layer is float64, or nothing: write precision="float64".'
            raise ValueError(message(where, f"no float64 in a precision of {name} alone", "'float64'", hint))
        choices = [choice for choice in PRECISIONS if choice != "float64"]
        check_precision(where, of_matrix, choices, f"precision of {name}")
    return {name: precision.get(name, "float32") for name in MATRICES}


def shortest_precision(precisions: Mapping[str, str]) -> Precision:
    """Return one precision if all of these matrices have the same, else those of all by name."""
    return dict(precisions) if len(set(precisions.values())) > 1 else next(iter(precisions.values()))


def _precision_hint(value: object, choices: Collection[str]) -> str:
    """Return which precision to write for a dtype of NumPy or torch, "" for anything else."""
    if isinstance(value, str):
        if value in PRECISIONS:  # of products, and this has none
            return "Layers with products have it: recurrent ones, Linear, Conv1d, Embedding."
        return ""
    name = repr(value).removeprefix("torch.").replace("qint", "int")
    if isinstance(value, (type, np.dtype)):
        try:
            name = np.dtype(value).name
        except TypeError:
            name = ""
    return f'Write precision="{name}".' if name in choices else ""


def check_positive(where: str, name: str, value: object) -> int:
    """Return value as an int if it is a whole number of at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(message(where, f"{name} to be a whole number", brief(value)))
    number: int = value.__index__()
    if number < 1:
        raise ValueError(message(where, f"{name} to be at least 1", brief(value)))
    if number >= 2**48:
        raise ValueError(message(where, f"{name} to fit in memory", brief(value)))
    return number


def check_threads(where: str, threads: object) -> int | None:
    """Return None (as many threads as pay off) or a number of threads, capped at 2^31 - 1."""
    return None if threads is None else min(check_positive(where, "threads", threads), 2**31 - 1)


def check_number(where: str, name: str, value: Any) -> float:
    """Return value as a float if it is a finite real number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(message(where, f"{name} to be a number", brief(value))) from None
    if not np.isfinite(number):
        raise ValueError(message(where, f"{name} to be finite", brief(value)))
    return number


def check_tolerance(where: str, value: Any) -> float:
    """Return a tolerance as a float if it is finite and at least 0."""
    number = check_number(where, "tolerance", value)
    if number < 0:
        raise ValueError(message(where, "tolerance to be at least 0", brief(value)))
    return number


def check_text(where: str, name: str, value: object) -> str:
    """Return value if it is a str."""
    if not isinstance(value, str):
        raise TypeError(message(where, f"{name} to be a str", brief(value)))
    return value


def check_path(where: str, path: object) -> str:
    """Return the path as a str if it is a str or a path object."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(message(where, "a path", brief(path)))
    return os.fsdecode(path)


def check_flag(where: str, name: str, value: object) -> bool:
    """Return value as a bool if it is one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(message(where, f"{name} to be True or False", brief(value)))
    return bool(value)


# ---------------------------------------------------------------- arrays


def check_array(where: str, name: str, value: Any, dtype: np.dtype[Any] | None = None) -> Array:
    """Return value, an array-like or a torch tensor, as an ndarray of real numbers, of dtype if given."""
    try:
        if hasattr(value, "detach"):  # a torch tensor, which may require a gradient
            value = value.detach().cpu()
            if str(value.dtype) in ("torch.bfloat16", "torch.float16"):
                value = value.float()
        array = np.asarray(value)
    except ValueError:
        raise ValueError(
            message(where, f"{name} to be an array", "nested lists of unequal lengths")
        ) from None
    except (TypeError, RuntimeError):
        raise TypeError(message(where, f"{name} to be an array", brief(value))) from None
    if isinstance(value, np.ma.MaskedArray):
        hint = "Fill it, or pass the lengths of the rows."
        raise TypeError(message(where, f"{name} to be a plain array", "a masked one", hint))
    if array.dtype.kind not in "fiub":
        raise TypeError(message(where, f"{name} to hold real numbers", f"an array of {array.dtype}"))
    if dtype is None or array.dtype == dtype:
        return array
    return array.astype(dtype)


def check_floats(where: str, x: object, dtype: np.dtype[Any] | None = None) -> Floats:
    """Return x as an array of dtype. None: as a float64 array if it is one, else as a float32 array."""
    x = check_array(where, "x", x, dtype)
    # Of the type, not of its byte order.
    return x.astype(np.float64 if x.dtype.type is np.float64 else np.float32, copy=False)


def check_last_axis(where: str, x: object, dtype: np.dtype[Any], features: int, hint: str = "") -> Array:
    """Return x as an array (..., features) of dtype."""
    x = check_array(where, "x", x, dtype)
    if x.ndim == 0 or x.shape[-1] != features:
        raise ValueError(message(where, f"x of shape (..., {features})", f"{x.shape}", hint))
    return x


def check_sequence(where: str, x: object, dtype: np.dtype[Any], input_size: int, batch_first: bool) -> Array:
    """Return x as an aligned array (T, B, I), (B, T, I) or (T, I) of dtype, with a contiguous last axis."""
    x = check_array(where, "x", x, dtype)
    layout = "(B, T, {})" if batch_first else "(T, B, {})"
    expected = f"x of shape {layout.format(input_size)} or, unbatched, (T, {input_size})"
    if x.ndim not in (2, 3):
        raise ValueError(message(where, expected, f"{x.shape}"))
    if x.shape[-1] != input_size:
        hint = f"input_size is {input_size}, read from the weights."
        raise ValueError(message(where, expected, f"{x.shape}", hint))
    if 0 in x.shape:
        raise ValueError(message(where, "at least one time step and one row", f"{x.shape}"))
    if x.strides[-1] != x.itemsize and input_size > 1:
        x = np.ascontiguousarray(x)
    return x if x.flags.aligned else x.copy()


def check_state(where: str, state: object, shapes: Mapping[str, tuple[int, ...]]) -> list[Array]:
    """Return the arrays of a state in the order of `shapes`, which maps their names to their shapes."""
    names = tuple(shapes)
    if len(names) == 1:
        state = (state,)
    elif not isinstance(state, (tuple, list)) or len(state) != len(names):
        got = f"{len(state)} of them" if isinstance(state, (tuple, list)) else brief(state)
        raise ValueError(message(where, f"state to be a pair ({', '.join(names)})", got))
    arrays = [check_array(where, name, value) for name, value in zip(names, state, strict=True)]
    for name, array in zip(names, arrays, strict=True):
        if array.shape != shapes[name]:
            raise ValueError(message(where, f"{name} of shape {shapes[name]}", f"{array.shape}"))
    return arrays


def check_lengths(where: str, lengths: object, T: int, B: int) -> NDArray[np.intp]:
    """Return lengths as a contiguous intp array (B,) with values from 1 to T."""
    lengths = check_array(where, "lengths", lengths)
    if lengths.dtype.kind not in "iu":
        raise TypeError(message(where, "lengths to be whole numbers", f"{lengths.dtype}"))
    if lengths.shape != (B,):
        hint = f"The batch has {B} row{'s' if B > 1 else ''}."
        raise ValueError(message(where, f"lengths of shape ({B},)", f"{lengths.shape}", hint))
    wrong = np.flatnonzero((lengths < 1) | (lengths > T))
    if wrong.size:
        row = wrong[0]
        raise ValueError(message(where, f"lengths from 1 to {T}", f"{lengths[row]} for row {row}"))
    return np.ascontiguousarray(lengths, dtype=np.intp)


def check_rows(where: str, rows: object, B: int) -> NDArray[np.intp]:
    """Return the indices of rows as an intp array, given one index, a sequence of them, or B bools."""
    rows = check_array(where, "rows", rows)
    if rows.dtype.kind == "b" and rows.shape == (B,):
        return np.flatnonzero(rows)
    if rows.dtype.kind not in "iu" and rows.size:
        raise TypeError(message(where, "rows to be whole numbers", f"{rows.dtype} of shape {rows.shape}"))
    if rows.ndim > 1:
        raise ValueError(message(where, "rows in a sequence", f"shape {rows.shape}"))
    rows = np.atleast_1d(rows)
    wrong = np.flatnonzero((rows < 0) | (rows >= B))
    if wrong.size:
        raise ValueError(message(where, f"rows from 0 to {B - 1}", f"{rows[wrong[0]]}"))
    return rows.astype(np.intp)


def check_chunks(where: str, chunks: object, count: int) -> list[Any]:
    """Return chunks as a list, if there is one for each of `count` ids, in an order."""
    if not isinstance(chunks, Iterable) or isinstance(chunks, (set, frozenset, Mapping)):
        raise TypeError(message(where, "chunks in a sequence", type(chunks).__name__))
    listed = list(chunks)
    if len(listed) != count:
        raise ValueError(message(where, f"a chunk for each of {count} ids", f"{len(listed)}"))
    return listed


def check_out(
    where: str, out: object, shape: tuple[int, ...], dtype: np.dtype[Any] | None, apart_from: Iterable[Array]
) -> Array:
    """Return out as a plain ndarray if it is writable, C-contiguous and overlaps none of `apart_from`."""
    expected = f"out to be a C-contiguous {dtype} array of shape {shape}"
    if not isinstance(out, np.ndarray):
        hint = "It is written in place, which only a NumPy array can be."
        raise TypeError(message(where, expected, brief(out), hint))
    # A subclass may report any shape or dtype, and index in its own way.
    out = np.ndarray.view(out, np.ndarray)
    if out.shape != shape or out.dtype != dtype:
        raise ValueError(message(where, expected, f"{out.dtype} of shape {out.shape}"))
    flags = out.flags
    if not (flags.c_contiguous and flags.writeable and flags.aligned):
        got = "a read-only one" if not flags.writeable else f"one with strides {out.strides}"
        raise ValueError(message(where, expected, got))
    for array in apart_from:
        if np.may_share_memory(out, array):
            raise ValueError(message(where, "out to be apart from the inputs", "one that overlaps"))
    return out


def check_tokens(where: str, tokens: object, count: int, name: str = "tokens") -> NDArray[np.integer[Any]]:
    """Return tokens as an integer array with values from 0 to count - 1."""
    tokens = check_array(where, name, tokens)
    if tokens.dtype.kind not in "iu":
        raise TypeError(message(where, f"{name} to be whole numbers", f"{tokens.dtype}"))
    if tokens.size:
        low, high = tokens.min(), tokens.max()
        if low < 0 or high >= count:
            worst = low if low < 0 else high
            indices = np.argwhere(tokens == worst)  # empty if another thread writes to the array meanwhile
            place = f" at index {tuple(map(int, indices[0]))}" if len(indices) else ""
            expected = f"{'' if name == 'tokens' else f'{name} to hold '}tokens from 0 to {count - 1}"
            raise ValueError(message(where, expected, f"{worst}{place}"))
    return tokens


# ---------------------------------------------------------------- files


def check_file_name(path: str) -> None:
    """Raise OSError for a path that no file can have: it holds a NUL, or the file system cannot encode it."""
    try:
        os.lstat(path)
    except ValueError as error:
        raise OSError(errno.EINVAL, "Not a valid file name", path) from error
    except OSError:
        pass  # no such file: whoever opens it will report that


def check_regular(where: str, path: str) -> None:
    """Raise FormatError for a pipe, which can be read once, or a device. A folder fails when it is opened."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise FormatError(message(where, "a regular file", "a pipe or a device"))
