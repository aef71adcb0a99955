"""Tables: .parquet files, read and written by pyarrow."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.cli.running.recording import input_dtype
from fastrnn.errors import FormatError, message, quote

if TYPE_CHECKING:
    import fastrnn

# How many numbers are converted to or from a table at once.
NUMBERS_AT_ONCE = 2**20


def import_pyarrow(where: str) -> tuple[Any, Any]:
    """Import pyarrow and pyarrow.parquet. A RuntimeError says how to install them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        expected = "pyarrow, which reads and writes .parquet files"
        raise RuntimeError(message(where, expected, "none", "pip install pyarrow brings it.")) from None
    return pyarrow, pyarrow.parquet


def read_table(path: str, model: "fastrnn.Sequential", columns: Sequence[str] | None = None) -> Array:
    """The columns of a .parquet file, as the array that the model takes.

    Parameters
    ----------
    path : str
    model : Sequential
    columns : sequence of str, optional
        Read only these, in this order. By default all, in the order of the file.

    Returns
    -------
    ndarray
        (T, I), a column for each feature, of the model's dtype. If the model has none, of a floating-point
        type that holds all columns. If the model takes tokens, (T,) of the integer type of the one column.

    Raises
    ------
    FormatError
        The file is damaged.
    ValueError
        A column is missing, given twice, not numeric or holds nulls, or their number is not that of the
        model's features. The message names the columns.
    RuntimeError
        pyarrow is not installed.
    """
    where = os.path.basename(path)
    pyarrow, parquet = import_pyarrow(where)
    try:
        with parquet.ParquetFile(path) as file:
            schema = file.schema_arrow
            names = _pick(where, list(schema.names), columns)
            takes_tokens = model.signature.takes_tokens
            _check_types(where, names, schema, pyarrow.types, takes_tokens)
            _check_count(where, names, 1 if takes_tokens else model.features_in, takes_tokens)
            kinds = [schema.field(name).type.to_pandas_dtype() for name in names]
            dtype = kinds[0] if takes_tokens else input_dtype(model) or np.result_type(np.float32, *kinds)
            return _fill(where, file, names, dtype, takes_tokens)
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise  # the system's error, not damage in the file
        got = f"a damaged one ({type(error).__name__}: {str(error)[:200]})"
        raise FormatError(message(where, "a whole .parquet file", got)) from error


def _pick(where: str, there: list[str], columns: Sequence[str] | None) -> list[str]:
    names = there if columns is None else list(columns)
    missing = [name for name in names if name not in there]
    if missing:
        got = f"none of that name among {quote(there)}" if there else "no columns"
        raise ValueError(message(where, f"the column{'s' * (len(missing) > 1)} {quote(missing)}", got))
    twice = [name for name in dict.fromkeys(names) if names.count(name) + there.count(name) > 2]
    if twice:
        raise ValueError(message(where, "each column once", f"{quote(twice)} twice"))
    return names


def _check_types(where: str, names: Sequence[str], schema: Any, types: Any, takes_tokens: bool) -> None:
    def fits(kind: Any) -> bool:
        return bool(types.is_integer(kind) or (types.is_floating(kind) and not takes_tokens))

    wrong = [f'"{name}" ({kind})' for name in names if not fits(kind := schema.field(name).type)]
    if wrong:
        expected = "columns of whole numbers (tokens)" if takes_tokens else "columns of numbers"
        raise ValueError(message(where, expected, ", ".join(wrong), "--columns picks some."))


def _check_count(where: str, names: Sequence[str], wanted: int | None, takes_tokens: bool) -> None:
    if not names or wanted not in (None, len(names)):
        kind = " of tokens" if takes_tokens else ", as many as the model has features"
        expected = f"{wanted or 'at least 1'} column{'s' * (wanted != 1)}{kind}"
        got = f"{len(names)}" + (f" ({quote(names)})" if 0 < len(names) <= 20 else "")
        raise ValueError(message(where, expected, got, "--columns picks some." if names else ""))


def _fill(where: str, file: Any, names: Sequence[str], dtype: Any, takes_tokens: bool) -> Array:
    """The columns as one array, filled batch by batch so that the table is in memory only once."""
    array = np.empty((file.metadata.num_rows, len(names)), dtype)
    begin = 0
    for batch in file.iter_batches(max(1, NUMBERS_AT_ONCE // len(names)), columns=list(names)):
        nulls = [name for name in names if batch.column(name).null_count]
        if nulls:
            hint = "Fill them; pandas writes NaN as null."
            raise ValueError(message(where, "columns without nulls", f"nulls in {quote(nulls)}", hint))
        for index, name in enumerate(names):
            array[begin : begin + len(batch), index] = batch.column(name).to_numpy(zero_copy_only=False)
        begin += len(batch)
    return array[:, 0] if takes_tokens else array


def write_table(path: str, y: Array) -> None:
    """Write y (rows, features), or a single row (features,), as columns y0, y1, ... of a .parquet file.

    Raises
    ------
    RuntimeError
        pyarrow is not installed.
    """
    pyarrow, parquet = import_pyarrow(os.path.basename(path))
    rows = y[None] if y.ndim == 1 else y
    names = [f"y{index}" for index in range(rows.shape[1])]
    kind = pyarrow.from_numpy_dtype(rows.dtype)
    schema = pyarrow.schema([(name, kind) for name in names])
    size = max(1, NUMBERS_AT_ONCE // len(names))
    with parquet.ParquetWriter(path, schema) as writer:
        for begin in range(0, len(rows), size):
            columns = np.ascontiguousarray(rows[begin : begin + size].T)
            arrays = [pyarrow.array(column) for column in columns]
            writer.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
