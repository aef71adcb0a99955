"""How far an unfinished output is: a file that is replaced as a whole, once the data is on disk."""

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
    """What a run has done so far. The file holds the latest journal only.

    Attributes
    ----------
    identity : mapping of str to str
        What has to be the same for the draft to be used, from `make_identity`.
    done : int
        How many steps or rows are on disk.
    arrays : mapping of str to (shape, dtype)
        The arrays of the draft that hold them.
    state : tuple of ndarray
        The state after them.
    finished : mapping of str to list of int, or None
        The files of a finished output, by path, each with its `stamp`.
    shapes : mapping of str to list of int
        The shapes of the input and the output, if they are known.
    """

    identity: Mapping[str, str]
    done: int
    arrays: Mapping[str, tuple[tuple[int, ...], str]] = dataclasses.field(default_factory=dict)
    state: tuple[Array, ...] = ()
    finished: Mapping[str, list[int]] | None = None
    shapes: Mapping[str, list[int]] = dataclasses.field(default_factory=dict)


def stamp(path: str) -> list[int]:
    """Numbers that change when a file is changed or replaced. Its content is not read."""
    found = os.stat(path)
    return [found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def write_journal(path: str, journal: Journal) -> None:
    """Replace the journal. A crash leaves either the old one or the new one."""
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
    """The journal in a file, or None if there is no file.

    Raises
    ------
    FormatError
        The journal is damaged, or written by another release.
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
    """Wait until the names in a folder are on disk, if the system can tell."""
    with contextlib.suppress(OSError):  # Windows cannot open a folder
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
