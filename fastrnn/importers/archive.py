"""Zip archives from untrusted sources, read within bounds.

What the entries mean is not known here. The formats are in `torch_file` and `numpy_file`.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from fastrnn.errors import FormatError, brief, message
from fastrnn.importers.source import BoundedFile

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from typing_extensions import Self

# torch and numpy.savez store without compression. savez_compressed makes weights 10 % smaller, pruned weights
# several times, and arrays of zeros a thousand times. An archive that unpacks to more than MAX_RATIO times
# its size, plus FREE_BYTES, is an attack on memory.
MAX_RATIO = 20
FREE_BYTES = 16 * 2**20


class Archive:
    """A zip file whose entries together are not much larger than the file.

    `sizes` maps the name of each entry to its size in bytes. Use the archive as a context manager. It closes
    the file only if it was given a path. A BoundedFile stays with its owner, and entries can be read again
    whenever the owner has reopened it.

    Raises
    ------
    FormatError
        The archive is damaged or hostile.
    OSError
        The file cannot be read.
    """

    def __init__(self, file: str | BoundedFile, where: str) -> None:
        self.where = where
        self._is_own = isinstance(file, str)
        try:
            self._zip = zipfile.ZipFile(cast("str | IO[bytes]", file))
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
            got = f"a damaged one ({error})"
            hint = "It may be cut short. Copy or download it again."
            raise FormatError(message(where, "a whole zip archive", got, hint)) from error
        try:
            self._check(os.path.getsize(file) if isinstance(file, str) else file.seek(0, os.SEEK_END))
        except BaseException:
            self._zip.close()
            raise

    def _check(self, file_size: int) -> None:
        entries = self._zip.infolist()
        packed = sum(entry.compress_size for entry in entries)
        unpacked = sum(entry.file_size for entry in entries)
        if packed > file_size:
            got = f"{packed} bytes of entries in a file of {file_size}"
            raise FormatError(message(self.where, "entries that do not overlap", got))
        if unpacked > FREE_BYTES + MAX_RATIO * file_size:
            got = f"{unpacked} bytes from a file of {file_size}"
            hint = "It looks like a zip bomb."
            raise FormatError(message(self.where, "an archive of weights", got, hint))
        for entry in entries:
            if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
                got = f"{brief(entry.filename)}, encrypted or compressed in another way"
                raise FormatError(message(self.where, "entries stored or deflated", got))
            if entry.CRC == 0:
                # torch writes 0 if it computed none (torch.utils.serialization.config.save). zipfile would
                # compare with it.
                del entry.CRC
        self.sizes = {entry.filename: entry.file_size for entry in entries}
        if min((entry.header_offset for entry in entries), default=0):
            got = "something else before it"
            hint = "Several files were written into one."
            raise FormatError(message(self.where, "an archive at the beginning of the file", got, hint))
        if len(self.sizes) < len(entries):
            raise FormatError(message(self.where, "entries of different names", "one name twice"))

    def packed(self, name: str) -> int:
        """Return the number of bytes that an entry takes in the file."""
        return self._zip.getinfo(name).compress_size

    def read(self, name: str, limit: int | None = None) -> NDArray[np.uint8]:
        """Return the content of an entry as a writable uint8 array.

        Raises
        ------
        FormatError
            The entry is damaged, or longer than `limit` bytes.
        """
        size = self.sizes[name]
        if limit is not None and size > limit:
            raise FormatError(message(self.where, f"{brief(name)} of at most {limit} bytes", str(size)))
        data = np.empty(size, np.uint8)
        filled = 0
        try:
            with cast("zipfile.ZipExtFile", self._zip.open(name)) as entry:
                while filled < size:
                    count = entry.readinto(data.data[filled:])
                    if not count:
                        raise EOFError(f"{filled} bytes of {size}")
                    filled += count
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            RuntimeError,
            ValueError,
        ) as error:
            got = f"a damaged one ({error})"
            raise FormatError(message(self.where, f"a whole entry {brief(name)}", got)) from error
        return data

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_own:
            self._zip.close()
