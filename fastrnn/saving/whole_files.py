"""Files that appear whole or not at all."""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator

from fastrnn.checks import check_name


def check_target(path: str) -> None:
    """Raise the OSError of a path that no file can be written to: it names none, or its folder does not
    take one, or a folder or a device lies there. Of a link that is what it leads to."""
    if not path:
        raise FileNotFoundError(errno.ENOENT, "No name of a file", path)
    check_name(path)
    for place in (path, os.path.realpath(path)):
        folder = os.path.dirname(place) or "."
        if not os.path.isdir(folder):
            raise FileNotFoundError(errno.ENOENT, "No such folder to write in", place)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "The folder may not be written in", place)
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "A folder, which no file replaces", path)
    if not stat.S_ISREG(mode):
        raise FileExistsError(errno.EEXIST, "No regular file, so it is not replaced", path)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "The file may not be written", path)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Give the name of a draft beside `path`; it takes its place when the block ends well. Links stay, and so
    do the permissions of a file that is replaced."""
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
    """Let a file that is complete take the place of `path`, on the same disk. Links and permissions stay."""
    path = os.path.realpath(path)
    os.chmod(made, _mode(path))
    os.replace(made, path)


def _mode(path: str) -> int:
    """The permissions that a file has, or that a new one gets."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
