"""What a file is that holds no weights which are read here: its kind by name, and what to do.

Formats are told by what a file begins with, in the order of the table.
"""

from fastrnn.errors import FormatError, brief, message
from fastrnn.importers.source import Source

EXPECTED = "a state_dict as .pt (zip or legacy), .safetensors or .npz"
RESAVE = 'With the program that made it, torch.save(model.state_dict(), "weights.pt").'
UNPACK = "Unpack it first."
DCP = (
    "In the program that made it: torch.distributed.checkpoint.format_utils."
    'dcp_to_torch_save(folder, "weights.pt").'
)
KERAS = (
    "Keras orders gates and axes in another way: bring its arrays into torch's order, and numpy.savez them."
)
# How much of a file tells its kind.
HEAD = 512

# Files of other kinds by their first bytes: (offset, bytes, what it is, hint).
_MAGIC = (
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras?)", KERAS),
    (0, b"\x93NUMPY", "a single NumPy array", "Weights are several arrays: numpy.savez."),
    (0, b"GGUF", "a GGUF file", RESAVE),
    (4, b"TFL3", "a TensorFlow Lite file", RESAVE),
    (4, b"ORTM", "an ONNX Runtime model (.ort)", RESAVE),
    (4, b"ET12", "an ExecuTorch program (.pte)", RESAVE),
    (257, b"ustar", "a tar archive", f"{UNPACK} (torch files of before 2017 are such archives, and hold a "
     f"whole pickled module. {RESAVE})"),
    (0, b"\x1f\x8b", "a gzip file", UNPACK),
    (0, b"BZh", "a bzip2 file", UNPACK),
    (0, b"\xfd7zXZ\x00", "an xz file", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd file", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (0, b"Rar!", "a RAR archive", UNPACK),
    (0, b"version https://git-lfs", "a Git LFS pointer, a note in place of the weights",
     "git lfs pull brings the file itself."),
    (0, b"PAR1", "a Parquet file", "fastrnn run takes one as input."),
    (0, b"%PDF", "a PDF file", ""),
)  # fmt: skip


def refuse_kind(source: Source, head: bytes) -> FormatError:
    """The error of a file that begins so."""
    kind, hint = _kind_of(head)
    if source.where == "bytes" and not hint:
        hint = "Bytes are the content of a file; give a path as a str."
    return FormatError(message(source.where, EXPECTED, kind, hint))


def refuse_name(source: Source) -> None:
    """Raise for the files of other programs that only their names tell."""
    if source.name.endswith(".distcp") or source.name == ".metadata":
        raise FormatError(
            message(source.where, EXPECTED, "a part of a checkpoint of torch.distributed (DCP)", DCP)
        )


def _kind_of(head: bytes) -> tuple[str, str]:
    """What a file that is not read seems to be, and a hint."""
    for offset, magic, kind, hint in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind, hint
    if not head:
        return "an empty file", ""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"<":
        if any(mark in text.lower() for mark in (b"<!doctype", b"<html", b"<head", b"<body", b"<script")):
            return "an HTML page", "A server answered with a page in place of the file: download it again."
        return "an XML file", ""
    if text[:1] in (b"{", b"["):
        if b'"weight_map"' in text:
            return (
                "an index of shards",
                "Give its path, or the folder, so that the shards beside it are found.",
            )
        return "a JSON file", "Make it a dict of arrays and pass that to from_state_dict."
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "a bare pickle", f"It is not torch.save's. {RESAVE}"
    # An ONNX model is a protobuf that begins with its version (field 1) and producer (field 2).
    if head[:1] == b"\x08" and head[2:3] in (b"\x12", b"\x1a", b"\x3a", b"\x42"):
        return "an ONNX model", RESAVE
    return "a file of no known kind", ""


def refuse_archive(where: str, names: list[str]) -> FormatError | None:
    """The error of a zip archive with these entries; None where it may be one that is read."""
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        hint = 'Where you have torch: torch.save(torch.jit.load(path).state_dict(), "weights.pt").'
        return FormatError(message(where, EXPECTED, "a TorchScript archive", hint))
    if any(name.endswith(("/data.pkl", ".npy")) or name == "data.pkl" for name in names):
        return None
    kind, hint = f"a zip of {len(names)} other entries", ""
    if any(name.endswith("model.weights.h5") for name in names):
        kind, hint = "a Keras file", KERAS
    elif any("serialized_exported_program" in name or "/models/" in name for name in names):
        kind, hint = "a torch.export archive", RESAVE
    elif any(name.endswith((".pth", ".pt", ".ckpt", ".safetensors")) for name in names):
        inner = next(n for n in names if n.endswith((".pth", ".pt", ".ckpt", ".safetensors")))
        kind, hint = f"a zip with {brief(inner)} in it", UNPACK
    return FormatError(message(where, EXPECTED, kind, hint))
