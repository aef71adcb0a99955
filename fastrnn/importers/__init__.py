"""From files and live modules to arrays and specifications.

Here lives everything that reads what others wrote: weights in files of every format, live torch modules, and
layers written as text. What comes out is a `StateDict` of arrays or a list of `LayerSpec`s. Whatever a file
says about itself is checked here, since files come from anyone. Nothing here ever runs code from a file,
imports torch, makes a layer or writes a file. The modules, in the order of reading:

    source             a path, bytes or an open file, and reads that stay within its size
    unsupported        files of kinds that are not read, each with what to do
    archive            zip archives, read within bounds
    numpy_file         .npz and .npy
    safetensors_file   safetensors
    tensors            storages and views of them, checked before an array is made
    values             what pickles hold besides tensors, as plain values or stand-ins
    dangerous_names    the callables for which a pickle is refused by name
    pickle_reader      pickles, read without importing or calling anything that they name
    torch_file         torch's zip and legacy formats
    parametrizations   parameters that training kept in parts, made whole
    parameters         the tensors of one module, checked, and the sizes that they give
    state_dict         StateDict: the arrays, and what else the file holds
    quantised          packed weights of dynamic quantisation, as plain tensors
    checkpoint_tree    what a checkpoint holds: paths of keys, and where the weights are
    checkpoint         which state dict of a checkpoint is read, and the rest
    cleaning           names without wrappers, whole parameters
    shards             models in several files, and folders
    architecture       the layers of a state dict, if they are plain
    expression         the layers of a text
    torch_module       the layers of a live torch module

A new format is one module here and a branch in `_read_file`.
"""

import re

from fastrnn.checks import check_text
from fastrnn.importers.archive import Archive
from fastrnn.importers.checkpoint import find_state_dict
from fastrnn.importers.cleaning import clean
from fastrnn.importers.numpy_file import read_npz
from fastrnn.importers.safetensors_file import read_safetensors
from fastrnn.importers.shards import is_index, read_whole, refuse_shard
from fastrnn.importers.source import BoundedFile, FileLike, Source
from fastrnn.importers.state_dict import StateDict
from fastrnn.importers.torch_file import read_legacy, read_zip
from fastrnn.importers.unsupported import HEAD, refuse_archive, refuse_name, unsupported_error
from fastrnn.importers.values import StandIn

__all__ = ["FileLike", "Source", "StandIn", "StateDict", "load_state_dict"]

# The number at the beginning of a legacy file, as written by protocols 0 and 1, 2 and 3, and 4 and 5.
LEGACY_HEADS = re.compile(
    rb"L119547037146038801333356L\n\.|\x80[\x02\x03]\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.|"
    rb"\x80[\x04\x05]\x95.{8}\x8a\n\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19\.",
    re.DOTALL,
)
# The beginning of an entry, or of the end of an archive without entries.
ZIP_HEADS = (b"PK\x03\x04", b"PK\x05\x06")


def load_state_dict(file: FileLike | Source, key: str | None = None) -> StateDict:
    """Read the weights of a file, without torch and without running code from it.

    Parameters
    ----------
    file : path, bytes, or file open for reading bytes
        In torch's zip or legacy format, safetensors or npz, which are told apart by content, not by name.
        For a model in several files, the folder or its ``*.index.json``.
    key : str, optional
        The state dict to read from a checkpoint that holds several: a key, or a path of keys with dots
        between them; "" for the top. Usual keys (``state_dict``, ``model_state_dict``, ``model``, ...) are
        found without it.

    Returns
    -------
    StateDict
        A dict of ndarrays by torch's names. bfloat16, float8 and quantised tensors arrive as float32.
        Parameters that training kept in parts (weight norm, spectral norm, pruning, weight drop) are whole,
        as torch's ``eval()`` module would use them. A ``module.`` before every key is removed, and so is what
        torch.compile and FSDP put into keys. ``left_out`` holds everything else in the file. Tensors that
        share a storage share its memory.

    Raises
    ------
    FormatError
        The file is damaged, hostile, of another kind or only a part of a model. Or it holds no state dict, or
        several and no ``key`` was given.
    OSError
        The file does not exist or cannot be read.
    TypeError
        ``file`` is none of these, or ``key`` is not a str.

    Notes
    -----
    A state dict holds numbers. It does not say what ``forward()`` does with them, nor what a parametrization
    without parameters of its own does (one on top of weight norm, for example). Only an example from torch
    shows that something is missing; see `Sequential.verify`.

    Source: https://docs.pytorch.org/docs/stable/notes/serialization.html and
    https://huggingface.co/docs/safetensors
    """
    if key is not None:
        check_text("load_state_dict", "key", key)
    source = file if isinstance(file, Source) else Source(file)
    return clean(source.where, _read(source, key))


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
            with Archive(file, where) as archive:
                return _read_archive(archive, where, key, file)
        if LEGACY_HEADS.match(head):
            return find_state_dict(read_legacy(file, where), where, "torch legacy", key, file=file)
        # The first 8 bytes are the size of the header, which is far below 2^56. Text has no zero byte there.
        if head[7:9] == b"\x00{":
            tensors, metadata = read_safetensors(file, where)
            return find_state_dict(tensors, where, "safetensors", key, metadata)
    raise unsupported_error(source, head)


def _read_archive(archive: Archive, where: str, key: str | None, file: BoundedFile) -> StateDict:
    names = list(archive.sizes)
    refuse_archive(where, names)
    if any(name.endswith("/data.pkl") or name == "data.pkl" for name in names):
        return find_state_dict(read_zip(archive, where), where, "torch zip", key, file=file)
    return find_state_dict(read_npz(archive, where), where, "npz", key)
