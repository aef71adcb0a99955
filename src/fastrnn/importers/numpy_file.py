"""numpy.savez's files: a zip of .npy entries."""

import io
from math import prod

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from fastrnn.errors import Array, FormatError, brief, message
from fastrnn.importers.archive import Archive
from fastrnn.importers.tensors import is_shape

MAX_HEADER = 16 * 1024
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(archive: Archive, where: str) -> dict[str, Array]:
    """Read every array of an archive: names to ndarrays."""
    return {
        name.removesuffix(".npy"): _read_entry(archive.read(name), where, name)
        for name in archive.sizes
        if name.endswith(".npy")
    }


def _read_entry(data: NDArray[np.uint8], where: str, name: str) -> Array:
    file = io.BytesIO(data[:MAX_HEADER].tobytes())
    try:
        version = npy.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version}")
        shape, is_fortran, dtype = _HEADERS[version](file)
        if not is_shape(shape):
            raise ValueError(f"a shape {brief(str(shape))}")
    # NumPy parses the header as Python text, which fails in many ways (TokenError, MemoryError, ...).
    except Exception as error:
        got = f"a damaged one ({type(error).__name__}: {str(error)[:200]})"
        raise FormatError(message(where, f"a whole array {brief(name)}", got)) from error
    if dtype.kind not in "fiub":
        got = "pickled objects" if dtype.hasobject else f"{dtype}"
        raise FormatError(message(where, f"{brief(name)} to hold real numbers", got))
    size = prod(shape) * dtype.itemsize
    there = len(data) - file.tell()
    if size != there:
        raise FormatError(message(where, f"{size} bytes in {brief(name)}", str(there)))
    elements = data[file.tell() :].view(dtype).astype(dtype.newbyteorder("="), copy=False)
    return np.require(elements.reshape(shape, order="F" if is_fortran else "C"), requirements="A")
