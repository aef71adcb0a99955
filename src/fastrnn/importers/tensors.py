"""Tensors in torch's files: a storage, and a view of it by offset, size and stride.

Every number in a view is the file's word, so all are checked, with Python's integers, before
an array is made. Views of one storage share its memory, as in torch; nothing is copied, so
that no file can make more of its bytes than there are.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from fastrnn.errors import Array, FormatError, brief, message

# torch's storage classes: the dtype of their elements as they lie in the file.
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
}
# dtypes by their names in torch, for tensors on an untyped storage.
DTYPES = {f"torch.{name}": name for name in (*STORAGE_TYPES.values(), "uint16", "uint32", "uint64")}

# The dtypes of views of one storage, each of which may need a copy of it.
MAX_DTYPES = 4


def itemsize(dtype: str) -> int:
    """Bytes of an element of a dtype by its name, bfloat16 among them."""
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def is_shape(sizes: Sequence[object]) -> bool:
    """Whether sizes that a file gives can be those of an array, empty or not."""
    if len(sizes) > 32:
        return False
    counts = [n for n in sizes if type(n) is int and n >= 0]
    return len(counts) == len(sizes) and prod(n for n in counts if n) < 2**48


def as_elements(data: NDArray[np.uint8], dtype: str, byteorder: str = "little") -> Array:
    """Bytes (a uint8 array) as an array of a dtype by its name; bfloat16 becomes float32."""
    order: Literal["<", ">"] = "<" if byteorder == "little" else ">"
    if dtype == "bfloat16":
        bits = data.view(np.dtype(np.uint16).newbyteorder(order)).astype(np.uint32)
        return (bits << 16).view(np.float32)
    elements = data.view(np.dtype(dtype).newbyteorder(order))
    return elements.astype(np.dtype(dtype), copy=False)


class Storage:
    """One storage of a file: its elements, read when they are first wanted.

    `read` gives the bytes, a uint8 array of at least `count` elements, and their byte order.
    """

    def __init__(self, dtype: str, count: int, read: Callable[[], tuple[NDArray[np.uint8], str]]) -> None:
        self.dtype = dtype
        self.count = count
        self.read = functools.cache(read)
        self.by_dtype: dict[str, Array] = {}

    def elements(self, dtype: str) -> Array:
        """The elements as an array of a dtype by its name: one array, which all views share."""
        if dtype not in self.by_dtype:
            data, byteorder = self.read()
            size = self.count * itemsize(self.dtype)
            size -= size % itemsize(dtype)
            self.by_dtype[dtype] = as_elements(data[:size], dtype, byteorder)
        return self.by_dtype[dtype]


@dataclass
class TensorView:
    """A tensor as the file describes it; `array` makes it, once its numbers are checked."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str

    def array(self, where: str, name: str) -> Array:
        """The view as an ndarray on the storage's memory."""
        numbers = (self.offset, *self.size, *self.stride)
        if (
            len(self.size) != len(self.stride)
            or len(self.size) > 32
            or not all(type(n) is int and 0 <= n < 2**62 for n in numbers)
        ):
            got = f"offset {brief(self.offset)}, {len(self.size)} sizes and {len(self.stride)} strides"
            hint = "Every one is a whole number from 0."
            raise FormatError(message(where, f"a tensor {name} of sizes and strides", got, hint))
        count = self.storage.count * itemsize(self.storage.dtype) // itemsize(self.dtype)
        if 0 in self.size:
            if not is_shape(self.size):
                raise FormatError(message(where, f"a tensor {name} that fits in memory", f"{self.size}"))
            return np.zeros(self.size, "float32" if self.dtype == "bfloat16" else self.dtype)
        pairs = list(zip(self.size, self.stride, strict=True))
        last = self.offset + sum((n - 1) * step for n, step in pairs)
        if last >= count or prod(self.size) > count:
            raise FormatError(
                message(
                    where,
                    f"a storage with the {prod(self.size)} elements of {name} (element {last} the last)",
                    f"one of {count}",
                    "The file is damaged or cut short.",
                )
            )
        if len(self.storage.by_dtype.keys() | {self.dtype}) > MAX_DTYPES:
            raise FormatError(message(where, f"a storage of at most {MAX_DTYPES} dtypes", "more"))
        elements = self.storage.elements(self.dtype)[self.offset :]
        # The stride of an axis of one is never taken, and may be anything.
        strides = [step * elements.itemsize if n > 1 else 0 for n, step in pairs]
        return as_strided(elements, self.size, strides)

    def nbytes(self) -> int:
        """The bytes of a copy, as far as the sizes are numbers."""
        return prod(n for n in self.size if type(n) is int) * itemsize(self.dtype)
