"""The errors, and every check that raises one.

    ValueError
    ├── FormatError    a file is damaged, hostile, or of no known kind
    └── WeightError    the tensors do not make that layer

A wrong shape or value is a ValueError, a thing of a wrong kind a TypeError. All messages have
one grammar: *where: expected X, got Y. Hint.* A ``check_*`` function raises or returns what
it checked, ready for use.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

# What checks return and layers give: any array, one of floats, the state of a layer or a model.
Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.floating[Any]]
State: TypeAlias = Floats | tuple["State", ...]
# A state as callers give it; None is zeros.
StateLike: TypeAlias = ArrayLike | Sequence["StateLike"] | None

# The dtype of inputs, outputs and states at each precision; weights may be kept narrower.
PRECISIONS: dict[str, type[np.floating[Any]]] = {"float32": np.float32, "float64": np.float64}
BACKENDS = ("auto", "simd", "blas")


class FormatError(ValueError):
    """The file is damaged, hostile, or of no kind that fastrnn reads.

    Example: a file that holds a whole pickled module, where a ``state_dict`` is wanted.
    """


class WeightError(ValueError):
    """The tensors do not make the layer that was asked for.

    Example: ``GRU.from_state_dict`` on the weights of an LSTM, or a missing bias.
    """


def message(where: str, expected: str, got: str, hint: str = "") -> str:
    """One sentence in the grammar of all messages, and a hint behind it."""
    text = f"{where}: expected {expected}, got {got}."
    return f"{text} {hint}" if hint else text


def brief(value: object, limit: int = 60) -> str:
    """A short text for a value of any kind and size."""
    if isinstance(value, (bool, float, str, type(None))) or (
        isinstance(value, int) and -(10**18) < value < 10**18
    ):
        text = repr(value[:limit] if isinstance(value, str) else value)
        return text if len(text) <= limit else f"{text[:limit]}..."
    name = type(value).__name__
    shape = getattr(value, "shape", None)
    return f"{name} of shape {shape}" if isinstance(shape, tuple) else name


def printable(text: str) -> str:
    """A text of anyone as one line: "?" for what would begin another one or steer a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def literal(text: str) -> str:
    """A text as a program has it, in double quotes where that is plain."""
    is_plain = text.isprintable() and not set(text) & {'"', "\\"}
    return f'"{text}"' if is_plain else repr(text)


def join(words: Iterable[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    words = list(words)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def quote(names: Iterable[str]) -> str:
    """Names as a list in quotes, for a message."""
    return join(map(literal, names))


# ---------------------------------------------------------------- options


def check_choice(where: str, name: str, value: object, choices: Collection[str]) -> str:
    """Return value if it is one of the choices (strings)."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(message(where, f"{name} to be one of {quote(choices)}", brief(value)))
    return value


def check_precision(where: str, precision: object) -> np.dtype[np.floating[Any]]:
    """Return the dtype of inputs, outputs and states at a precision."""
    return np.dtype(PRECISIONS[check_choice(where, "precision", precision, PRECISIONS)])


def check_positive(where: str, name: str, value: object) -> int:
    """Return value as an int, if it is one and at least 1."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(message(where, f"{name} to be a whole number", brief(value)))
    number: int = value.__index__()
    if number < 1:
        raise ValueError(message(where, f"{name} to be at least 1", brief(value)))
    if number >= 2**48:
        raise ValueError(message(where, f"{name} to fit in memory", brief(value)))
    return number


def check_threads(where: str, threads: object) -> int | None:
    """Return None (as many as pay) or a number of threads; beyond 2^31 - 1 there is no difference."""
    return None if threads is None else min(check_positive(where, "threads", threads), 2**31 - 1)


def check_number(where: str, name: str, value: Any) -> float:
    """Return value as a float, if it is a finite real number."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(message(where, f"{name} to be a number", brief(value))) from None
    if not np.isfinite(number):
        raise ValueError(message(where, f"{name} to be finite", brief(value)))
    return number


def check_text(where: str, name: str, value: object) -> str:
    """Return value if it is a str."""
    if not isinstance(value, str):
        raise TypeError(message(where, f"{name} to be a str", brief(value)))
    return value


def check_path(where: str, path: object) -> str:
    """Return a path as text, if it is a str or path object."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(message(where, "a path", brief(path)))
    return os.fsdecode(path)


def check_flag(where: str, name: str, value: object) -> bool:
    """Return value as a bool, if it is one."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(message(where, f"{name} to be True or False", brief(value)))
    return bool(value)


# ---------------------------------------------------------------- arrays


def check_array(where: str, name: str, value: Any, dtype: np.dtype[Any] | None = None) -> Array:
    """Return value (an array-like, or a torch tensor) as a real ndarray, of dtype if given."""
    try:
        if hasattr(value, "detach"):  # a torch tensor, perhaps one that requires a gradient
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
        hint = "Fill it, or give the lengths of rows."
        raise TypeError(message(where, f"{name} to be a plain array", "a masked one", hint))
    if array.dtype.kind not in "fiub":
        raise TypeError(message(where, f"{name} to hold real numbers", f"an array of {array.dtype}"))
    if dtype is None or array.dtype == dtype:
        return array
    return array.astype(dtype)


def as_plain(array: Array, dtype: DTypeLike | None = None) -> Array:
    """The array, or a copy that is C-contiguous, aligned and of dtype, as compiled code takes it."""
    array = np.asarray(array, dtype, order="C")
    return array if array.flags.aligned else array.copy()


def check_last_axis(where: str, x: object, dtype: np.dtype[Any], features: int, hint: str = "") -> Array:
    """Return x (..., features) as an array of dtype."""
    x = check_array(where, "x", x, dtype)
    if x.ndim == 0 or x.shape[-1] != features:
        raise ValueError(message(where, f"x of shape (..., {features})", f"{x.shape}", hint))
    return x


def check_sequence(where: str, x: object, dtype: np.dtype[Any], input_size: int, batch_first: bool) -> Array:
    """Return x as an array of dtype, (T, B, I), (B, T, I) or (T, I), with a contiguous last axis."""
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
    """Return the arrays of the state, in the order of `shapes` (name to shape)."""
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
    """Return lengths as a contiguous intp array (B,) of values from 1 to T."""
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
    """Return the numbers of rows: of one, a sequence of them, or B bools."""
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


def check_out(
    where: str, out: object, shape: tuple[int, ...], dtype: np.dtype[Any] | None, apart_from: Iterable[Array]
) -> Array:
    """Return out as a plain ndarray, if it is writable, C-contiguous and overlaps nothing in `apart_from`."""
    expected = f"out to be a C-contiguous {dtype} array of shape {shape}"
    if not isinstance(out, np.ndarray):
        raise TypeError(message(where, expected, brief(out)))
    # A subclass may tell or index what it likes.
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
    """Return tokens as an integer array with every value from 0 to count - 1."""
    tokens = check_array(where, name, tokens)
    if tokens.dtype.kind not in "iu":
        raise TypeError(message(where, f"{name} to be whole numbers", f"{tokens.dtype}"))
    if tokens.size:
        low, high = tokens.min(), tokens.max()
        if low < 0 or high >= count:
            worst = low if low < 0 else high
            places = np.argwhere(tokens == worst)  # none, if another thread writes to them meanwhile
            place = f" at index {tuple(map(int, places[0]))}" if len(places) else ""
            expected = f"{'' if name == 'tokens' else f'{name} to hold '}tokens from 0 to {count - 1}"
            raise ValueError(message(where, expected, f"{worst}{place}"))
    return tokens


# ---------------------------------------------------------------- files


def check_name(path: str) -> None:
    """Raise OSError for a path that no file can have: with a NUL, or not of the file system's encoding."""
    try:
        os.lstat(path)
    except ValueError as error:
        raise OSError(errno.EINVAL, "No name of a file", path) from error
    except OSError:
        pass  # there is none, which whoever opens it is told


def check_regular(where: str, path: str) -> None:
    """Refuse a pipe or a device, which ends once or never; a folder fails when it is opened."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise FormatError(message(where, "a regular file", "a pipe or a device"))


# ---------------------------------------------------------------- streams and pools


def taken_stream(where: str, is_torn: bool) -> RuntimeError:
    """A second thread is at a stream; or one was, when the process was forked."""
    if not is_torn:
        return RuntimeError(message(where, "one thread at a time", "a second one"))
    got = "one in the middle of a step"
    hint = "reset() or a state that is assigned makes it whole."
    return RuntimeError(message(where, "a stream that no thread was using at the fork", got, hint))


def bound_twice(where: str) -> RuntimeError:
    """``__init__`` of an object that has its layers already."""
    return RuntimeError(message(where, "one call of __init__", "a second one"))


def unmade_pool(where: str) -> RuntimeError:
    """A pool whose ``__init__`` was never called, or failed."""
    return RuntimeError(message(where, "a pool that is made", "one without layers"))


def torn_pool(where: str) -> RuntimeError:
    """Another thread was changing states when the process was forked."""
    got = "one in the middle of a step"
    return RuntimeError(message(where, "a pool that no thread was using at the fork", got, "Make a new one."))


def nested_turn(where: str) -> RuntimeError:
    """A thread calls a pool from within a call of the same pool."""
    return RuntimeError(message(where, "one call at a time in a thread", "one inside another"))


def no_memory(where: str, what: str) -> MemoryError:
    """There is no memory for something."""
    return MemoryError(message(where, what, "no memory"))


def wrong_ids(where: str, ids: object, index: int | None = None) -> TypeError:
    """Ids are no sequence of whole numbers; or the one at an index is none."""
    got = f"{ids.dtype} of shape {ids.shape}" if isinstance(ids, np.ndarray) else type(ids).__name__
    if index is not None:
        return TypeError(message(where, "ids to be whole numbers", f"{got} at index {index}"))
    return TypeError(message(where, "ids to be whole numbers in a sequence", got))


def wrong_id(where: str, id: int, index: int, is_repeated: bool, is_closed: bool) -> ValueError:
    """An id is given twice, or belongs to no open stream."""
    shown = f"{id}" if -(2**64) < id < 2**64 else "a number beyond 64 bits"
    if is_repeated:
        return ValueError(message(where, "each id once", f"{shown} again at index {index}"))
    hint = "It is closed." if is_closed else "open() gives one."
    return ValueError(message(where, "ids of open streams", f"{shown} at index {index}", hint))
