"""Files that appear whole or not at all."""

import contextlib
import errno
import os
import tempfile
from collections.abc import Iterator


def check_folder(path: str) -> None:
    """Raise FileNotFoundError if the folder that path is to lie in does not exist."""
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise FileNotFoundError(errno.ENOENT, "No such folder to write in", path)


@contextlib.contextmanager
def replacing(path: str) -> Iterator[str]:
    """Give the name of a draft beside `path`; it takes its place when the block ends well."""
    check_folder(path)
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
