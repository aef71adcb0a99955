"""safetensors files, by the safetensors package."""

import json
import struct
from io import BufferedReader
from typing import Any

import numpy as np
import safetensors

from fastrnn.errors import Array, FormatError, brief, message
from fastrnn.importers.pickle_reader import StandIn
from fastrnn.importers.tensors import as_elements, is_shape

DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
MAX_HEADER = 16 * 2**20


def read_safetensors(path: str, where: str) -> tuple[dict[str, Array | StandIn], dict[str, str]]:
    """Read the tensors of a file (names to ndarrays) and its metadata (names to texts)."""
    with open(path, "rb") as file:
        (header_size,) = struct.unpack("<Q", file.read(8))
        if header_size > MAX_HEADER:
            raise FormatError(message(where, f"a header of at most {MAX_HEADER} bytes", str(header_size)))
        header = file.read(header_size)
        try:
            # It checks the header, and that the file is as long as that says, before anything is read.
            with safetensors.safe_open(path, "numpy"):
                entries = json.loads(header)
        except safetensors.SafetensorError as error:
            got = f"a damaged one ({error})"
            raise FormatError(message(where, "a whole safetensors file", got)) from error
        metadata = entries.pop("__metadata__", {})
        data = file.tell()
        tensors = {name: _read_tensor(file, data, where, name, entry) for name, entry in entries.items()}
    return tensors, metadata


def _read_tensor(
    file: BufferedReader, data: int, where: str, name: str, entry: dict[str, Any]
) -> Array | StandIn:
    """The tensor of an entry of the header, behind which the data of all begin."""
    dtype, shape = DTYPES.get(entry["dtype"]), entry["shape"]
    if dtype is None:
        return StandIn(f"a tensor of {entry['dtype']}")
    if not is_shape(shape):
        raise FormatError(message(where, f"a tensor {brief(name)} that fits in memory", brief(str(shape))))
    begin, end = entry["data_offsets"]
    file.seek(data + begin)
    elements = np.empty(end - begin, np.uint8)
    if file.readinto(elements.data) != end - begin:
        raise FormatError(message(where, f"the {end - begin} bytes of {brief(name)}", "less"))
    return as_elements(elements, dtype).reshape(shape)
