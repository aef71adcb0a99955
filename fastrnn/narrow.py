"""Weights narrower than float32: bfloat16 and int8. How numbers are rounded to them is defined here, once.

bfloat16
    The upper half of a float32: its sign, its exponent and 7 bits of its mantissa. Numbers are rounded to the
    nearest, ties to even. Small numbers stay: bfloat16 has the denormal numbers of float32's exponent.
int8
    Whole numbers from -127 to 127 with a float32 scale for each output row, which they are multiplied by. The
    scale is the row's largest magnitude divided by 127.

Nothing is multiplied here. The reference and the kernels do that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.errors import WeightError, brief, join, message

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

# The storages, and the dtypes of the arrays that hold them: bits for bfloat16, which NumPy does not have.
STORAGES: dict[str, type[np.generic]] = {"bfloat16": np.uint16, "int8": np.int8}
LARGEST = 127  # of int8: -128 has no counterpart above 0
# Rows whose largest magnitude is below it are zeros in int8: 127 divided by less may be beyond float32.
SMALLEST = np.float32(1e-30)


class NarrowWeight:
    """Weights as they are stored, with the first axis for output rows. Read-only.

    ``np.asarray`` gives them as float32 numbers.

    Parameters
    ----------
    storage : {"bfloat16", "int8"}
    data : ndarray
        uint16 bits of bfloat16, or int8.
    scales : float32 array (rows,), optional
        What the rows of int8 weights are multiplied by.

    Raises
    ------
    ValueError
        The arrays do not make such weights.
    """

    __slots__ = ("data", "scales", "storage")
    storage: str
    data: NDArray[Any]
    scales: NDArray[np.float32] | None

    def __init__(self, storage: str, data: Array, scales: Array | None = None) -> None:
        _check(storage, data, scales)
        self.storage = storage
        self.data = _frozen(data)
        self.scales = None if scales is None else _frozen(scales)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the axes, as an array of the weights has them."""
        return self.data.shape

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """The number of weights."""
        return self.data.size

    @property
    def nbytes(self) -> int:
        """The bytes of the weights and their scales."""
        return self.data.nbytes + (0 if self.scales is None else self.scales.nbytes)

    def part(self, rows: slice, arrange: Callable[[Array], Array]) -> NarrowWeight:
        """Return some of the rows. `arrange` may move numbers within them."""
        data = arrange(self.data[rows])
        return NarrowWeight(self.storage, data, None if self.scales is None else self.scales[rows])

    def take(self, rows: Array) -> NDArray[np.float32]:
        """Return these rows, an array of indices, as float32 numbers."""
        data = self.data.take(rows, axis=0)
        return widen(self.storage, data, None if self.scales is None else self.scales.take(rows))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        if copy is False:
            raise ValueError(message("NarrowWeight", "to be copied", "copy=False", "It is widened."))
        wide = widen(self.storage, self.data, self.scales)
        return wide if dtype is None else wide.astype(dtype, copy=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return NarrowWeight, (self.storage, self.data, self.scales)

    def __repr__(self) -> str:
        return f"<weights of shape {self.shape} in {self.storage}>"


def _check(storage: str, data: Array, scales: Array | None) -> None:
    where = f"weights in {storage}"
    if data.dtype != STORAGES[storage] or data.ndim == 0:
        raise ValueError(
            message(where, f"an array of {STORAGES[storage].__name__}", f"{data.dtype} of shape {data.shape}")
        )
    if (scales is not None) != (storage == "int8"):
        raise ValueError(
            message(where, f"{'a scale' if scales is None else 'no scale'} for each row", brief(scales))
        )
    if scales is None:
        return
    if scales.dtype != np.float32 or scales.shape != data.shape[:1]:
        expected = f"float32 scales of shape {data.shape[:1]}"
        raise ValueError(message(where, expected, f"{scales.dtype} of shape {scales.shape}"))
    if not (np.isfinite(scales) & (scales >= 0)).all():
        raise ValueError(message(where, "scales that are finite and at least 0", "others"))
    if data.min(initial=0) < -LARGEST:
        raise ValueError(message(where, f"whole numbers from -{LARGEST} to {LARGEST}", "-128"))


def _frozen(array: Array) -> Array:
    """Return the array if nobody can change it, else a read-only copy, C-contiguous and aligned."""
    if array.flags.c_contiguous and array.flags.aligned and array.flags.owndata and not array.flags.writeable:
        return array
    array = np.array(array, order="C")
    array.flags.writeable = False
    return array


# ---------------------------------------------------------------- to and from float32


def widen(storage: str, data: Array, scales: Array | None = None) -> NDArray[np.float32]:
    """Return stored numbers as float32. Scales are those of the first axes."""
    if storage == "bfloat16":
        bits = data.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    assert scales is not None
    wide: NDArray[np.float32] = data.astype(np.float32)
    wide *= scales.reshape(scales.shape + (1,) * (data.ndim - scales.ndim))
    return wide


def to_bfloat16(array: Array) -> NDArray[np.uint16]:
    """Return the bits of the nearest bfloat16 numbers, ties to even. A NaN stays a NaN."""
    wide = np.asarray(array, np.float32, order="C")
    bits = wide.view(np.uint32)
    rounded = bits >> 16
    rounded &= 1
    rounded += np.uint32(0x7FFF)
    rounded += bits  # beyond the largest number comes infinity
    rounded >>= 16
    narrow = rounded.astype(np.uint16)
    is_nan = np.isnan(wide)
    if is_nan.any():
        narrow[is_nan] = (bits[is_nan] >> 16).astype(np.uint16) | 0x40
    return narrow


def round_to_bfloat16(array: Array) -> NDArray[np.float32]:
    """Return the nearest bfloat16 numbers as float32."""
    return widen("bfloat16", to_bfloat16(array))


def quantise(rows: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return rows (n, k) of finite float32 numbers as whole numbers, and the scale of each row (n,).

    All is float32 arithmetic. A row of zeros, or of less than ``SMALLEST``, has scale 0.
    """
    return quantise_by(rows, np.abs(rows).max(axis=1, initial=0))


def quantise_by(rows: Array, largest: Array) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Quantise rows by the magnitude (n,) that becomes 127."""
    is_there = largest >= SMALLEST
    largest = np.where(is_there, largest, np.float32(1))
    inverse = np.where(is_there, np.float32(LARGEST) / largest, np.float32(0))
    scales = np.where(is_there, largest / np.float32(LARGEST), np.float32(0))
    numbers = np.rint(rows * inverse[:, None])
    return np.clip(numbers, -LARGEST, LARGEST).astype(np.int8), scales


# ---------------------------------------------------------------- weights


def narrowed(where: str, name: str, weight: Array | NarrowWeight, storage: str) -> NarrowWeight:
    """Return weights in a storage.

    Raises
    ------
    WeightError
        A row holds NaN or infinity, and the storage is int8.
    """
    if isinstance(weight, NarrowWeight) and weight.storage == storage:
        return weight
    with np.errstate(over="ignore"):  # of float64: infinity
        wide = np.asarray(weight, np.float32)
    if storage == "bfloat16":
        return NarrowWeight(storage, to_bfloat16(wide))
    rows = wide.reshape(len(wide), -1)
    wrong = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if wrong.size:
        shown = join([str(row) for row in wrong[:3]])
        got = f"NaN or infinity in row{'s' * (wrong.size > 1)} {shown}{' and others' * (wrong.size > 3)}"
        hint = 'int8 has neither. precision="bfloat16" keeps them.'
        raise WeightError(message(where, f"finite numbers in {name}", got, hint))
    numbers, scales = quantise(rows)
    return NarrowWeight(storage, numbers.reshape(wide.shape), scales)
