"""One file to another; a run that was interrupted is gone on with."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from fastrnn.arrays import Array
from fastrnn.cli.running.blocks import Work, count_out_axes
from fastrnn.cli.running.draft import Draft, is_finished
from fastrnn.cli.running.identity import difference, make_identity
from fastrnn.cli.running.inputs import read_input
from fastrnn.cli.running.journal import Journal
from fastrnn.cli.running.kinds import NPY, NPZ, PARQUET, kind_of
from fastrnn.cli.running.recording import check_layout, check_recording, state_names, with_features
from fastrnn.cli.running.results import check_result, make_result, place, write_states
from fastrnn.cli.running.table import import_pyarrow
from fastrnn.errors import FormatError

if TYPE_CHECKING:
    import fastrnn

# Seconds from one journal to the next, at least; and at least this many times what the last one took.
JOURNAL_SECONDS = 10.0
JOURNAL_SHARE = 10

Report = Callable[[int, int], None]
Remark = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """What to run on.

    Attributes
    ----------
    model : Sequential
    model_digest : str
        Of its file, as `digest_model` gives it.
    input, output : str
    state : str or None
        Where the final states go (.npz).
    rows : slice or None
        Of rows, or of time steps where there are no rows.
    columns : tuple of str or None
        Of a table.
    options : mapping
        What else the output depends on.
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
        """What has to be the same for a draft to be used; of the input as it is now."""
        rows = None if self.rows is None else [self.rows.start, self.rows.stop]
        wants_states = self.state is not None
        options = {**self.options, "rows": rows, "columns": self.columns, "state": wants_states}
        options["kind"] = kind_of(self.output)
        return make_identity(self.model_digest, self.input, options)

    def open(self) -> Work:
        """Read and check the input."""
        recording = read_input(self.input, self.model, self.columns)
        return Work(self.model, *check_recording(self.where, self.model, recording, self.rows))


class Outcome(NamedTuple):
    """The shapes of x and y, and whether y was there already, from a run that was interrupted."""

    input: tuple[int, ...]
    output: tuple[int, ...]
    was_there: bool = False


# ---------------------------------------------------------------- a file to a file


def run_file(
    task: Task, report: Report, remark: Remark, *, restart: bool = False, is_one_of_several: bool = False
) -> Outcome:
    """Run a file to a file, or go on where an interrupted run of the same task stopped.

    Parameters
    ----------
    task : Task
    report : callable (done, total)
        Told how many steps or rows are done, and of how many.
    remark : callable (text)
        Told that a draft is used, not used, or left.
    restart : bool
        Use no draft.
    is_one_of_several : bool
        Note that the output is finished, for `forget` to remove when all are.

    Raises
    ------
    OSError
        A file cannot be read or written. What is done by then stays in the draft.
    ValueError, TypeError
        The input does not fit, or it is damaged (FormatError).
    RuntimeError
        Another run is at this output, or pyarrow is missing.
    """
    with Draft(task.output) as draft:
        identity = task.identity()
        journal = None if restart else _usable(draft, identity, remark)
        if journal is not None and journal.finished is not None:
            return Outcome(tuple(journal.shapes["input"]), tuple(journal.shapes["output"]), True)
        work = task.open()
        check_result(task.output, count_out_axes(task.model, work.layout))
        if journal is None:
            draft.clear()
            journal = Journal(identity, 0)
        else:
            remark(f"{draft.where}: goes on at {work.unit} {journal.done} of {work.total}.")
        shape = _Attempt(task, work, draft, journal).run(report, remark)
        if is_one_of_several:
            files = [task.output] + ([task.state] if task.state is not None else [])
            shapes = {"input": list(work.layout.shape), "output": list(shape)}
            draft.finish(identity, files, shapes)
        else:
            draft.clear()
        return Outcome(work.layout.shape, shape)


def check_early(task: Task) -> None:
    """Refuse what can be refused of an input before any other is run, and before it is read: the shape of a
    .npy, a table without pyarrow.

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


def forget(task: Task) -> None:
    """Remove the note that an output is finished."""
    with Draft(task.output) as draft:
        draft.clear()


def _usable(draft: Draft, identity: Mapping[str, str], remark: Remark) -> Journal | None:
    """The journal of a draft, its arrays mapped, if it belongs to the task; a remark, if it does not."""
    try:
        journal = draft.read()
        if journal is None:
            return None
        other = difference(identity, journal)
        if other is None and journal.finished is None:
            draft.reopen(journal)
        elif other is None and not is_finished(journal):
            other = "an output that is gone, or was changed since"
    except (FormatError, OSError):
        other = "no use, since it is damaged"
    if other is None:
        return journal
    draft.arrays.clear()
    remark(f"{draft.where}: begins anew, since the draft of it is of {other}.")
    return None


class _Attempt:
    """A run from where a journal says to the end, or to an interruption."""

    def __init__(self, task: Task, work: Work, draft: Draft, journal: Journal) -> None:
        self.task, self.work, self.draft, self.identity = task, work, draft, journal.identity
        self.kind = kind_of(task.output)
        self.wants_states = task.state is not None or self.kind == NPZ
        # In one assignment, since an interrupt may come between two.
        self.point: tuple[int, tuple[Array, ...]] = (journal.done, journal.state)

    def run(self, report: Report, remark: Remark) -> tuple[int, ...]:
        """Run, keep what is done if an interrupt or the system stops it, and make the files."""
        try:
            self._run_blocks(report)
            return self._make_files()
        except (KeyboardInterrupt, SystemExit, OSError, MemoryError):
            self._keep(remark)
            raise
        except BaseException:
            self.draft.clear()
            raise

    def _run_blocks(self, report: Report) -> None:
        due = time.monotonic() + JOURNAL_SECONDS
        for piece in self.work.pieces(*self.point):
            for part in piece.parts:
                if part.name == "y" or self.wants_states:
                    self.draft.write(part)
            self.point = piece.done, piece.state
            report(piece.done, self.work.total)
            if time.monotonic() >= due:
                began = time.monotonic()
                self.draft.save(self.identity, *self.point)
                now = time.monotonic()
                due = now + max(JOURNAL_SECONDS, JOURNAL_SHARE * (now - began))

    def _make_files(self) -> tuple[int, ...]:
        """Make the files of the output and of the states; the output appears last."""
        shape: tuple[int, ...] = self.draft.arrays["y"].shape
        states = named_states(self.task.model, self.draft.arrays, self.point[1])
        if self.task.state is not None:
            made = self.draft.path("states.npz")
            write_states(made, states)
            place(made, self.task.state)
        place(make_result(self.kind, self.draft, states), self.task.output)
        return shape

    def _keep(self, remark: Remark) -> None:
        done = self.point[0]
        if done and "y" not in self.draft.arrays and os.path.exists(self.draft.path("y.npy")):
            self.draft.map("y")  # which `make_result` let go
        if done and "y" in self.draft.arrays:
            with contextlib.suppress(OSError):  # the journal before this one stays good then
                self.draft.save(self.identity, *self.point)
            unit = f"{self.work.unit}s"
            where = f"{self.draft.where}: {done} of {self.work.total} {unit} are done"
            remark(f"{where}. The same command goes on from there.")


def named_states(
    model: "fastrnn.Sequential", arrays: Mapping[str, Array], state: tuple[Array, ...]
) -> dict[str, Array]:
    """The final states by name: those of rows are among the arrays, that of a stream is given."""
    names = state_names(model)
    if state:
        return dict(zip(names, state, strict=True))
    return {name: arrays[name] for name in names if name in arrays}
