"""NumPy's files: .npz, which is a zip archive of .npy entries, and single .npy files.

Headers and sizes are checked before an array is made. Pickled objects are never unpickled.

Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from fastrnn.arrays import Array
from fastrnn.errors import FormatError, brief, brief_error, message, quote
from fastrnn.importers.archive import Archive
from fastrnn.importers.source import Source
from fastrnn.importers.tensors import Unread, is_shape

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_HEADER = 16 * 1024
# What messages say of an array that NumPy can only read by unpickling it, and what to do.
OBJECTS = (
    "an array of Python objects. Only pickle can read objects, and it is never run here. "
    "Save numbers, as with x.astype(np.float32)"
)
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(archive: Archive, where: str) -> dict[str, Array | Unread]:
    """Read the arrays of an archive by name. Those that hold no real numbers are `Unread`.

    Raises
    ------
    FormatError
        An entry is no .npy file, or is damaged.
    """
    strange = [name for name in archive.sizes if not name.endswith(".npy")]
    if strange:
        raise FormatError(message(where, "entries that are .npy files", quote(strange[:5])))
    return {name.removesuffix(".npy"): _read_entry(archive.read(name), where, name) for name in archive.sizes}


def read_arrays(source: Source) -> dict[str, Array]:
    """Read the arrays of an .npz file by name, or the array of a .npy file under the name "x".

    Raises
    ------
    FormatError
        The file is damaged, of another kind, or holds something other than real numbers.
    """
    where = source.where
    with source.open() as file:
        head = file.read(6)
        file.seek(0)
        if head.startswith(b"PK"):
            with Archive(file, where) as archive:
                return only_real(read_npz(archive, where), where)
        if head == b"\x93NUMPY":
            data = np.frombuffer(bytearray(file.read()), np.uint8)
            return only_real({"x": _read_entry(data, where, where)}, where)
    raise FormatError(message(where, "arrays as .npy or .npz", "a file of another kind"))


def only_real(arrays: Mapping[str, Array | Unread], where: str) -> dict[str, Array]:
    """Return the arrays if all of them hold real numbers; else raise FormatError."""
    for name, array in arrays.items():
        if isinstance(array, Unread):
            raise FormatError(message(where, f"{brief(name)} to hold real numbers", array.reason))
    return {name: array for name, array in arrays.items() if not isinstance(array, Unread)}


def holds_objects(head: bytes) -> bool:
    """Whether the array of a .npy file holds Python objects, given the first MAX_HEADER bytes of the file."""
    try:
        return _read_header(io.BytesIO(head))[2].hasobject
    except Exception:  # any damage, as in `_read_entry`
        return False


def _read_header(file: io.BytesIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return the shape, whether the order is Fortran's, and the dtype. What NumPy raises is raised."""
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version}")
    return _HEADERS[version](file)


def _read_entry(data: NDArray[np.uint8], where: str, name: str) -> Array | Unread:
    file = io.BytesIO(data[:MAX_HEADER].tobytes())
    try:
        shape, is_fortran, dtype = _read_header(file)
        if not is_shape(shape):
            raise ValueError(f"a shape {brief(str(shape))}")
    # NumPy parses the header as Python source, which fails in many ways (TokenError, MemoryError, ...).
    except Exception as error:
        got = f"a damaged one ({brief_error(error)})"
        raise FormatError(message(where, f"a whole array {brief(name)}", got)) from error
    if dtype.kind not in "fiub":
        return Unread(OBJECTS if dtype.hasobject else f"an array of {dtype}, not of real numbers")
    size = prod(shape) * dtype.itemsize
    there = len(data) - file.tell()
    if size != there:
        raise FormatError(message(where, f"{size} bytes in {brief(name)}", str(there)))
    elements = data[file.tell() :].view(dtype).astype(dtype.newbyteorder("="), copy=False)
    return np.require(elements.reshape(shape, order="F" if is_fortran else "C"), requirements="A")
