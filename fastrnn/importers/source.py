"""What importers read from: a file given by its path, or the content of one in memory.

No format is known here. What a file holds is decided in `fastrnn.importers`.
"""

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeAlias

from fastrnn.checks import check_file_name, check_regular
from fastrnn.errors import brief, message, printable

# A path, the content of a file, or an object with read() that is open for reading bytes.
FileLike: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | IO[bytes]


class Source:
    """A file or its content, which can be opened any number of times.

    Attributes
    ----------
    where : str
        Its name in messages, on one line.
    path : str or None
        Where to open it. None if its content is in memory.
    name : str
        The name of the file without folders; "" if unknown.
    origin : str or None
        The path that it was given or opened by, which tells what lies beside it. None if unknown.

    Raises
    ------
    TypeError
        `file` is no path, content or file, or is a file in text mode.
    OSError
        `file` could not be read.
    """

    def __init__(self, file: FileLike) -> None:
        self.path: str | None = None
        self.origin: str | None = None
        self.name = ""
        self._content: bytes | memoryview = b""
        if isinstance(file, (bytes, bytearray, memoryview)):
            self.where = "bytes"
            self._content = _whole(file)
        elif hasattr(file, "read"):
            name = getattr(file, "name", "")  # the path of an open file, or a number if it has none
            self.origin = name if isinstance(name, str) and os.path.isfile(name) else None
            self.name = os.path.basename(name) if isinstance(name, str) else ""
            self.where = printable(self.name) or "file"
            self._content = _read_whole(file, self.where)
        elif isinstance(file, (str, os.PathLike)):
            self.path = self.origin = os.fsdecode(file)
            self.name = os.path.basename(os.path.normpath(self.path))
            self.where = printable(self.name)
        else:
            expected = "a path, bytes, or a file that is open for reading bytes"
            raise TypeError(message("file", expected, brief(file)))

    @property
    def is_folder(self) -> bool:
        """Whether this is the path of a folder."""
        return self.path is not None and os.path.isdir(self.path)

    def open(self) -> "BoundedFile":
        """Open it for reading, at its beginning.

        Raises
        ------
        FormatError
            The path is that of a pipe or a device.
        OSError
            The file does not exist or cannot be read.
        """
        path = self.path
        if path is None:
            return BoundedFile(self.where, lambda: io.BytesIO(self._content))
        check_file_name(path)
        check_regular(self.where, path)
        return BoundedFile(self.where, lambda: open(path, "rb"))

    def __repr__(self) -> str:
        return self.where


def _whole(content: bytes | bytearray | memoryview) -> bytes | memoryview:
    """Return content in memory as contiguous bytes."""
    if isinstance(content, memoryview) and not content.c_contiguous:
        return content.tobytes()
    return content if isinstance(content, bytes) else memoryview(content).cast("B")


def _read_whole(file: Any, where: str) -> bytes:
    content = file.read()
    if isinstance(content, str):
        hint = 'Open it with open(path, "rb").'
        raise TypeError(
            message(where, "a file that is open for reading bytes", "one that is open as text", hint)
        )
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise OSError(errno.EIO, f"The file gave {brief(content)} instead of bytes", where)
    return bytes(content)


class BoundedFile:
    """An open binary file that never reads beyond the size it had when it was opened.

    So a size that the file itself claims can be asked for without allocating it first. If another program
    shortens the file meanwhile, reads return less, as at the end of any file. The file is open from the
    start. After `close` it can be opened again with `reopened`.
    """

    def __init__(self, where: str, open_file: Callable[[], IO[bytes]]) -> None:
        self.where = where
        self._open_file = open_file
        self._file = open_file()
        self.closed = False
        self.size = self._file.seek(0, os.SEEK_END)
        self._file.seek(0)
        self._identity = _identity_of(self._file)

    @contextlib.contextmanager
    def reopened(self) -> Iterator[None]:
        """Open the file again for the block if it is closed.

        Raises
        ------
        OSError
            The file cannot be opened, or was changed or replaced meanwhile.
        """
        if not self.closed:
            yield
            return
        with self._open_file() as self._file:
            if _identity_of(self._file) != self._identity:
                raise OSError(errno.ESTALE, "The file changed after it was loaded", self.where)
            self.closed = False
            try:
                yield
            finally:
                self.closed = True

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(0, self.size - self._file.tell())
        return self._file.read(left if size is None or size < 0 else min(size, left))

    def readline(self, size: int | None = -1, /) -> bytes:
        return self._file.readline(-1 if size is None else size)

    def readinto(self, buffer: Any, /) -> int:
        data = memoryview(buffer).cast("B")
        count: int = self._file.readinto(data[: max(0, self.size - self._file.tell())])  # type: ignore[attr-defined]
        return count

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self.closed = True
        self._file.close()

    def __enter__(self) -> "BoundedFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _identity_of(file: IO[bytes]) -> tuple[int, ...]:
    """Return what differs between two files, and when a file changes. () for content in memory."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # io.UnsupportedOperation: the content is in memory
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
