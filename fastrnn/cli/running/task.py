"""What a run is about: a model, an input and an output; and what it reports."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from fastrnn.arrays import Array
from fastrnn.cli.running.identity import make_identity
from fastrnn.cli.running.inputs import read_input
from fastrnn.cli.running.kinds import NPY, PARQUET, kind_of
from fastrnn.cli.running.pieces import Pieces
from fastrnn.cli.running.recording import check_layout, check_recording, state_names, with_features
from fastrnn.cli.running.table import import_pyarrow

if TYPE_CHECKING:
    import fastrnn

Report = Callable[[int, int], None]
Remark = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """A model, an input, and where the output goes.

    Attributes
    ----------
    model : Sequential
    model_digest : str
        The digest of its file, from `digest_model`.
    input, output : str
        Paths, or "-" for stdin and stdout.
    state : str or None
        Where the final states go (.npz).
    rows : slice or None
        Which rows to run, or which time steps where there is no axis of rows.
    columns : tuple of str or None
        Which columns of a table to run.
    options : mapping
        The other options that the output depends on.
    where : str
        What messages call the input.
    """

    model: "fastrnn.Sequential"
    model_digest: str
    input: str
    output: str
    state: str | None = None
    rows: slice | None = None
    columns: tuple[str, ...] | None = None
    options: Mapping[str, object] = dataclasses.field(default_factory=dict)
    where: str = "input"

    def identity(self) -> dict[str, str]:
        """What has to be the same for a draft to be used. The input counts as it is now."""
        rows = None if self.rows is None else [self.rows.start, self.rows.stop]
        wants_states = self.state is not None
        options = {**self.options, "rows": rows, "columns": self.columns, "state": wants_states}
        options["kind"] = kind_of(self.output)
        return make_identity(self.model_digest, self.input, options)

    def open(self) -> Pieces:
        """Read and check the input, and cut it into pieces."""
        recording = read_input(self.input, self.model, self.columns)
        return Pieces(self.model, *check_recording(self.where, self.model, recording, self.rows))


class Outcome(NamedTuple):
    """The shapes of x and y, and whether an earlier run that was interrupted had finished y already."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    was_there: bool = False


def check_early(task: Task) -> None:
    """Refuse what can be refused before any input is read: the shape of a .npy, a table without pyarrow.

    Raises
    ------
    OSError, ValueError, TypeError, RuntimeError
        As in `run_file`.
    """
    kind = kind_of(task.input)
    if kind == PARQUET:
        import_pyarrow(os.path.basename(task.input))
    if kind == NPY:
        x = read_input(task.input, task.model, task.columns).x
        check_layout(task.where, task.model, with_features(task.model, x.shape))


def named_states(
    model: "fastrnn.Sequential", arrays: Mapping[str, Array], state: tuple[Array, ...]
) -> dict[str, Array]:
    """The final states by name. Those of rows are among the arrays, that of a stream is given."""
    names = state_names(model)
    if state:
        return dict(zip(names, state, strict=True))
    return {name: arrays[name] for name in names if name in arrays}
