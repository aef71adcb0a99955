"""Writing files that appear whole or not at all. What they contain is up to the caller."""

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

from fastrnn.checks import check_file_name


def check_target(path: str) -> None:
    """Raise OSError for a path to which no file can be written. Links are followed.

    The path is no file name, its folder is missing or not writable, or a folder, device or read-only file is
    there already.
    """
    if not path:
        raise FileNotFoundError(errno.ENOENT, "Not a valid file name", path)
    check_file_name(path)
    for place in (path, os.path.realpath(path)):
        folder = os.path.dirname(place) or "."
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, "No such folder to write in", place)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "No permission to write in this folder", place)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "A folder cannot be replaced by a file", path)
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "Not a regular file, so it is not replaced", path)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "No permission to write this file", path)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Yield the path of a draft, which replaces `path` if the block ends without an error.

    The draft is in the same folder. If `path` is a link, the file that it leads to is replaced. The
    permissions of the replaced file are kept.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    import tempfile  # late: 2 ms that only those pay who write

    check_target(path)
    path = os.path.realpath(path)
    handle, draft = tempfile.mkstemp(prefix=".fastrnn-", dir=os.path.dirname(path) or ".")
    os.close(handle)
    try:
        yield draft
        put_in_place(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise


def put_in_place(made: str, path: str) -> None:
    """Move a complete file to `path` on the same disk. Links are followed, permissions are kept."""
    path = os.path.realpath(path)
    os.chmod(made, _mode(path))
    os.replace(made, path)


def _mode(path: str) -> int:
    """Return the permissions of a file, or those of a new one."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
