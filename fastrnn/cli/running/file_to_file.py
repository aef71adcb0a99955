"""A run from one file to another, which can go on after an interruption."""

import contextlib
import os
import time
from collections.abc import Mapping

from fastrnn.arrays import Array
from fastrnn.cli.running.draft import Draft, is_finished
from fastrnn.cli.running.identity import difference
from fastrnn.cli.running.journal import Journal
from fastrnn.cli.running.kinds import NPZ, kind_of
from fastrnn.cli.running.pieces import Pieces, count_out_axes
from fastrnn.cli.running.results import check_result, make_result, publish, write_states
from fastrnn.cli.running.task import Outcome, Remark, Report, Task, named_states
from fastrnn.errors import FormatError

# Seconds between two journals, at least.
JOURNAL_SECONDS = 10.0
# And at least this many times as long as the last one took to write.
JOURNAL_SHARE = 10


def run_file(
    task: Task, report: Report, remark: Remark, *, restart: bool = False, is_one_of_several: bool = False
) -> Outcome:
    """Run a file to a file. Goes on where an interrupted run of the same task stopped.

    Parameters
    ----------
    task : Task
    report : callable (done, total)
        Told how many steps or rows are done, and how many there are.
    remark : callable (text)
        Told when a draft is used, refused, or left behind.
    restart : bool
        Do not use a draft.
    is_one_of_several : bool
        Leave a note that the output is finished. `forget` removes it when all outputs are.

    Raises
    ------
    OSError
        A file cannot be read or written. What was done by then stays in the draft.
    ValueError, TypeError
        The input does not fit the model, or is damaged (FormatError).
    RuntimeError
        Another run is writing this output, or pyarrow is missing.
    """
    with Draft(task.output) as draft:
        identity = task.identity()
        journal = None if restart else _usable(draft, identity, remark)
        if journal is not None and journal.finished is not None:
            return Outcome(tuple(journal.shapes["input"]), tuple(journal.shapes["output"]), True)
        pieces = task.open()
        check_result(task.output, count_out_axes(task.model, pieces.layout))
        if journal is None:
            draft.clear()
            journal = Journal(identity, 0)
        else:
            remark(f"{draft.where}: continues at {pieces.unit} {journal.done} of {pieces.total}.")
        shape = _Attempt(task, pieces, draft, journal).run(report, remark)
        if is_one_of_several:
            files = [task.output] + ([task.state] if task.state is not None else [])
            shapes = {"input": list(pieces.layout.shape), "output": list(shape)}
            draft.finish(identity, files, shapes)
        else:
            draft.clear()
        return Outcome(pieces.layout.shape, shape)


def forget(task: Task) -> None:
    """Remove the note that an output is finished."""
    with Draft(task.output) as draft:
        draft.clear()


def _usable(draft: Draft, identity: Mapping[str, str], remark: Remark) -> Journal | None:
    """The journal of a draft, its arrays mapped, if it belongs to the task. A remark if it does not."""
    try:
        journal = draft.read()
        if journal is None:
            return None
        other = difference(identity, journal)
        if other is None and journal.finished is None:
            draft.reopen(journal)
        elif other is None and not is_finished(journal):
            other = "of an output that was removed or changed since"
    except (FormatError, OSError):
        other = "damaged"
    if other is None:
        return journal
    draft.arrays.clear()
    remark(f"{draft.where}: starts over, since its draft is {other}.")
    return None


class _Attempt:
    """A run from where a journal stops to the end, or to an interruption."""

    def __init__(self, task: Task, pieces: Pieces, draft: Draft, journal: Journal) -> None:
        self.task, self.pieces, self.draft, self.identity = task, pieces, draft, journal.identity
        self.kind = kind_of(task.output)
        self.wants_states = task.state is not None or self.kind == NPZ
        # How much is done, and the state after it: in one assignment, since an interrupt may come between
        # two.
        self.point: tuple[int, tuple[Array, ...]] = (journal.done, journal.state)

    def run(self, report: Report, remark: Remark) -> tuple[int, ...]:
        """Run, and make the files. Keeps what is done if an interrupt or the system stops it."""
        try:
            self._run_pieces(report)
            return self._make_files()
        except (KeyboardInterrupt, SystemExit, OSError, MemoryError):
            self._keep(remark)
            raise
        except BaseException:
            self.draft.clear()
            raise

    def _run_pieces(self, report: Report) -> None:
        due = time.monotonic() + JOURNAL_SECONDS
        for piece in self.pieces.run(*self.point):
            for patch in piece.patches:
                if patch.name == "y" or self.wants_states:
                    self.draft.write(patch)
            self.point = piece.done, piece.state
            report(piece.done, self.pieces.total)
            if time.monotonic() >= due:
                began = time.monotonic()
                self.draft.save(self.identity, *self.point)
                now = time.monotonic()
                due = now + max(JOURNAL_SECONDS, JOURNAL_SHARE * (now - began))

    def _make_files(self) -> tuple[int, ...]:
        """Make the files of the states and of the output. The output appears last."""
        shape: tuple[int, ...] = self.draft.arrays["y"].shape
        states = named_states(self.task.model, self.draft.arrays, self.point[1])
        if self.task.state is not None:
            made = self.draft.path("states.npz")
            write_states(made, states)
            publish(made, self.task.state)
        publish(make_result(self.kind, self.draft, states), self.task.output)
        return shape

    def _keep(self, remark: Remark) -> None:
        done = self.point[0]
        if done and "y" not in self.draft.arrays and os.path.exists(self.draft.path("y.npy")):
            self.draft.map("y")  # `make_result` had let it go
        if done and "y" in self.draft.arrays:
            with contextlib.suppress(OSError):  # the journal before this one stays valid then
                self.draft.save(self.identity, *self.point)
            unit = f"{self.pieces.unit}s"
            where = f"{self.draft.where}: {done} of {self.pieces.total} {unit} are done"
            remark(f"{where}. Run the same command again to continue.")
