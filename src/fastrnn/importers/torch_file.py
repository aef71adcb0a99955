"""torch.save's files: the zip format, and the legacy one from before torch 1.6.

Both hold one pickle, whose tensors point at storages by key, and the bytes of the storages:
a zip entry each, or one behind the other at the end of the file.
Source: torch/serialization.py (https://github.com/pytorch/pytorch).
"""

import io
import mmap
import struct
from collections.abc import Callable, Iterable
from typing import IO, Any, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from fastrnn.errors import FormatError, brief, message
from fastrnn.importers.archive import Archive
from fastrnn.importers.pickle_reader import Name, StandIn, is_plain_key, read_pickle
from fastrnn.importers.tensors import (
    DTYPES,
    STORAGE_TYPES,
    Storage,
    TensorView,
    itemsize,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
# The pickle in a zip: names, shapes and a program's own small things, not the weights.
MAX_PICKLE = 64 * 2**20

Reader: TypeAlias = Callable[[], tuple[NDArray[np.uint8], str]]


# ---------------------------------------------------------------- the functions that torch's pickles call


def _rebuild_tensor(
    storage: object, offset: Any, size: object, stride: object, *_: object
) -> TensorView | StandIn:
    if isinstance(storage, StandIn):
        return storage
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return TensorView(storage, offset, _numbers(size), _numbers(stride), storage.dtype)


def _numbers(values: object) -> tuple[Any, ...]:
    """Sizes or strides as a tuple, not too many of them; what each is, is checked later."""
    if not isinstance(values, (tuple, list)) or len(values) > 64:
        raise ValueError(f"the sizes {brief(values)}")
    return tuple(values)


def _rebuild_tensor_v3(
    storage: object,
    offset: Any,
    size: object,
    stride: object,
    _grad: object,
    _hooks: object,
    dtype: object,
    *_: object,
) -> TensorView | StandIn:
    view = _rebuild_tensor(storage, offset, size, stride)
    name = dtype.text if isinstance(dtype, Name) else "no dtype"
    if name not in DTYPES or isinstance(view, StandIn):
        return StandIn(f"a tensor of {name}")
    view.dtype = DTYPES[name]
    return view


def _rebuild_parameter(data: object, *_: object) -> object:
    return data


def _rebuild_from_type(function: object, kind: object, arguments: object, *_: object) -> object:
    """A tensor of a subclass, or with attributes: the tensor alone."""
    known = FUNCTIONS.get(function.text) if isinstance(function, Name) else None
    if known is not None and known is not _rebuild_from_type and isinstance(arguments, tuple):
        return known(*arguments)
    return StandIn(kind.text if isinstance(kind, Name) else "tensor subclass")


def _ordered_dict(items: Iterable[Any] = ()) -> dict[str | int, Any]:
    result = {}
    for key, value in items:
        if not isinstance(key, (str, int)) or not is_plain_key(key):
            raise ValueError("a key that is no text")
        result[key] = value
    return result


FUNCTIONS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": _ordered_dict,
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": lambda sizes=(): _numbers(sizes),
}


class _Storages:
    """The storages that a pickle names, each once."""

    def __init__(self, reader_of: Callable[[str, str, int], Reader]) -> None:
        self.reader_of = reader_of  # (key, dtype, count) -> () -> uint8 array
        self.by_key: dict[str, Storage] = {}

    def __call__(self, persistent_id: object) -> object:
        """From ('storage', type, key, location, count, ...) to its Storage."""
        if not isinstance(persistent_id, tuple) or not 2 <= len(persistent_id) <= 8:
            raise ValueError(f"the persistent id {brief(persistent_id)}")
        if persistent_id[0] == "module":  # of a legacy whole module: the class itself
            return persistent_id[1]
        tag, kind, key, _, count, *view = persistent_id
        if tag != "storage":
            raise ValueError(f"the persistent id {brief(tag)}")
        name = kind.text.rpartition(".")[2] if isinstance(kind, Name) else "no storage"
        if name not in STORAGE_TYPES:
            return StandIn(f"a tensor on torch.{name}")
        if type(count) is not int or not 0 <= count < 2**62 or not isinstance(key, (str, int)):
            raise ValueError(f"a storage {brief(key)} of {brief(count)} elements")
        if view and view[0] is not None:
            raise ValueError("a storage that is a view of another, as in torch 0.1")
        key = str(key)
        if key not in self.by_key:
            dtype = STORAGE_TYPES[name]
            self.by_key[key] = Storage(dtype, count, self.reader_of(key, dtype, count))
        return self.by_key[key]


def _check_size(where: str, key: str, wanted: int, there: int) -> None:
    if there < wanted:
        expected = f"{wanted} bytes in the storage {brief(key)}"
        hint = "The file is damaged or cut short."
        raise FormatError(message(where, expected, str(there), hint))


# ---------------------------------------------------------------- zip


def read_zip(archive: Archive, where: str) -> Any:
    """Read the object in an archive of torch's zip format.

    Its tensors are TensorViews, to be made into arrays while the archive is open.
    """
    roots = [name.removesuffix("data.pkl") for name in archive.sizes if name.endswith("/data.pkl")]
    if len(roots) != 1:
        raise FormatError(message(where, "one data.pkl", f"{len(roots)}"))
    root = roots[0]
    byteorder = "little"
    if f"{root}byteorder" in archive.sizes:
        byteorder = bytes(archive.read(f"{root}byteorder", limit=16)).decode("ascii", "replace")
    if byteorder not in ("little", "big"):
        raise FormatError(message(where, "byteorder to be little or big", brief(byteorder)))

    def reader_of(key: str, dtype: str, count: int) -> Reader:
        name = f"{root}data/{key}"
        if name not in archive.sizes:
            raise FormatError(message(where, f"an entry {brief(name)}", "none", "The file is damaged."))
        _check_size(where, key, count * itemsize(dtype), archive.sizes[name])
        return lambda: (archive.read(name), byteorder)

    pickle = io.BytesIO(archive.read(f"{root}data.pkl", limit=MAX_PICKLE).data)
    return read_pickle(pickle, where, FUNCTIONS, _Storages(reader_of))


# ---------------------------------------------------------------- legacy


def read_legacy(data: mmap.mmap, where: str) -> Any:
    """Read the object in a legacy file, given as a memory map.

    Its tensors are TensorViews, to be made into arrays while the map is open.
    """

    file = cast("IO[bytes]", data)

    def read_plain() -> Any:
        return read_pickle(file, where, {}, lambda _: StandIn("a persistent object"))

    if read_plain() != LEGACY_MAGIC or read_plain() != LEGACY_PROTOCOL:
        raise FormatError(message(where, "a torch file of protocol 1001", "another"))
    system = read_plain()
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise FormatError(message(where, "a little-endian torch file", "another"))

    wanted: dict[str, tuple[str, int]] = {}
    places: dict[str, slice] = {}

    def reader_of(key: str, dtype: str, count: int) -> Reader:
        wanted[key] = (dtype, count)
        return lambda: (np.frombuffer(bytearray(data[places[key]]), np.uint8), "little")

    found = read_pickle(file, where, FUNCTIONS, _Storages(reader_of))
    keys = read_plain()
    if not isinstance(keys, list) or not all(isinstance(key, (str, int)) for key in keys):
        raise FormatError(message(where, "a list of storage keys", brief(keys)))
    # Each storage is its count of elements, in 8 bytes, and the elements.
    place = data.tell()
    for key in map(str, keys):
        if key not in wanted or key in places:
            raise FormatError(message(where, "each storage once", f"{brief(key)}", "The file is damaged."))
        dtype, count = wanted[key]
        head = data[place : place + 8]
        if len(head) < 8 or struct.unpack("<q", head)[0] != count:
            got = "another count, or the end"
            raise FormatError(message(where, f"{count} elements in the storage {brief(key)}", got))
        begin = place + 8
        place = begin + count * itemsize(dtype)
        _check_size(where, key, count * itemsize(dtype), len(data) - begin)
        places[key] = slice(begin, place)
    missing = [key for key in wanted if key not in places]
    if missing:
        raise FormatError(message(where, f"a storage {brief(missing[0])}", "none", "The file is damaged."))
    return found
