"""torch.save's files: the zip format, and the legacy format from before torch 1.6.

Both hold a pickle, whose tensors refer to storages by key, and the bytes of the storages. In the zip format
each storage is an entry. In the legacy format they follow one another at the end of the file. The tensors
that come out are TensorViews. Which of them are weights is not decided here.

Source: torch/serialization.py and torch/_utils.py (https://github.com/pytorch/pytorch).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np

from fastrnn.errors import FormatError, brief, message
from fastrnn.importers.archive import Archive
from fastrnn.importers.pickle_reader import read_pickle
from fastrnn.importers.source import BoundedFile
from fastrnn.importers.tensors import (
    DTYPES,
    OTHER_STORAGES,
    STORAGE_TYPES,
    Storage,
    TensorView,
    Unread,
    itemsize,
)
from fastrnn.importers.values import CALLS, Foreign, Name

if TYPE_CHECKING:
    from numpy.typing import NDArray

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
# Bytes of the pickle in a zip archive. It holds names, shapes and small values of the program, not the
# weights.
MAX_PICKLE = 256 * 2**20
# torch stores the pickle without compression. Other programs that compress it make it several times smaller;
# a pickle that was built to cost memory shrinks a thousand times.
MAX_PICKLE_RATIO = 20
FREE_PICKLE = 2**18

Reader: TypeAlias = "Callable[[], tuple[NDArray[np.uint8], str]]"
Tensor: TypeAlias = TensorView | Unread


# ---------------------------------------------------------------- functions that torch's pickles call


def _rebuild_tensor(storage: object, offset: Any, size: object, stride: object) -> Tensor:
    if isinstance(storage, Unread):
        return storage
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return TensorView(storage, offset, _numbers(size), _numbers(stride), storage.dtype)


def _numbers(values: object) -> tuple[Any, ...]:
    """Return sizes or strides as a tuple of limited length. `TensorView` checks each of them later."""
    if not isinstance(values, (tuple, list)) or len(values) > 64:
        raise ValueError(f"the sizes {brief(values)}")
    return tuple(values)


def _rebuild_tensor_v2(
    storage: object,
    offset: Any,
    size: object,
    stride: object,
    _grad: object = None,
    _hooks: object = None,
    metadata: object = None,
) -> Tensor:
    return _flagged(_rebuild_tensor(storage, offset, size, stride), metadata)


def _flagged(view: Tensor, metadata: object) -> Tensor:
    """Apply torch's flags to a tensor. "neg" flags a view whose elements are to be negated."""
    if not metadata or isinstance(view, Unread):
        return view
    flags = (
        {str(name) for name, is_set in metadata.items() if is_set} if isinstance(metadata, dict) else {"?"}
    )
    if flags <= {"neg"}:
        return replace(view, is_negated="neg" in flags)
    return Unread(f"a tensor with the unknown flag {brief(min(flags - {'neg'}))}")


def _rebuild_tensor_v3(
    storage: object,
    offset: Any,
    size: object,
    stride: object,
    _grad: object,
    _hooks: object,
    dtype: object,
    metadata: object = None,
) -> Tensor:
    view = _rebuild_tensor(storage, offset, size, stride)
    name = dtype.text if isinstance(dtype, Name) else "no dtype"
    if isinstance(view, Unread):
        return view
    if name not in DTYPES:
        return Unread(f"a tensor of {name}")
    return _flagged(replace(view, dtype=DTYPES[name]), metadata)


def _rebuild_quantised(
    storage: object, offset: Any, size: object, stride: object, quantiser: object, *_: object
) -> Tensor:
    """Return a tensor of integers with one scale and zero point, or with one of each along an axis."""
    view = _rebuild_tensor(storage, offset, size, stride)
    if isinstance(view, Unread):
        return view
    scheme, *values = quantiser if isinstance(quantiser, tuple) and quantiser else (None,)
    name = scheme.text if isinstance(scheme, Name) else brief(scheme)
    match name, values:
        case "torch.per_tensor_affine", [float(scale), int(zero_point)] if zero_point.bit_length() < 32:
            return replace(view, scale=scale, zero_point=zero_point)
        case (
            "torch.per_channel_affine" | "torch.per_channel_affine_float_qparams",
            [TensorView(scale=None) as scales, TensorView(scale=None) as zero_points, int(axis)],
        ):
            return replace(view, scale=scales, zero_point=zero_points, axis=axis)
    return Unread(f"a tensor quantised by {name}")


def _rebuild_as_it_is(data: object, *_: object) -> object:
    """Return the tensor of a parameter, or of a device from which torch copies it before it writes."""
    return data


def _rebuild_from_type(function: object, kind: object, arguments: object, *_: object) -> object:
    """Return the tensor alone of one of a subclass, or of one with attributes."""
    known = FUNCTIONS.get(function.text) if isinstance(function, Name) else None
    if known is not None and known is not _rebuild_from_type and isinstance(arguments, tuple):
        return known(*arguments)
    return Unread(f"a tensor of {f'the class {kind.text}' if isinstance(kind, Name) else 'an unknown class'}")


def _unread(what: str) -> Callable[..., Unread]:
    return lambda *_: Unread(what)


FUNCTIONS: dict[str, Callable[..., object]] = {
    "collections.OrderedDict": CALLS["collections.OrderedDict"],
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor_v2,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_qtensor": _rebuild_quantised,
    "torch._utils._rebuild_parameter": _rebuild_as_it_is,
    "torch._utils._rebuild_parameter_with_state": _rebuild_as_it_is,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _rebuild_as_it_is,
    "torch._utils._rebuild_device_tensor_from_numpy": _rebuild_as_it_is,
    "torch._utils._rebuild_xla_tensor": _rebuild_as_it_is,
    "torch._utils._rebuild_sparse_tensor": _unread("a sparse tensor"),
    "torch._utils._rebuild_sparse_csr_tensor": _unread("a sparse tensor"),
    "torch._utils._rebuild_nested_tensor": _unread("a nested tensor"),
    "torch._utils._rebuild_meta_tensor_no_storage": _unread('a tensor on the device "meta", without numbers'),
    "torch._utils._rebuild_wrapper_subclass": _unread("a tensor of a subclass"),
    "torch._tensor._rebuild_from_type": _rebuild_from_type,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": lambda sizes=(): _numbers(sizes),
}


class _Storages:
    """Makes the storages that a pickle refers to, each once."""

    def __init__(self, reader_of: Callable[[str, int, int], Reader]) -> None:
        self.reader_of = reader_of  # (key, bytes, elements) -> what reads the storage when it is called
        self.by_key: dict[str, Storage] = {}
        self.declared: dict[str, tuple[str, int]] = {}  # key -> type and number of elements

    def __call__(self, persistent_id: object) -> object:
        """Return the Storage of a persistent id: ('storage', type, key, location, count, ...)."""
        if not isinstance(persistent_id, tuple) or not 2 <= len(persistent_id) <= 8:
            raise ValueError(f"the persistent id {brief(persistent_id)}")
        if persistent_id[0] == "module":  # a whole module in the legacy format: this is its class
            return persistent_id[1]
        tag, kind, key, _, count, *view = persistent_id
        if tag != "storage":
            raise ValueError(f"the persistent id {brief(tag)}")
        name = kind.text.rpartition(".")[2] if isinstance(kind, Name) else "no storage"
        if type(count) is not int or not 0 <= count < 2**62 or not isinstance(key, (str, int)):
            raise ValueError(f"a storage {brief(key)} of {brief(count)} elements")
        key = str(key)
        if self.declared.setdefault(key, (name, count)) != (name, count):
            raise ValueError(f"the storage {brief(key)} of two kinds or sizes")
        if name not in STORAGE_TYPES:
            self.reader_of(key, count * OTHER_STORAGES.get(name, 1), count)
            return Unread(f"a tensor on torch.{name}")
        if key not in self.by_key:
            dtype = STORAGE_TYPES[name]
            self.by_key[key] = Storage(dtype, count, self.reader_of(key, count * itemsize(dtype), count))
        whole = self.by_key[key]
        return whole if not view or view[0] is None else _part(whole, view[0])


def _part(storage: Storage, view: object) -> Storage:
    """Return a part (key, offset, count) of a storage. Files of torch 0.1 have such parts."""
    match view:
        case (_, int(offset), int(count)) if 0 <= offset <= offset + count <= storage.count:
            return storage.part(offset, count)
    raise ValueError(f"the part {brief(view)} of a storage")


def _check_size(where: str, key: str, wanted: int, there: int) -> None:
    if there < wanted:
        expected = f"{wanted} bytes in the storage {brief(key)}"
        hint = "The file is damaged or cut short."
        raise FormatError(message(where, expected, str(there), hint))


# ---------------------------------------------------------------- the zip format


def read_zip(archive: Archive, where: str) -> Any:
    """Read the object in an archive of torch's zip format.

    Its tensors are TensorViews. Their arrays can be made while the archive is open.

    Raises
    ------
    FormatError
        The archive is damaged or hostile.
    """
    roots = [
        name.removesuffix("data.pkl")
        for name in archive.sizes
        if name.endswith("/data.pkl") or name == "data.pkl"
    ]
    if len(roots) != 1:
        raise FormatError(message(where, "one data.pkl", f"{len(roots)}"))
    root = roots[0]
    byteorder = "little"
    if f"{root}byteorder" in archive.sizes:
        byteorder = bytes(archive.read(f"{root}byteorder", limit=16)).decode("ascii", "replace")
    if byteorder not in ("little", "big"):
        raise FormatError(message(where, "byteorder to be little or big", brief(byteorder)))

    def reader_of(key: str, size: int, count: int) -> Reader:
        name = f"{root}data/{key}"

        def read() -> tuple[NDArray[np.uint8], str]:
            if name not in archive.sizes:
                raise FormatError(message(where, f"an entry {brief(name)}", "none", "The file is damaged."))
            _check_size(where, key, size, archive.sizes[name])
            return archive.read(name), byteorder

        return read

    limit = min(MAX_PICKLE, FREE_PICKLE + MAX_PICKLE_RATIO * archive.packed(f"{root}data.pkl"))
    pickle = io.BytesIO(archive.read(f"{root}data.pkl", limit=limit).data)
    return read_pickle(pickle, where, FUNCTIONS, _Storages(reader_of))


# ---------------------------------------------------------------- the legacy format


def read_legacy(file: BoundedFile, where: str) -> Any:
    """Read the object in a legacy file.

    Its tensors are TensorViews. Their arrays can be made while the file is open.

    Raises
    ------
    FormatError
        The file is damaged or hostile.
    """
    pickles = cast("IO[bytes]", file)

    def read_plain() -> Any:
        return read_pickle(pickles, where, {}, lambda _: Foreign("a persistent object"))

    if read_plain() != LEGACY_MAGIC or read_plain() != LEGACY_PROTOCOL:
        raise FormatError(message(where, "a torch file of protocol 1001", "another"))
    read_plain()  # the system that wrote it; elements are little-endian on every one

    wanted: dict[str, tuple[int, int]] = {}  # key -> bytes and elements
    extents: dict[str, tuple[int, int]] = {}  # key -> offset of its first byte, and bytes

    def reader_of(key: str, size: int, count: int) -> Reader:
        wanted[key] = (size, count)

        def read() -> tuple[NDArray[np.uint8], str]:
            begin, size = extents[key]
            data = np.empty(size, np.uint8)
            file.seek(begin)
            _check_size(where, key, size, file.readinto(data.data))
            return data, "little"

        return read

    found = read_pickle(pickles, where, FUNCTIONS, _Storages(reader_of))
    keys = read_plain()
    if not isinstance(keys, list) or not all(isinstance(key, (str, int)) for key in keys):
        raise FormatError(message(where, "a list of storage keys", brief(keys)))
    # Each storage is its number of elements, in 8 bytes, followed by the elements.
    offset = file.tell()
    for key in map(str, keys):
        if key not in wanted or key in extents:
            raise FormatError(message(where, "each storage once", f"{brief(key)}", "The file is damaged."))
        size, count = wanted[key]
        file.seek(offset)
        head = file.read(8)
        if len(head) < 8 or struct.unpack("<q", head)[0] != count:
            got = "another number, or the end of the file"
            raise FormatError(message(where, f"{count} elements in the storage {brief(key)}", got))
        begin = offset + 8
        offset = begin + size
        _check_size(where, key, size, file.size - begin)
        extents[key] = begin, size
    missing = [key for key in wanted if key not in extents]
    if missing:
        raise FormatError(message(where, f"a storage {brief(missing[0])}", "none", "The file is damaged."))
    return found
