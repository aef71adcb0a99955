"""Files and live modules to arrays and specifications.

    archive            zip files, within bounds
    pickle_reader      pickles, without running anything
    tensors            views of storages, checked against the bytes that are there
    torch_file         torch's zip and legacy formats
    safetensors_file   safetensors
    numpy_file         npz
    checkpoint         the state dict in a nested checkpoint
    architecture       a state dict to the layers that it plainly makes
    torch_module       a live torch.nn module to its layers

A new format is one file here, and a line in `load_state_dict`.
"""

import mmap
import os

from fastrnn.errors import FormatError, check_regular, check_text, message
from fastrnn.importers.archive import Archive, is_archive
from fastrnn.importers.checkpoint import StateDict, find_state_dict
from fastrnn.importers.numpy_file import read_npz
from fastrnn.importers.safetensors_file import read_safetensors
from fastrnn.importers.torch_file import read_legacy, read_zip

__all__ = ["StateDict", "load_state_dict"]

EXPECTED = "a state_dict as .pt (zip or legacy), .safetensors or .npz"
LEGACY_HEAD = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."
RESAVE = 'With the program that made it, torch.save(model.state_dict(), "weights.pt").'

# Files of other kinds by their first bytes: (offset, bytes, what it is, hint).
OTHER_KINDS = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras?)", ""),
    (0, b"\x93NUMPY", "a single NumPy array", "Weights are several arrays: numpy.savez."),
    (0, b"GGUF", "a GGUF file", ""),
    (4, b"TFL3", "a TensorFlow Lite file", ""),
    (257, b"ustar", "a tar archive", "torch files of before 2017 are such archives, and hold a "
     f"whole pickled module. {RESAVE}"),
)  # fmt: skip


def load_state_dict(path: str | os.PathLike[str], key: str | None = None) -> StateDict:
    """Read the weights of a file, without torch and without running code from it.

    Parameters
    ----------
    path : str or path
        A file of torch's zip or legacy format, safetensors or npz; told apart by what is in
        it, not by its name.
    key : str, optional
        Where the state dict lies in a checkpoint that holds several: a key, or a path of keys
        with dots between them. The usual ones (``state_dict``, ``model_state_dict``,
        ``model``, ...) are found without it.

    Returns
    -------
    StateDict
        A dict of torch's names to ndarrays; bfloat16 arrives as float32. A ``module.`` (or
        torch.compile's ``_orig_mod.``) before every key is gone. ``left_out`` tells what else
        the file holds. Tensors that share a storage share its memory.

    Raises
    ------
    FormatError
        The file is damaged, hostile, or of another kind; or holds no state dict, or several.
    OSError
        The file is not there or cannot be read.
    TypeError
        ``path`` is no path, or ``key`` no text.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/notes/serialization.html and
    https://huggingface.co/docs/safetensors
    """
    path = os.fsdecode(path)
    where = os.path.basename(path)
    check_regular(where, path)
    if key is not None:
        check_text(where, "key", key)
    with open(path, "rb") as file:
        head = file.read(512)
    if head.startswith(b"PK\x03\x04") or (head and is_archive(path)):
        with Archive(path, where) as archive:
            return _read_archive(archive, where, key)
    if head.startswith(LEGACY_HEAD):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return find_state_dict(read_legacy(data, where), where, "torch legacy", key)
    # Its first 8 bytes are the size of a header far below 2^56, in which text has no zero byte.
    if head[7:9] == b"\x00{":
        tensors, metadata = read_safetensors(path, where)
        return find_state_dict(tensors, where, "safetensors", key, metadata)
    raise FormatError(message(where, EXPECTED, *_other_kind(head)))


def _read_archive(archive: Archive, where: str, key: str | None) -> StateDict:
    names = list(archive.sizes)
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        hint = 'Where you have torch: torch.save(torch.jit.load(path).state_dict(), "weights.pt").'
        raise FormatError(message(where, EXPECTED, "a TorchScript archive", hint))
    if any(name.endswith("/data.pkl") for name in names):
        return find_state_dict(read_zip(archive, where), where, "torch zip", key)
    if any(name.endswith(".npy") for name in names):
        return find_state_dict(read_npz(archive, where), where, "npz", key)
    if any(name.endswith("model.weights.h5") for name in names):
        raise FormatError(message(where, EXPECTED, "a Keras file"))
    if any("serialized_exported_program" in name or "/models/" in name for name in names):
        raise FormatError(message(where, EXPECTED, "a torch.export archive", RESAVE))
    raise FormatError(message(where, EXPECTED, f"a zip of {len(names)} other entries"))


def _other_kind(head: bytes) -> tuple[str, str]:
    """What a file that is not read seems to be, and a hint."""
    for offset, magic, kind, hint in OTHER_KINDS:
        if head[offset : offset + len(magic)] == magic:
            return kind, hint
    text = head.lstrip()
    if not head:
        return "an empty file", ""
    if text[:1] in (b"{", b"["):
        return "a JSON file", "Make it a dict of arrays and pass that to from_state_dict."
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "a bare pickle", f"It is not torch.save's. {RESAVE}"
    # An ONNX model is a protobuf that begins with its version (field 1) and producer (field 2).
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        return "an ONNX model", RESAVE
    return "a file of no known kind", ""
