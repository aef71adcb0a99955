"""numpy.savez's files: a zip of .npy entries."""

import io
import os
from math import prod

import numpy as np
from numpy.lib import format as npy

from fastrnn.errors import FormatError, brief, message, quote
from fastrnn.importers.archive import Archive

_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def read_npz(archive, where):
    """Read every array of an archive: names to ndarrays."""
    return {
        name.removesuffix(".npy"): _read_entry(archive.read(name), where, name)
        for name in archive.sizes
        if name.endswith(".npy")
    }


def _read_entry(data, where, name):
    file = io.BytesIO(data)
    try:
        version = npy.read_magic(file)
        if version not in _HEADERS:
            raise ValueError(f"version {version}")
        shape, is_fortran, dtype = _HEADERS[version](file)
    except ValueError as error:
        got = f"a damaged one ({str(error)[:200]})"
        raise FormatError(message(where, f"a whole array {brief(name)}", got)) from error
    if dtype.kind not in "fiub":
        got = "pickled objects" if dtype.hasobject else f"{dtype}"
        raise FormatError(message(where, f"{brief(name)} to hold real numbers", got))
    size = prod(shape) * dtype.itemsize
    there = len(data) - file.tell()
    if size != there:
        raise FormatError(message(where, f"{size} bytes in {brief(name)}", str(there)))
    array = data[file.tell() :].copy().view(dtype)
    return array.reshape(shape, order="F" if is_fortran else "C").astype(dtype.newbyteorder("="), copy=False)


def read_inputs(path):
    """Read what a model is to run on: (x, lengths), lengths None where there are none.

    A .npy file is x, mapped from disk; an .npz holds x (or one array of any name) and perhaps
    lengths, and is read whole.
    """
    where = os.path.basename(path)
    with open(path, "rb") as file:
        head = file.read(6)
    if head == b"\x93NUMPY":
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False), None
        except ValueError as error:
            raise FormatError(message(where, "a whole .npy file", str(error))) from error
    if not head.startswith(b"PK"):
        raise FormatError(message(where, "an input as .npy or .npz", "a file of another kind"))
    with Archive(path, where) as archive:
        arrays = read_npz(archive, where)
    lengths = arrays.pop("lengths", None)
    if "x" in arrays or len(arrays) == 1:
        return arrays.get("x", next(iter(arrays.values()))), lengths
    raise FormatError(message(where, "an array x", f"the arrays {quote(arrays)}" if arrays else "none"))
