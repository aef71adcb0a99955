"""safetensors files, by the safetensors package."""

import json
import struct

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
        file.seek(0)
        data = file.read()
    try:
        entries = safetensors.deserialize(data)
    except safetensors.SafetensorError as error:
        got = f"a damaged one ({error})"
        raise FormatError(message(where, "a whole safetensors file", got)) from error
    tensors: dict[str, Array | StandIn] = {}
    for name, entry in entries:
        dtype = DTYPES.get(entry["dtype"])
        if dtype is None:
            tensors[name] = StandIn(f"a tensor of {entry['dtype']}")
            continue
        elements = np.frombuffer(bytearray(entry["data"]), np.uint8)
        shape = entry["shape"]
        if not is_shape(shape):
            raise FormatError(
                message(where, f"a tensor {brief(name)} that fits in memory", brief(str(shape)))
            )
        tensors[name] = as_elements(elements, dtype).reshape(shape)
    return tensors, json.loads(data[8 : 8 + header_size]).get("__metadata__", {})
