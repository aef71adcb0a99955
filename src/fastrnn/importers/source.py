"""What is read: a file by its path, or the content of one in memory."""

import errno
import io
import os
from typing import IO, Any, TypeAlias

from fastrnn.errors import brief, check_regular, message, printable

# A path; a file's content; or an object with read(), open for reading bytes.
FileLike: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


class Source:
    """A file or its content, to be opened as often as need be.

    Attributes
    ----------
    where : str
        Its name in messages, on one line.
    path : str or None
        None: it lies in memory.
    name : str
        The file's own name, without folders; "" where none is known.
    """

    def __init__(self, file: FileLike) -> None:
        self.path: str | None = None
        self.name = ""
        self._content: bytes | memoryview = b""
        if isinstance(file, (bytes, bytearray, memoryview)):
            self.where = "bytes"
            self._content = file if isinstance(file, bytes) else memoryview(file).cast("B")
        elif hasattr(file, "read"):
            name = getattr(file, "name", "")  # of an open file its path; a number where it has none
            self.name = os.path.basename(name) if isinstance(name, str) else ""
            self.where = printable(self.name) or "file"
            self._content = _read_whole(file, self.where)
        elif isinstance(file, (str, os.PathLike)):
            self.path = os.fsdecode(file)
            self.name = os.path.basename(os.path.normpath(self.path))
            self.where = printable(self.name)
        else:
            expected = "a path, bytes, or a file that is open for reading bytes"
            raise TypeError(message("file", expected, brief(file)))

    @property
    def is_folder(self) -> bool:
        """Whether it is the path of a folder."""
        return self.path is not None and os.path.isdir(self.path)

    def open(self) -> "Window":
        """Open it for reading, at its beginning.

        Raises
        ------
        FormatError
            It is a pipe or a device.
        OSError
            It is not there, or may not be read.
        """
        if self.path is None:
            return Window(io.BytesIO(self._content))
        check_regular(self.where, self.path)
        return Window(open(self.path, "rb"))

    def __repr__(self) -> str:
        return self.where


def _read_whole(file: Any, where: str) -> bytes:
    content = file.read()
    if isinstance(content, str):
        hint = 'Open it with open(path, "rb").'
        raise TypeError(message(where, "a file that is open for reading bytes", "one of text", hint))
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise OSError(errno.EIO, f"A file that gave {brief(content)} in place of bytes", where)
    return bytes(content)


class Window(io.RawIOBase):
    """A binary file of which nobody reads more at once than there is, whatever number is asked for.

    A file that another program cuts short meanwhile gives less, as at its end.
    """

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file = file
        self.size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self._file.tell())
        return self._file.read(left if size is None or size < 0 else min(size, left))

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._file.readline(-1 if size is None else size)

    def readinto(self, buffer: Any, /) -> int:
        data = memoryview(buffer).cast("B")
        return self._file.readinto(data[: max(0, self.size - self._file.tell())])  # type: ignore[attr-defined, no-any-return]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()
