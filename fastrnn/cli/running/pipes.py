"""Runs with stdin or stdout in place of a file."""

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from typing import BinaryIO

from fastrnn.arrays import Array
from fastrnn.cli.running.draft import Draft
from fastrnn.cli.running.input_stream import InputStream, run_live
from fastrnn.cli.running.output_stream import NpyWriter, OutputStream
from fastrnn.cli.running.pieces import Piece, Pieces, count_out_axes
from fastrnn.cli.running.recording import Recording, check_recording
from fastrnn.cli.running.results import check_result, make_result, publish, write_states
from fastrnn.cli.running.task import Outcome, Remark, Report, Task, named_states
from fastrnn.saving.whole_files import replacing


def run_file_to_stdout(task: Task, file: BinaryIO, is_raw: bool, report: Report) -> Outcome:
    """Run a file and send its output: piece by piece if their outputs come in order, else at the end.

    Raises
    ------
    OSError, ValueError, TypeError, RuntimeError
        As in `run_file`.
    """
    stream_out = OutputStream(file, is_raw, task.state is not None)
    return _send(task, task.open(), stream_out, report)


def run_stdin_to_stdout(task: Task, stream_in: InputStream, file: BinaryIO, is_raw: bool) -> Outcome:
    """Run a stream and send its output as it is made.

    Raises
    ------
    FormatError
        The stream is damaged or ends in the middle of a step. The outputs of the whole steps before that
        have been sent.
    OSError, ValueError, TypeError
    """
    stream_out = OutputStream(file, is_raw, task.state is not None)
    pieces = run_live(stream_in)
    if pieces is None:
        return _send(task, _spooled(task, stream_in, None), stream_out, lambda done, total: None)
    state = _forward(pieces, stream_out)
    return _close(task, stream_in.shape, stream_out, stream_out.states(), state)


def run_stdin_to_file(task: Task, stream_in: InputStream, remark: Remark) -> Outcome:
    """Run a stream to a file, which appears once the stream has ended as it should.

    An interrupt leaves nothing: a stream does not come twice.

    Raises
    ------
    FormatError
        The stream is damaged or ends in the middle of a step. No file is made.
    OSError, ValueError, TypeError, RuntimeError
    """
    kind = check_result(task.output, count_out_axes(task.model, stream_in.layout))
    with Draft(task.output) as draft:
        if draft.has_journal():
            remark(f"{draft.where}: starts over, since its draft is of a run from a file.")
        draft.clear()
        pieces = run_live(stream_in)
        if pieces is None:
            pieces = _spooled(task, stream_in, draft.folder).run()
        state: tuple[Array, ...] = ()
        with contextlib.ExitStack() as stack:
            writer: NpyWriter | None = None
            for piece in pieces:
                state = piece.state
                for patch in piece.patches:
                    if patch.shape[0] != -1:
                        draft.write(patch)
                        continue
                    writer = writer or stack.enter_context(NpyWriter(draft.path("y.npy")))
                    writer.write(patch.values)
            if writer is not None:
                writer.finish()
        if writer is not None:
            draft.map("y")
        shape: tuple[int, ...] = draft.arrays["y"].shape
        states = named_states(task.model, draft.arrays, state)
        if task.state is not None:
            _write_states(task.state, states)
        publish(make_result(kind, draft, states), task.output)
    return Outcome(stream_in.shape, shape)


def _spooled(task: Task, stream_in: InputStream, folder: str | None) -> Pieces:
    """The pieces of a stream that has to be read whole first."""
    x = stream_in.spool(folder)
    return Pieces(task.model, *check_recording("stdin", task.model, Recording(x)))


def _send(task: Task, pieces: Pieces, stream_out: OutputStream, report: Report) -> Outcome:
    """Send the output of a recording, by way of a file if the outputs of its pieces do not come in order."""
    if pieces.is_in_order:
        state = _forward(_reported(pieces, report), stream_out)
        return _close(task, pieces.layout.shape, stream_out, stream_out.states(), state)
    with tempfile.TemporaryDirectory() as folder, Draft(os.path.join(folder, "y")) as draft:
        state = ()
        for piece in _reported(pieces, report):
            for patch in piece.patches:
                draft.write(patch)
            state = piece.state
        stream_out.send_array(draft.arrays["y"])
        return _close(task, pieces.layout.shape, stream_out, draft.arrays, state)


def _reported(pieces: Pieces, report: Report) -> Iterator[Piece]:
    for piece in pieces.run():
        yield piece
        report(piece.done, pieces.total)


def _forward(pieces: Iterator[Piece], stream_out: OutputStream) -> tuple[Array, ...]:
    state: tuple[Array, ...] = ()
    for piece in pieces:
        for patch in piece.patches:
            stream_out.write(patch)
        state = piece.state
    stream_out.finish()
    return state


def _close(
    task: Task,
    shape: tuple[int, ...],
    stream_out: OutputStream,
    arrays: Mapping[str, Array],
    state: tuple[Array, ...],
) -> Outcome:
    if task.state is not None:
        _write_states(task.state, named_states(task.model, arrays, state))
    return Outcome(shape, stream_out.shape)


def _write_states(path: str, states: Mapping[str, Array]) -> None:
    with replacing(path) as draft:
        write_states(draft, states)
