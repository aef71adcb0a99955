"""Files of kinds that are not read: what each is, and what to do with it.

A file is recognised by its first bytes, in the order of the table, or by the names of its entries if it is a
zip archive. Nothing of it is parsed.
"""

from fastrnn.errors import FormatError, brief, message
from fastrnn.importers.source import Source

EXPECTED = "a state_dict as .pt (zip or legacy), .safetensors or .npz"
RESAVE = 'In the program that made it, run torch.save(model.state_dict(), "weights.pt").'
UNPACK = "Unpack it first."
DCP = (
    "In the program that made it, run torch.distributed.checkpoint.format_utils."
    'dcp_to_torch_save(folder, "weights.pt").'
)
KERAS = (
    "Keras orders gates and axes differently. Bring its arrays into torch's order and save them with "
    "numpy.savez."
)
# This many bytes from the beginning of a file show what it is.
HEAD = 512

# Files of other kinds by their first bytes: (offset, bytes, what it is, hint).
_MAGIC = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras?)", KERAS),
    (0, b"\x93NUMPY", "a single NumPy array", "Save all arrays of the model by name with numpy.savez."),
    (0, b"GGUF", "a GGUF file", RESAVE),
    (4, b"TFL3", "a TensorFlow Lite file", RESAVE),
    (4, b"ORTM", "an ONNX Runtime model (.ort)", RESAVE),
    (4, b"ET12", "an ExecuTorch program (.pte)", RESAVE),
    (257, b"ustar", "a tar archive", f"{UNPACK} (If torch saved it before 2017, it holds a whole pickled "
     f"module. {RESAVE})"),
    (0, b"\x1f\x8b", "a gzip file", UNPACK),
    (0, b"BZh", "a bzip2 file", UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz file", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (0, b"version https://git-lfs", "a Git LFS pointer instead of the weights",
     "Run git lfs pull to get the file itself."),
    (0, b"PAR1", "a Parquet file", "fastrnn run takes one as input."),
    (0, b"%PDF", "a PDF file", ""),
)  # fmt: skip


def unsupported_error(source: Source, head: bytes) -> FormatError:
    """Return the error for a file that begins with `head`, which is none of the formats that are read."""
    kind, hint = _kind_of(head)
    if source.where == "bytes" and not hint:
        hint = "Bytes are the content of a file. Pass a path as a str."
    return FormatError(message(source.where, EXPECTED, kind, hint))


def refuse_name(source: Source) -> None:
    """Raise FormatError for files of other programs that only their names give away."""
    if source.name.endswith(".distcp") or source.name == ".metadata":
        raise FormatError(
            message(source.where, EXPECTED, "a part of a checkpoint of torch.distributed (DCP)", DCP)
        )


def _kind_of(head: bytes) -> tuple[str, str]:
    """Return what a file with this beginning seems to be, and a hint."""
    for offset, magic, kind, hint in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind, hint
    if not head:
        return "an empty file", ""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"<":
        if any(mark in text.lower() for mark in (b"<!doctype", b"<html", b"<head", b"<body", b"<script")):
            return "an HTML page", "The server sent a web page instead of the file. Download it again."
        return "an XML file", ""
    if text[:1] in (b"{", b"["):
        if b'"weight_map"' in text:
            return (
                "an index of shards",
                "Give its path, or the folder, so that the shards beside it are found.",
            )
        return "a JSON file", "Make it a dict of arrays and pass that to from_state_dict."
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "a bare pickle", f"torch.save did not write it. {RESAVE}"
    # An ONNX model is a protobuf that begins with its version (field 1) and producer (field 2).
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        return "an ONNX model", RESAVE
    return "a file of no known kind", ""


def refuse_archive(where: str, names: list[str]) -> None:
    """Raise FormatError for a zip archive whose entries show that it is of another kind."""
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        hint = 'With torch, run torch.save(torch.jit.load(path).state_dict(), "weights.pt").'
        raise FormatError(message(where, EXPECTED, "a TorchScript archive", hint))
    if any(name.endswith(("/data.pkl", ".npy")) or name == "data.pkl" for name in names):
        return
    kind, hint = f"a zip of {len(names)} other entries", ""
    if any(name.endswith("model.weights.h5") for name in names):
        kind, hint = "a Keras file", KERAS
    elif any("serialized_exported_program" in name or "/models/" in name for name in names):
        kind, hint = "a torch.export archive", RESAVE
    elif any(name.endswith((".pth", ".pt", ".ckpt", ".safetensors")) for name in names):
        inner = next(n for n in names if n.endswith((".pth", ".pt", ".ckpt", ".safetensors")))
        kind, hint = f"a zip with {brief(inner)} in it", UNPACK
    raise FormatError(message(where, EXPECTED, kind, hint))
