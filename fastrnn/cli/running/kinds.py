"""The kinds of files that recordings come from and outputs go to, told by the extensions of their names."""

import os

from fastrnn.checks import check_regular
from fastrnn.errors import FormatError, message

NPY, NPZ, PARQUET = ".npy", ".npz", ".parquet"
KINDS = (NPY, NPZ, PARQUET)
KNOWN = f'a name that ends in {NPY}, {NPZ} or {PARQUET}, or "-"'
# The name of stdin among inputs, and of stdout as an output.
STDIO = "-"

NPY_MAGIC = b"\x93NUMPY"
# What the first bytes of a file say: (bytes, kind or "", what it is called).
CONTENTS = (
    (NPY_MAGIC, NPY, "a NumPy array (.npy)"),
    (b"PK", NPZ, "a zip archive (.npz)"),
    (b"PAR1", PARQUET, "a table (.parquet)"),
    (b"\x89HDF\r\n\x1a\n", "", "an HDF5 file"),
    (b"\x1f\x8b", "", "a file packed by gzip"),
    (b"", "", "a file of no known kind"),
)


def kind_of(path: str) -> str:
    """The kind of file that a name says: one of KINDS.

    Raises
    ------
    ValueError
        The name has another extension. The message lists those that are known.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending in KINDS:
        return ending
    where = os.path.basename(path)
    raise ValueError(message(where, KNOWN, f'the ending "{ending}"' if ending else "no ending"))


def check_input(path: str) -> str:
    """The kind of an input file, whose name and first bytes have to agree.

    Raises
    ------
    OSError
        The file does not exist or cannot be read.
    FormatError
        It is not a regular file, or does not hold what its name says.
    ValueError
        Its name has no known extension.
    """
    where = os.path.basename(path)
    check_regular(where, path)
    with open(path, "rb") as file:
        head = file.read(8)
    held, name = next((kind, name) for begin, kind, name in CONTENTS if head.startswith(begin))
    try:
        kind = kind_of(path)
    except ValueError as error:
        if not held:
            raise
        raise FormatError(f"{error} It holds {name}.") from None
    if held != kind:
        got = "an empty file" if not head else "a text" if head.isascii() and not held else name
        hint = f"Rename it so that it ends in {held}." if held else ""
        raise FormatError(message(where, f"what a {kind} file holds", got, hint))
    return kind
