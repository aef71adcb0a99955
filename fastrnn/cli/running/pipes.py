"""stdin and stdout in the place of files."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from fastrnn.arrays import Array
from fastrnn.cli.running.blocks import Piece, Work, count_out_axes
from fastrnn.cli.running.draft import Draft
from fastrnn.cli.running.live import Incoming, live_pieces
from fastrnn.cli.running.recording import Recording, check_recording
from fastrnn.cli.running.results import Growing, Outgoing, check_result, make_result, place, write_states
from fastrnn.cli.running.run import Outcome, Remark, Report, Task, named_states
from fastrnn.saving.whole_files import replacing


def run_file_to_stdout(task: Task, file: BinaryIO, is_raw: bool, report: Report) -> Outcome:
    """Run a file and send its output, as it is made where its blocks lie in order.

    Raises
    ------
    OSError, ValueError, TypeError, RuntimeError
        As in `run_file`.
    """
    work = task.open()
    outgoing = Outgoing(file, is_raw, task.state is not None)
    return _send(task, work, outgoing, report)


def run_stdin_to_stdout(task: Task, incoming: Incoming, file: BinaryIO, is_raw: bool) -> Outcome:
    """Run a stream and send its output as it is made.

    Raises
    ------
    FormatError
        The stream is damaged or ends in the middle of a step. The outputs of the whole steps before
        it have been sent then.
    OSError, ValueError, TypeError
    """
    outgoing = Outgoing(file, is_raw, task.state is not None)
    pieces = live_pieces(incoming)
    if pieces is None:
        return _send(task, _spooled(task, incoming, None), outgoing, lambda done, total: None)
    state = _forward(pieces, outgoing)
    return _close(task, incoming.shape, outgoing, outgoing.states(), state)


def run_stdin_to_file(task: Task, incoming: Incoming, remark: Remark) -> Outcome:
    """Run a stream to a file, which appears when the stream has ended well.

    An interrupt leaves nothing, since a stream does not come twice.

    Raises
    ------
    FormatError
        The stream is damaged or ends in the middle of a step. There is no file then.
    OSError, ValueError, TypeError, RuntimeError
    """
    kind = check_result(task.output, count_out_axes(task.model, incoming.layout))
    with Draft(task.output) as draft:
        if draft.has_journal():
            remark(f"{draft.where}: begins anew, since the draft of it is of a file.")
        draft.clear()
        pieces = live_pieces(incoming)
        if pieces is None:
            pieces = _spooled(task, incoming, draft.folder).pieces()
        state: tuple[Array, ...] = ()
        with contextlib.ExitStack() as stack:
            growing: Growing | None = None
            for piece in pieces:
                state = piece.state
                for part in piece.parts:
                    if part.shape[0] != -1:
                        draft.write(part)
                        continue
                    growing = growing or stack.enter_context(Growing(draft.path("y.npy")))
                    growing.write(part.values)
            if growing is not None:
                growing.finish()
        if growing is not None:
            draft.map("y")
        shape: tuple[int, ...] = draft.arrays["y"].shape
        states = named_states(task.model, draft.arrays, state)
        if task.state is not None:
            _write_states(task.state, states)
        place(make_result(kind, draft, states), task.output)
    return Outcome(incoming.shape, shape)


def _spooled(task: Task, incoming: Incoming, folder: str | None) -> Work:
    """The work on a stream that has to be there whole."""
    x = incoming.spool(folder)
    return Work(task.model, *check_recording("stdin", task.model, Recording(x)))


def _send(task: Task, work: Work, outgoing: Outgoing, report: Report) -> Outcome:
    """Send the output of a recording; by way of a file where its blocks do not lie in order."""
    if work.is_in_order:
        state = _forward(_reported(work, report), outgoing)
        return _close(task, work.layout.shape, outgoing, outgoing.states(), state)
    with tempfile.TemporaryDirectory() as folder, Draft(os.path.join(folder, "y")) as draft:
        state = ()
        for piece in _reported(work, report):
            for part in piece.parts:
                draft.write(part)
            state = piece.state
        outgoing.send_array(draft.arrays["y"])
        return _close(task, work.layout.shape, outgoing, draft.arrays, state)


def _reported(work: Work, report: Report) -> Iterator[Piece]:
    for piece in work.pieces():
        yield piece
        report(piece.done, work.total)


def _forward(pieces: Iterator[Piece], outgoing: Outgoing) -> tuple[Array, ...]:
    state: tuple[Array, ...] = ()
    for piece in pieces:
        for part in piece.parts:
            outgoing.write(part)
        state = piece.state
    outgoing.finish()
    return state


def _close(
    task: Task,
    shape: tuple[int, ...],
    outgoing: Outgoing,
    arrays: Mapping[str, Array],
    state: tuple[Array, ...],
) -> Outcome:
    if task.state is not None:
        _write_states(task.state, named_states(task.model, arrays, state))
    return Outcome(shape, outgoing.shape)


def _write_states(path: str, states: Mapping[str, Array]) -> None:
    with replacing(path) as draft:
        write_states(draft, states)
