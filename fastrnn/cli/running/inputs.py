"""Files to recordings. Nothing in a file is executed: arrays of objects are refused."""

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from fastrnn.arrays import Array
from fastrnn.cli.running.kinds import NPY, NPZ, PARQUET, check_input
from fastrnn.cli.running.recording import Recording, describe_names, state_names
from fastrnn.cli.running.table import read_table
from fastrnn.errors import FormatError, message, quote
from fastrnn.importers.archive import Archive
from fastrnn.importers.numpy_file import (
    MAX_HEADER,
    OBJECTS,
    holds_objects,
    only_real,
    read_npz,
)

if TYPE_CHECKING:
    import fastrnn


def read_input(path: str, model: "fastrnn.Sequential", columns: Sequence[str] | None = None) -> Recording:
    """Read a file of the kind that its name says.

    Parameters
    ----------
    path : str
        A .npy is x, which is mapped from disk, not read. An .npz is read whole: x, or its only array under
        any other name, and optionally lengths and the arrays of an initial state. A .parquet is read whole:
        its columns are features.
    model : Sequential
    columns : sequence of str, optional
        Read only these columns of a .parquet, in this order.

    Raises
    ------
    OSError
        The file does not exist or cannot be read.
    FormatError
        It is damaged, or not a file of its kind.
    ValueError
        It holds an array or a column that is not used, or lacks one. Or `columns` are given for a file that
        has no columns.
    RuntimeError
        It is a .parquet, and pyarrow is not installed.
    """
    kind = check_input(path)
    where = os.path.basename(path)
    if columns is not None and kind != PARQUET:
        raise ValueError(message(where, f"a {PARQUET} file with --columns", f"a {kind} file"))
    if kind == NPY:
        return Recording(_map_npy(where, path))
    if kind == NPZ:
        with Archive(path, where) as archive:
            return sort_arrays(where, only_real(read_npz(archive, where), where), model)
    return Recording(read_table(path, model, columns))


def _map_npy(where: str, path: str) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    # NumPy parses the header as Python text, which fails in many ways.
    except Exception as error:
        with open(path, "rb") as file:
            if holds_objects(file.read(MAX_HEADER)):
                raise FormatError(message(where, "an array of real numbers", OBJECTS)) from error
        got = f"a damaged one ({type(error).__name__}: {str(error)[:200]})"
        raise FormatError(message(where, "a whole .npy file", got)) from error
    return array


def sort_arrays(where: str, arrays: dict[str, Array], model: "fastrnn.Sequential") -> Recording:
    """The recording that the arrays of an .npz make. An array that is not used is an error."""
    states = state_names(model)
    known = ["x", "lengths", *states]
    others = [name for name in arrays if name not in known]
    if "x" not in arrays and len(others) == 1 and not _is_state(others[0]):
        arrays = {"x" if name == others[0] else name: array for name, array in arrays.items()}
        others = []
    if "x" not in arrays:
        got = f"the arrays {quote(arrays)}" if arrays else "none"
        raise ValueError(message(where, "an array x", got))
    if others:
        got = f"{quote(others)} as well"
        raise ValueError(
            message(where, f"no arrays but {describe_names(model)}", got, "Each one has to be used.")
        )
    given = [name for name in states if name in arrays]
    if given and given != states:
        raise ValueError(message(where, f"all of {quote(states)}, or none", quote(given)))
    return Recording(arrays["x"], arrays.get("lengths"), tuple(arrays[name] for name in given))


def _is_state(name: str) -> bool:
    return re.fullmatch("state[0-9]+", name) is not None
