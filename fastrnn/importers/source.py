"""What is read: a file by its path, or the content of one in memory."""

import contextlib
import errno
import io
import os
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeAlias

from fastrnn.checks import check_name, check_regular
from fastrnn.errors import brief, message, printable

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
    place : str or None
        The path that it has or was opened by, to look for what lies beside it.
    """

    def __init__(self, file: FileLike) -> None:
        self.path: str | None = None
        self.place: str | None = None
        self.name = ""
        self._content: bytes | memoryview = b""
        if isinstance(file, (bytes, bytearray, memoryview)):
            self.where = "bytes"
            self._content = _whole(file)
        elif hasattr(file, "read"):
            name = getattr(file, "name", "")  # of an open file its path; a number where it has none
            self.place = name if isinstance(name, str) and os.path.isfile(name) else None
            self.name = os.path.basename(name) if isinstance(name, str) else ""
            self.where = printable(self.name) or "file"
            self._content = _read_whole(file, self.where)
        elif isinstance(file, (str, os.PathLike)):
            self.path = self.place = os.fsdecode(file)
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
        path = self.path
        if path is None:
            return Window(self.where, lambda: io.BytesIO(self._content))
        check_name(path)
        check_regular(self.where, path)
        return Window(self.where, lambda: open(path, "rb"))

    def __repr__(self) -> str:
        return self.where


def _whole(content: bytes | bytearray | memoryview) -> bytes | memoryview:
    """Content in memory, each byte of it one after the other."""
    if isinstance(content, memoryview) and not content.c_contiguous:
        return content.tobytes()
    return content if isinstance(content, bytes) else memoryview(content).cast("B")


def _read_whole(file: Any, where: str) -> bytes:
    content = file.read()
    if isinstance(content, str):
        hint = 'Open it with open(path, "rb").'
        raise TypeError(message(where, "a file that is open for reading bytes", "one of text", hint))
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise OSError(errno.EIO, f"A file that gave {brief(content)} in place of bytes", where)
    return bytes(content)


class Window:
    """A binary file of which nobody reads more at once than there is, whatever number is asked for.

    A file that another program cuts short meanwhile gives less, as at its end. It is open from the start, and
    after `close` within `reopened`.
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
        """Open it again for the block, if it is closed.

        Raises
        ------
        OSError
            It cannot be opened, or is another file by now.
        """
        if not self.closed:
            yield
            return
        with self._open_file() as self._file:
            if _identity_of(self._file) != self._identity:
                raise OSError(errno.ESTALE, "A file that changed after it was loaded", self.where)
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

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _identity_of(file: IO[bytes]) -> tuple[int, ...]:
    """What tells a file from another and from itself after a change; nothing of one in memory."""
    try:
        status = os.fstat(file.fileno())
    except OSError:  # io.UnsupportedOperation: it lies in memory
        return ()
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
