"""safetensors files: a header in JSON, followed by the bytes of the tensors.

The `safetensors` package writes our files but does not read them. It maps a file into memory, and the process
would die if another program shortened the file meanwhile. The reader here refuses every file that the package
refuses; a test compares the two.

Source: https://github.com/huggingface/safetensors#format
"""

import json
import struct
from math import prod
from typing import Any, TypeAlias

import numpy as np

from fastrnn.arrays import Array
from fastrnn.errors import FormatError, brief, brief_error, message
from fastrnn.importers.source import BoundedFile
from fastrnn.importers.tensors import Unread, as_elements, is_shape, itemsize
from fastrnn.narrow import NarrowWeight

# Source: safetensors/src/tensor.rs in https://github.com/huggingface/safetensors
DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
MAX_HEADER = 16 * 2**20

Tensor: TypeAlias = "Array | Unread | NarrowWeight"


def read_safetensors(file: BoundedFile, where: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file.

    Returns
    -------
    tensors : dict of str to ndarray, Unread or NarrowWeight
        The last only in a file that `save` wrote.
    metadata : dict of str to str

    Raises
    ------
    FormatError
        The file is damaged.
    """
    (header_size,) = struct.unpack("<Q", file.read(8))
    if header_size > MAX_HEADER:
        raise FormatError(message(where, f"a header of at most {MAX_HEADER} bytes", str(header_size)))
    begin = 8 + header_size
    try:
        entries = json.loads(file.read(header_size), object_pairs_hook=_unique)
        metadata = entries.pop("__metadata__", {})
        _check_entries(entries, file.size - begin)
        _check_texts(metadata)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        got = f"a damaged one ({brief_error(error)})"
        raise FormatError(message(where, "a whole safetensors file", got)) from error
    tensors: dict[str, Tensor] = {}
    is_saved = "fastrnn" in metadata
    for name, entry in entries.items():
        is_narrow = is_saved and entry["dtype"] == "BF16" and name.startswith(("layers.", "constants."))
        tensors[name] = _read_tensor(file, begin, where, name, entry, is_narrow)
    if is_saved:
        tensors = _with_scales(where, tensors)
    # Of several names for one tensor, safetensors.torch.save_model writes one, and puts the others here.
    aliases = {
        name: tensors[kept] for name, kept in metadata.items() if kept in tensors and name not in tensors
    }
    return tensors | aliases, metadata


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries = dict(pairs)
    if len(entries) < len(pairs):
        raise ValueError("a name twice")
    return entries


def _check_texts(metadata: Any) -> None:
    if not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError("metadata that is not text")


def _check_entries(entries: dict[str, dict[str, Any]], size: int) -> None:
    """Raise ValueError unless the tensors cover all `size` bytes of data, each byte once."""
    place = 0
    for begin, end, name in sorted((*entry["data_offsets"], name) for name, entry in entries.items()):
        if type(begin) is not int or type(end) is not int or not place == begin <= end <= size:
            raise ValueError(f"{brief(name)} from byte {brief(begin)} to {brief(end)}")
        place = end
        entry = entries[name]
        shape, dtype = entry["shape"], DTYPES.get(entry["dtype"])
        if not isinstance(shape, list) or not is_shape(shape):
            raise ValueError(f"a shape that fits in memory, not {brief(str(shape)[:80])}")
        if dtype is not None and prod(shape) * itemsize(dtype) != end - begin:
            raise ValueError(f"{end - begin} bytes for {brief(name)} of shape {brief(str(shape))}")
    if place != size:
        raise ValueError(f"tensors of {place} bytes in a file with {size}")


def _read_tensor(
    file: BoundedFile, data_begin: int, where: str, name: str, entry: dict[str, Any], is_narrow: bool
) -> Tensor:
    """Read the tensor of one entry of the header. `data_begin` is where the data begins in the file.

    bfloat16 becomes float32 unless it `is_narrow`.
    """
    dtype, shape = DTYPES.get(entry["dtype"]), entry["shape"]
    if dtype is None:
        return Unread(f"a tensor of {brief(entry['dtype'])}")
    begin, end = entry["data_offsets"]
    file.seek(data_begin + begin)
    elements = np.empty(end - begin, np.uint8)
    if file.readinto(elements.data) != end - begin:
        raise FormatError(message(where, f"the {end - begin} bytes of {brief(name)}", "less"))
    if is_narrow and shape:
        return NarrowWeight("bfloat16", as_elements(elements, "uint16").reshape(shape))
    return as_elements(elements, dtype).reshape(shape)


def _with_scales(where: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put int8 weights of layers together with the scales beside them. Programs say which theirs are."""
    joined = dict(tensors)
    for name, tensor in tensors.items():
        scales = tensors.get(f"{name}.scale")
        if not isinstance(tensor, np.ndarray) or not isinstance(scales, np.ndarray):
            continue
        if tensor.dtype != np.int8 or not name.startswith("layers."):
            continue
        try:
            joined[name] = NarrowWeight("int8", tensor, scales)
        except ValueError as error:
            expected = f"int8 weights and scales that fit in {brief(name)}"
            raise FormatError(message(where, expected, f"others ({error})")) from error
        joined.pop(f"{name}.scale", None)
    return joined
