"""From files and live modules to arrays and specifications.

Here lives everything that reads what others wrote: weights in files of every format, live torch modules, and
layers written as text. What comes out is a `StateDict` of arrays or a list of `LayerSpec`s. Whatever a file
says about itself is checked here, since files come from anyone. Nothing here ever runs code from a file,
makes a layer or writes a file, and only `torch_capture` imports torch. The modules, in the order of reading:

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
    file_formats       which format a file has, and its reader
    architecture       the layers of a state dict, if they are plain
    expression         the layers of a text
    torch_module       the layers of a live torch module
    torch_capture/     the graph of any live torch module

A new format is one module here and a branch in `file_formats`.
"""

from fastrnn.checks import check_text
from fastrnn.importers.source import FileLike, Source
from fastrnn.importers.state_dict import StandIn, StateDict

__all__ = ["FileLike", "Source", "StandIn", "StateDict", "load_state_dict", "read_stored"]


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
    return read_stored(file, key).widened()


def read_stored(file: FileLike | Source, key: str | None = None) -> StateDict:
    """Read the weights of a file as `load_state_dict` does. Narrow ones that `save` wrote stay narrow."""
    if key is not None:
        check_text("load_state_dict", "key", key)
    # Late: what reads files takes 10 ms to import, and many programs bring their own arrays.
    from fastrnn.importers.file_formats import read_state_dict

    return read_state_dict(file if isinstance(file, Source) else Source(file), key)
