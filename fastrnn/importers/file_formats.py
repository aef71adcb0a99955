"""Which format a file has, told by its content, and what its reader makes of it.

Each reader is imported with the first file of its format: that of torch's files, with the library for zip
archives, takes 6 ms, and a safetensors file needs none of it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from fastrnn.importers.checkpoint import find_state_dict
from fastrnn.importers.cleaning import clean
from fastrnn.importers.shards import is_index, read_whole, refuse_shard
from fastrnn.importers.source import BoundedFile, Source
from fastrnn.importers.state_dict import StateDict
from fastrnn.importers.unsupported import HEAD, refuse_archive, refuse_name, unsupported_error

if TYPE_CHECKING:
    from fastrnn.importers.archive import Archive

# The number at the beginning of a legacy file, as written by protocols 0 and 1, 2 and 3, and 4 and 5.
LEGACY_HEADS = (
    rb"(?s)L119547037146038801333356L\n\.|\x80[\x02\x03]\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.|"
    rb"\x80[\x04\x05]\x95.{8}\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\."
)
# The beginning of an entry, or of the end of an archive without entries.
ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")


def read_state_dict(source: Source, key: str | None) -> StateDict:
    """Read the weights of a file, a folder or an index. The errors are those of `load_state_dict`."""
    state_dict = _read(source, key)
    # In a file that `save` wrote, names are those of the model already.
    return state_dict if "fastrnn" in state_dict.metadata else clean(source.where, state_dict)


def _read(source: Source, key: str | None) -> StateDict:
    """Read a file, a folder or an index. Names stay as they are in the file."""
    if source.is_folder or (source.path is not None and is_index(_head(source))):
        whole = read_whole(source, lambda file: _read_file(file, key))
        if whole is not None:
            return whole
    refuse_name(source)
    refuse_shard(source)
    return _read_file(source, key)


def _head(source: Source) -> bytes:
    with source.open() as file:
        return file.read(HEAD)


def _read_file(source: Source, key: str | None) -> StateDict:
    """Read one file, whose format its first bytes give."""
    where = source.where
    with source.open() as file:
        head = file.read(HEAD)
        file.seek(0)
        if head.startswith(ZIP_HEADS):
            from fastrnn.importers.archive import Archive

            with Archive(file, where) as archive:
                return _read_archive(archive, where, key, file)
        if re.match(LEGACY_HEADS, head):
            from fastrnn.importers.torch_file import read_legacy

            return find_state_dict(read_legacy(file, where), where, "torch legacy", key, file=file)
        # The first 8 bytes are the size of the header, which is far below 2^56. Text has no zero byte there.
        if head[7:9] == b"\x00{":
            from fastrnn.importers.safetensors_file import read_safetensors

            tensors, metadata = read_safetensors(file, where)
            return find_state_dict(tensors, where, "safetensors", key, metadata)
    raise unsupported_error(source, head)


def _read_archive(archive: Archive, where: str, key: str | None, file: BoundedFile) -> StateDict:
    names = list(archive.sizes)
    refuse_archive(where, names)
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        from fastrnn.importers.torch_file import read_zip

        return find_state_dict(read_zip(archive, where), where, "torch zip", key, file=file)
    from fastrnn.importers.numpy_file import read_npz

    return find_state_dict(read_npz(archive, where), where, "npz", key)
