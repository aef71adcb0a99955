"""An unfinished output: a folder next to it with its arrays and a journal, owned by one run at a time."""

import contextlib
import hashlib
import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.cli.running.journal import Journal, read_journal, stamp, sync_file, sync_folder, write_journal
from fastrnn.cli.running.pieces import Patch
from fastrnn.errors import FormatError, message

if TYPE_CHECKING:
    from typing_extensions import Self

LOCK, JOURNAL = "lock", "journal.npz"


class Draft:
    """The draft of an output. Use it as a context manager.

    Its folder, ``.fastrnn-`` and 16 digits, is made next to the output. At the end of the ``with`` block it
    stays if it holds a journal, and is removed if not.

    Parameters
    ----------
    output : str
        Where the output goes. A link is followed.

    Attributes
    ----------
    arrays : dict of str to memory map
        The arrays of the output, and of the final state if rows have states of their own.

    Raises
    ------
    RuntimeError
        On entering: another run is writing this output.
    OSError
        On entering: the folder cannot be made, or belongs to another user.
    """

    def __init__(self, output: str) -> None:
        path = os.path.realpath(output)
        self.where = os.path.basename(output)
        name = hashlib.sha256(os.fsencode(os.path.basename(path))).hexdigest()[:16]
        self.folder = os.path.join(os.path.dirname(path), f".fastrnn-{name}")
        self.arrays: dict[str, Any] = {}
        self._lock = -1

    def __enter__(self) -> "Self":
        self._lock = _lock(self.where, self.folder)
        return self

    def __exit__(self, *_: object) -> None:
        self.arrays.clear()
        if self._lock >= 0:
            if not self.has_journal():
                self.remove()
            os.close(self._lock)
            self._lock = -1

    def path(self, name: str) -> str:
        """The path of a file of the draft."""
        return os.path.join(self.folder, name)

    def has_journal(self) -> bool:
        """Whether an earlier run left something to go on with."""
        return os.path.exists(self.path(JOURNAL))

    def read(self) -> Journal | None:
        """The journal, or None if there is none. FormatError if it is damaged."""
        return read_journal(self.path(JOURNAL))

    def reopen(self, journal: Journal) -> None:
        """Map the arrays that a journal lists. FormatError if one is missing or does not fit."""
        for name, (shape, dtype) in journal.arrays.items():
            try:
                array = np.lib.format.open_memmap(self.path(f"{name}.npy"), mode="r+")
            except (OSError, ValueError) as error:
                raise FormatError(message(self.where, f"the array {name} in the draft", "none")) from error
            if array.shape != shape or array.dtype != dtype:
                raise FormatError(message(self.where, f"{name} of shape {shape}", f"{array.shape}"))
            self.arrays[name] = array

    def map(self, name: str) -> None:
        """Map the file of an array that was written in another way."""
        self.arrays[name] = np.lib.format.open_memmap(self.path(f"{name}.npy"), mode="r+")

    def write(self, patch: Patch) -> None:
        """Write a patch of an array. The first one makes the file, with room for the whole array."""
        if patch.name not in self.arrays:
            self.arrays[patch.name] = self._make(patch)
        self.arrays[patch.name][patch.place] = patch.values

    def _make(self, patch: Patch) -> Any:
        path = self.path(f"{patch.name}.npy")
        array = np.lib.format.open_memmap(path, mode="w+", dtype=patch.values.dtype, shape=patch.shape)
        if hasattr(os, "posix_fallocate"):
            # Without this, a full disk would kill the process by a signal in the middle of an assignment.
            with open(path, "r+b") as file:
                os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
        return array

    def save(self, identity: Mapping[str, str], done: int, state: tuple[Array, ...]) -> None:
        """Bring the arrays to disk, then a journal that says how far they are."""
        for name, array in self.arrays.items():
            array.flush()
            sync_file(self.path(f"{name}.npy"))
        arrays = {name: (array.shape, array.dtype.str) for name, array in self.arrays.items()}
        write_journal(self.path(JOURNAL), Journal(identity, done, arrays, state))

    def finish(self, identity: Mapping[str, str], files: list[str], shapes: Mapping[str, list[int]]) -> None:
        """Keep only a journal that says that the output is finished, until all outputs of the run are."""
        self.clear()
        finished = {os.path.realpath(path): stamp(path) for path in files}
        write_journal(self.path(JOURNAL), Journal(identity, 0, finished=finished, shapes=shapes))

    def clear(self) -> None:
        """Remove everything but the lock."""
        self.arrays.clear()
        for name in os.listdir(self.folder):
            if name != LOCK:
                os.unlink(self.path(name))

    def remove(self) -> None:
        """Remove the folder."""
        self.clear()
        with contextlib.suppress(OSError):  # on Windows an open file stays, and another run may have come
            os.unlink(self.path(LOCK))
            os.rmdir(self.folder)


def is_finished(journal: Journal) -> bool:
    """Whether the files that a journal lists are still as they were when they were made."""
    try:
        return journal.finished is not None and all(
            stamp(path) == list(known) for path, known in journal.finished.items()
        )
    except OSError:
        return False


def _lock(where: str, folder: str) -> int:
    """Make the folder and take its lock. The lock is held until the returned handle is closed."""
    while True:
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)
            sync_folder(os.path.dirname(folder))
        _check_own(folder)
        path = os.path.join(folder, LOCK)
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:
            continue  # the run that held it has just removed the folder
        try:
            _claim(where, handle)
            if os.path.exists(path) and os.path.samestat(os.stat(path), os.fstat(handle)):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _check_own(folder: str) -> None:
    """Refuse a folder of another user, who could make it lead anywhere."""
    try:
        found = os.lstat(folder)
    except FileNotFoundError:
        return
    is_own = not hasattr(os, "geteuid") or found.st_uid == os.geteuid()
    if os.path.islink(folder) or not is_own:
        raise PermissionError(message(folder, "a folder of this user", "one of another, or a link"))


def _claim(where: str, handle: int) -> None:
    busy = RuntimeError(message(where, "no other run that writes it", "one", "Wait for it, or stop it."))
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except OSError:
            raise busy from None
    else:
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
