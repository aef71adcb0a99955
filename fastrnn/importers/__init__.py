"""Files and live modules to arrays and specifications.

    source             a path, bytes or an open file, to be read
    archive            zip files, within bounds
    pickle_reader      pickles, without running anything; hostile: the callables with which they run code
    values             what a pickle holds beside tensors, as plain values
    tensors            views of storages, checked against the bytes that are there
    torch_file         torch's zip and legacy formats
    safetensors_file   safetensors
    numpy_file         npz
    kinds              files of other kinds, by name
    checkpoint         the state dict in a nested checkpoint, and the rest
    state_dict         what is given: arrays, and what else the file holds
    cleaning           whole parameters, names without wrappers
    quantised          packed weights of dynamic quantisation
    shards             models in several files, and folders
    architecture       a state dict to the layers that it plainly makes
    expression         layers that somebody wrote down
    torch_module       a live torch.nn module to its layers

A new format is one file here, and a line in `_read_file`.
"""

import re

from fastrnn.checks import check_text
from fastrnn.importers.archive import Archive
from fastrnn.importers.checkpoint import find_state_dict
from fastrnn.importers.cleaning import clean
from fastrnn.importers.kinds import HEAD, refuse_archive, refuse_kind, refuse_name
from fastrnn.importers.numpy_file import read_npz
from fastrnn.importers.safetensors_file import read_safetensors
from fastrnn.importers.shards import is_index, read_whole, refuse_shard
from fastrnn.importers.source import FileLike, Source, Window
from fastrnn.importers.state_dict import StateDict
from fastrnn.importers.torch_file import read_legacy, read_zip
from fastrnn.importers.values import StandIn

__all__ = ["FileLike", "Source", "StandIn", "StateDict", "load_state_dict"]

# The number that a legacy file begins with, as protocols 0 and 1 write it, 2 and 3, and those with frames.
LEGACY_HEADS = re.compile(
    rb"L119547037146038801333356L\n\.|\x80[\x02\x03]\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.|"
    rb"\x80[\x04\x05]\x95.{8}\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.",
    re.DOTALL,
)
# The first of an entry, or the end of an archive without any.
ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")


def load_state_dict(file: FileLike | Source, key: str | None = None) -> StateDict:
    """Read the weights of a file, without torch and without running code from it.

    Parameters
    ----------
    file : path, bytes, or file open for reading bytes
        torch's zip or legacy format, safetensors or npz; told apart by what is in it, not by its
        name. Of a model in several files the folder, or its ``*.index.json``.
    key : str, optional
        Where the state dict lies in a checkpoint that holds several: a key, or a path of keys
        with dots between them; "" for the top. The usual ones (``state_dict``, ``model_state_dict``,
        ``model``, ...) are found without it.

    Returns
    -------
    StateDict
        A dict of torch's names to ndarrays. bfloat16, float8 and quantised tensors arrive as float32.
        Parameters that training held in parts (weight norm, spectral norm, pruning, weight drop) are
        whole, as torch's ``eval()`` module would use them. A ``module.`` before every key is gone, and so
        is what torch.compile and FSDP put into keys. ``left_out`` has what else the file holds. Tensors
        that share a storage share its memory.

    Raises
    ------
    FormatError
        The file is damaged, hostile, of another kind or a part of a model; or holds no state dict, or
        several.
    OSError
        The file is not there or cannot be read.
    TypeError
        ``file`` is none of these, or ``key`` no text.

    Notes
    -----
    A state dict holds numbers, and not what ``forward()`` or a parametrization without numbers of its own
    does with them (one on top of weight norm, say): nothing shows that one was there. An example from torch
    does; see `Sequential.verify`.

    Source: https://docs.pytorch.org/docs/stable/notes/serialization.html and
    https://huggingface.co/docs/safetensors
    """
    if key is not None:
        check_text("load_state_dict", "key", key)
    source = file if isinstance(file, Source) else Source(file)
    return clean(source.where, _read(source, key))


def _read(source: Source, key: str | None) -> StateDict:
    """The state dict of a file, a folder or an index, its names as the file has them."""
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
    where = source.where
    with source.open() as file:
        head = file.read(HEAD)
        file.seek(0)
        if head.startswith(ZIP_HEADS):
            with Archive(file, where) as archive:
                return _read_archive(archive, where, key, file)
        if LEGACY_HEADS.match(head):
            return find_state_dict(read_legacy(file, where), where, "torch legacy", key, window=file)
        # Its first 8 bytes are the size of a header far below 2^56, in which text has no zero byte.
        if head[7:9] == b"\x00{":
            tensors, metadata = read_safetensors(file, where)
            return find_state_dict(tensors, where, "safetensors", key, metadata)
    raise refuse_kind(source, head)


def _read_archive(archive: Archive, where: str, key: str | None, file: Window) -> StateDict:
    names = list(archive.sizes)
    error = refuse_archive(where, names)
    if error is not None:
        raise error
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return find_state_dict(read_zip(archive, where), where, "torch zip", key, window=file)
    return find_state_dict(read_npz(archive, where), where, "npz", key)
