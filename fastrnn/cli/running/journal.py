"""What is known of an output that is partly done: a file that is replaced whole, once the data is on disk."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.errors import FormatError, message
from fastrnn.importers.archive import Archive
from fastrnn.importers.numpy_file import only_real, read_npz

VERSION = 1


@dataclasses.dataclass(frozen=True)
class Journal:
    """An entry; the next one takes its place.

    Attributes
    ----------
    identity : mapping of str to str
        Of the command: what has to be the same for its draft to be used.
    done : int
        The steps or rows that are on disk.
    arrays : mapping of str to (shape, dtype)
        The arrays of the draft that hold them.
    state : tuple of ndarray
        The state after them.
    finished : mapping of str to list of int, or None
        The files that a finished output consists of, by path, and what `stamp` said of each.
    shapes : mapping of str to list of int
        Of the input and the output, where they are known.
    """

    identity: Mapping[str, str]
    done: int
    arrays: Mapping[str, tuple[tuple[int, ...], str]] = dataclasses.field(default_factory=dict)
    state: tuple[Array, ...] = ()
    finished: Mapping[str, list[int]] | None = None
    shapes: Mapping[str, list[int]] = dataclasses.field(default_factory=dict)


def stamp(path: str) -> list[int]:
    """What tells a file from another one, and from itself when it was changed since: no content is read."""
    found = os.stat(path)
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def write_journal(path: str, journal: Journal) -> None:
    """Write an entry in the place of the one before; a crash leaves one of the two."""
    record: dict[str, Any] = {"version": VERSION}
    for field in dataclasses.fields(journal):
        if field.name != "state":
            record[field.name] = getattr(journal, field.name)
    arrays: dict[str, Any] = {f"state{index}": array for index, array in enumerate(journal.state)}
    arrays["record"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    new = f"{path}.new"
    with open(new, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, path)
    sync_folder(os.path.dirname(path))


def read_journal(path: str) -> Journal | None:
    """The entry of a file, or None where there is no file.

    Raises
    ------
    FormatError
        It is damaged, or of another release.
    """
    if not os.path.exists(path):
        return None
    where = os.path.basename(path)
    with Archive(path, where) as archive:
        arrays = only_real(read_npz(archive, where), where)
    try:
        record = json.loads(arrays.pop("record").tobytes())
        if record.pop("version") != VERSION:
            raise ValueError("another version")
        record["arrays"] = {name: (tuple(shape), dtype) for name, (shape, dtype) in record["arrays"].items()}
        state = tuple(arrays[f"state{index}"] for index in range(len(arrays)))
        return Journal(**record, state=state)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        got = f"a damaged one ({type(error).__name__}: {error})"
        raise FormatError(message(where, "a journal", got)) from error


def sync_file(path: str) -> None:
    """Wait until a file is on disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: str) -> None:
    """Wait until the names in a folder are on disk, where the system can tell."""
    with contextlib.suppress(OSError):  # Windows opens no folder
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
