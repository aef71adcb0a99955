"""Tensors as files describe them: storages, and views of a storage by offset, size and stride.

Every number in a view comes from the file. All are checked with Python's integers before an array is made.
Views of one storage share its memory, as in torch. Nothing is copied without need, so no file can take much
more memory than it has bytes. Formats are not known here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from fastrnn.arrays import Array
from fastrnn.errors import FormatError, brief, message

if TYPE_CHECKING:
    from numpy.typing import NDArray

# torch's storage classes, and the dtype of their elements in the file.
STORAGE_TYPES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
    # The integers of quantised tensors, whose scales and zero points are stored elsewhere.
    "QInt8Storage": "int8",
    "QUInt8Storage": "uint8",
    "QInt32Storage": "int32",
}
# Storages of elements that are not read, and the bytes of an element.
OTHER_STORAGES = {"ComplexFloatStorage": 8, "ComplexDoubleStorage": 16}


class Float8(NamedTuple):
    """The layout of a float of one byte: sign, exponent, mantissa.

    Sources: https://arxiv.org/abs/2209.05433; for the "fnuz" types https://arxiv.org/abs/2206.02915; for
    e8m0fnu https://www.opencompute.org/documents/ocp-microscaling-formats-mx-v1-0-spec-final-pdf
    """

    exponent_bits: int
    mantissa_bits: int
    bias: int
    has_infinity: bool = False
    is_fnuz: bool = False  # no negative zero: its byte is the one NaN


FLOAT8 = {
    "float8_e4m3fn": Float8(4, 3, 7),
    "float8_e5m2": Float8(5, 2, 15, has_infinity=True),
    "float8_e4m3fnuz": Float8(4, 3, 8, is_fnuz=True),
    "float8_e5m2fnuz": Float8(5, 2, 16, is_fnuz=True),
    "float8_e8m0fnu": Float8(8, 0, 127),
}
# dtypes that NumPy lacks, and their bytes in a file. They arrive as float32.
WIDENED = {"bfloat16": 2, **dict.fromkeys(FLOAT8, 1)}
# dtypes by their names in torch, for tensors with an untyped storage.
DTYPES = {f"torch.{name}": name for name in (*STORAGE_TYPES.values(), *WIDENED, "uint16", "uint32", "uint64")}

# How many dtypes the views of one storage may have. Each may need a copy of the storage.
MAX_DTYPES = 4
# Views may together be MAX_SHARING times as large as the storages that they share, plus FREE_BYTES.
MAX_SHARING = 8
FREE_BYTES = 16 * 2**20
# Bytes of a view that uses elements of its storage more than once.
MAX_EXPANDED = 2**28


@functools.cache
def itemsize(dtype: str) -> int:
    """Return the bytes that an element of a dtype takes in a file."""
    return WIDENED.get(dtype) or np.dtype(dtype).itemsize


def arrives_as(dtype: str) -> str:
    """Return the dtype of the array that is made of elements of a dtype."""
    return "float32" if dtype in WIDENED else dtype


def is_shape(sizes: Sequence[object]) -> bool:
    """Whether sizes from a file can be the shape of an array, which may be empty."""
    if len(sizes) > 32:
        return False
    counts = [n for n in sizes if type(n) is int and 0 <= n < 2**48]
    return len(counts) == len(sizes) and prod(n for n in counts if n) < 2**48


# ---------------------------------------------------------------- elements


def as_elements(data: NDArray[np.uint8], dtype: str, byteorder: str = "little") -> Array:
    """Return bytes (a uint8 array) as an array of a dtype. A dtype that NumPy lacks becomes float32."""
    order: Literal["<", ">"] = "<" if byteorder == "little" else ">"
    if dtype == "bfloat16":
        bits = data.view(np.dtype(np.uint16).newbyteorder(order)).astype(np.uint32)
        return (bits << 16).view(np.float32)
    if dtype in FLOAT8:
        values: Array = float8_values(dtype)[data]
        return values
    elements = data.view(np.dtype(dtype).newbyteorder(order))
    return elements.astype(np.dtype(dtype), copy=False)


@functools.cache
def float8_values(dtype: str) -> NDArray[np.float32]:
    """Return the value of each of the 256 bytes of a float8 type."""
    kind = FLOAT8[dtype]
    byte = np.arange(256)
    if dtype == "float8_e8m0fnu":  # a power of two without a sign
        values = np.ldexp(1.0, byte - kind.bias)
        values[255] = np.nan
        return values.astype(np.float32)
    mantissa = byte & (2**kind.mantissa_bits - 1)
    exponent = (byte & 127) >> kind.mantissa_bits
    sign = np.where(byte < 128, 1.0, -1.0)
    is_normal = exponent > 0
    units = mantissa + is_normal * 2**kind.mantissa_bits
    values = sign * np.ldexp(units, np.maximum(exponent, 1) - kind.bias - kind.mantissa_bits)
    if kind.is_fnuz:
        values[128] = np.nan
    elif kind.has_infinity:
        is_last = exponent == 2**kind.exponent_bits - 1
        values[is_last] = np.where(mantissa == 0, sign * np.inf, np.nan)[is_last]
    else:
        values[[127, 255]] = np.nan
    result: NDArray[np.float32] = values.astype(np.float32)
    return result


# ---------------------------------------------------------------- storages and views


class Storage:
    """One storage of a file, whose elements are read when they are first needed.

    Parameters
    ----------
    dtype : str
        Of its elements in the file.
    count : int
        The number of elements.
    read : callable, optional
        Returns its bytes, a uint8 array of at least `count` elements, and their byte order.
    whole : Storage, optional
        The storage that it is a part of, instead of `read`.
    begin : int
        Its first element in `whole`.
    """

    def __init__(
        self,
        dtype: str,
        count: int,
        read: Callable[[], tuple[NDArray[np.uint8], str]] | None = None,
        whole: Storage | None = None,
        begin: int = 0,
    ) -> None:
        self.dtype = dtype
        self.count = count
        self.whole: Storage = whole or self
        self.begin = begin
        self.read = read
        self.by_dtype: dict[str, Array] = {}
        self._content: tuple[NDArray[np.uint8], str] | None = None  # what `read` returned

    def part(self, begin: int, count: int) -> Storage:
        """Return a part of this storage: `count` elements from `begin` on."""
        return Storage(self.dtype, count, None, self.whole, self.begin + begin)

    def nbytes(self) -> int:
        """Return its size in the file, in bytes."""
        return self.count * itemsize(self.dtype)

    def elements(self, dtype: str) -> Array:
        """Return the elements as an array of a dtype: one array, which all views share."""
        if self.read is None:
            begin, rest = divmod(self.begin * itemsize(self.dtype), itemsize(dtype))
            if rest:
                raise ValueError("a part of a storage that begins inside an element")
            return self.whole.elements(dtype)[begin : begin + self.nbytes() // itemsize(dtype)]
        if dtype not in self.by_dtype:
            self._content = self._content or self.read()
            data, byteorder = self._content
            if len(data) < self.nbytes():
                raise ValueError(f"{len(data)} bytes of a storage of {self.nbytes()}")
            size = self.nbytes() - self.nbytes() % itemsize(dtype)
            self.by_dtype[dtype] = as_elements(data[:size], dtype, byteorder)
        return self.by_dtype[dtype]


@dataclass(frozen=True)
class Unread:
    """A tensor that NumPy cannot hold, or whose numbers do not fit its file, and why it was not read."""

    reason: str


def check_dtypes(where: str, dtypes: Collection[str]) -> None:
    """Raise FormatError if the views of one storage have too many dtypes."""
    if len(dtypes) > MAX_DTYPES:
        raise FormatError(
            message(where, f"a storage of at most {MAX_DTYPES} dtypes", f"one of {len(dtypes)}")
        )


@dataclass(eq=False)
class TensorView:
    """A tensor as the file describes it. `array` checks its numbers and makes it.

    Attributes
    ----------
    storage : Storage
    offset : int
        Of its first element in the storage.
    size, stride : tuple of int
        In elements, one for each axis.
    dtype : str
        As which it takes the elements of the storage.
    is_negated : bool
        torch's flag of a view whose elements are to be negated.
    scale, zero_point : number or TensorView
        Of quantised elements. A view has one number for each index of `axis`. `scale` is None if the elements
        are not quantised.
    axis : int
    """

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    is_negated: bool = False
    scale: float | TensorView | None = None
    zero_point: int | TensorView = 0
    axis: int = 0

    def array(self, where: str, name: str) -> Array:
        """Return the view as an ndarray.

        It shares the storage's memory unless its elements are negated or quantised. It is read-only if it
        uses elements of the storage more than once.

        Raises
        ------
        FormatError
            Its numbers are not sizes, or do not fit the storage, or the storage cannot be read.
        """
        self._check_numbers(where, name)
        if 0 in self.size:
            if not is_shape(self.size):
                raise FormatError(message(where, f"a tensor {name} that fits in memory", f"{self.size}"))
            return np.zeros(self.size, "float32" if self.scale is not None else arrives_as(self.dtype))
        pairs = list(zip(self.size, self.stride, strict=True))
        last = self.offset + sum((n - 1) * step for n, step in pairs)
        count = self.storage.nbytes() // itemsize(self.dtype)
        is_copied = self.is_negated or self.scale is not None
        most = FREE_BYTES if is_copied else MAX_EXPANDED  # bytes, where the view is larger than its storage
        if last >= count or self.nbytes > max(most, self.storage.nbytes()):
            raise FormatError(
                message(
                    where,
                    f"a storage with the {prod(self.size)} elements of {name} (up to element {last})",
                    f"one of {count}",
                    "The file is damaged or cut short.",
                )
            )
        check_dtypes(where, self.storage.whole.by_dtype.keys() | {self.dtype})
        try:
            elements = self.storage.elements(self.dtype)[self.offset :]
        except ValueError as error:
            if isinstance(error, FormatError):
                raise
            raise FormatError(message(where, f"a storage that fits {name}", str(error))) from error
        # The stride of an axis of size 1 is never used, and may be any number.
        strides = [step * elements.itemsize if n > 1 else 0 for n, step in pairs]
        # A write to an element that several indices share would change all of them.
        array = as_strided(elements, self.size, strides, writeable=not self.is_expanded())
        if self.is_negated:
            array = -array
        return array if self.scale is None else self._dequantised(array, where, name)

    def _check_numbers(self, where: str, name: str) -> None:
        numbers = (self.offset, *self.size, *self.stride)
        if (
            len(self.size) != len(self.stride)
            or len(self.size) > 32
            or not all(type(n) is int and 0 <= n < 2**62 for n in numbers)
        ):
            got = f"offset {brief(self.offset)}, {len(self.size)} sizes and {len(self.stride)} strides"
            hint = "Each is a whole number, 0 or more."
            raise FormatError(message(where, f"a tensor {name} with valid sizes and strides", got, hint))
        if self.is_negated and (self.dtype == "bool" or self.dtype.startswith("uint")):
            raise FormatError(message(where, f"signed numbers in {name}, which is negated", self.dtype))

    def _dequantised(self, array: Array, where: str, name: str) -> Array:
        """Return the float32 values of quantised elements: scale * (element - zero point)."""
        given = {"scale": self.scale, "zero point": self.zero_point}
        scale, zero_point = (
            value.array(where, f"{name}'s {what}")
            if isinstance(value, TensorView)
            else np.float64(value or 0)
            for what, value in given.items()
        )
        shape = [1] * array.ndim
        if scale.ndim or zero_point.ndim:
            if not 0 <= self.axis < array.ndim or not (
                scale.shape == zero_point.shape == (self.size[self.axis],)
            ):
                got = f"{scale.shape} and {zero_point.shape}"
                raise FormatError(message(where, f"a scale and zero point for each row of {name}", got))
            shape[self.axis] = -1
        # As in torch: the difference of two integers, times the scale, in float32.
        values: Array = array.astype(np.float32 if array.itemsize == 1 else np.float64)
        values -= zero_point.reshape(shape).astype(values.dtype)
        values *= scale.reshape(shape).astype(np.float32)
        return values.astype(np.float32, copy=False)

    def is_expanded(self) -> bool:
        """Whether it uses elements of its storage more than once."""
        return self.nbytes > self.storage.nbytes()

    @functools.cached_property
    def nbytes(self) -> int:
        """The bytes that a copy would take in the file; 2^62 if its sizes are not valid numbers."""
        if not all(type(n) is int and n.bit_length() <= 62 for n in self.size):
            return 2**62
        return prod(n for n in self.size if type(n) is int) * itemsize(self.dtype)
