"""Files that appear whole or not at all."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator


def check_target(path: str) -> None:
    """Raise FileNotFoundError if path would lie in no folder, FileExistsError if a device lies there."""
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise FileNotFoundError(errno.ENOENT, "No such folder to write in", path)
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise FileExistsError(errno.EEXIST, "No regular file, so it is not replaced", path)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Give the name of a draft beside `path`; it takes its place when the block ends well. Links stay."""
    check_target(path)
    path = os.path.realpath(path)
    check_target(path)
    handle, draft = tempfile.mkstemp(prefix=".fastrnn-", dir=os.path.dirname(path) or ".")
    os.close(handle)
    try:
        yield draft
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(draft, 0o666 & ~umask)
        os.replace(draft, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(draft)
        raise
