"""Outputs as files of each kind, which appear whole."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.cli.running.draft import Draft
from fastrnn.cli.running.journal import sync_file, sync_folder
from fastrnn.cli.running.kinds import NPY, NPZ, PARQUET, kind_of
from fastrnn.cli.running.table import import_pyarrow, write_table
from fastrnn.errors import message
from fastrnn.saving.whole_files import check_target, put_in_place


def check_result(path: str, out_axes: int) -> str:
    """The kind of an output file, if an output of this many axes can be one. Checked before any work is done.

    Raises
    ------
    ValueError
        The name has no known ending, or a table cannot hold the axes.
    RuntimeError
        It is a .parquet, and pyarrow is not installed.
    """
    kind = kind_of(path)
    where = os.path.basename(path)
    if kind == PARQUET:
        if out_axes > 2:
            hint = f"{NPY} and {NPZ} hold any."
            raise ValueError(message(where, "an output of 2 axes in a table", f"one of {out_axes}", hint))
        import_pyarrow(where)
    return kind


def make_result(kind: str, draft: Draft, states: Mapping[str, Array]) -> str:
    """Make the output file inside a draft, from the arrays there. Returns its path."""
    if kind == NPY:
        draft.arrays.pop("y").flush()
        return draft.path("y.npy")
    path = draft.path(f"result{kind}")
    if kind == NPZ:
        write_states(path, {"y": draft.arrays["y"], **states})
        return path
    write_table(path, draft.arrays["y"])
    return path


def write_states(path: str, arrays: Mapping[str, Array]) -> None:
    """Write arrays as an .npz file, one after the other, so that memory maps are never whole in memory."""
    with open(path, "wb") as file:
        named: dict[str, Any] = dict(arrays)
        np.savez(file, **named)


def publish(made: str, path: str) -> None:
    """Move a complete file to where it is wanted. Its data is on disk before it has its name."""
    check_target(path)
    sync_file(made)
    put_in_place(made, path)
    sync_folder(os.path.dirname(os.path.realpath(path)))
