"""``fastrnn run``: run a model over files or a stream."""

import argparse
import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import fastrnn
from fastrnn.cli import programs
from fastrnn.cli.options import (
    MODEL_HELP,
    Commands,
    add_command,
    add_loading,
    at_least,
    check_outputs,
    load_model,
    tell_granted,
)
from fastrnn.cli.running.file_to_file import forget, run_file
from fastrnn.cli.running.identity import digest_model
from fastrnn.cli.running.input_stream import InputStream
from fastrnn.cli.running.kinds import NPZ, STDIO, check_input, kind_of
from fastrnn.cli.running.pipes import run_file_to_stdout, run_stdin_to_file, run_stdin_to_stdout
from fastrnn.cli.running.recording import state_names
from fastrnn.cli.running.several_inputs import SharedProgress, check_names, make_folder, state_name
from fastrnn.cli.running.task import Outcome, Task, check_early
from fastrnn.errors import message
from fastrnn.terminal import print_table, progress, remark

SUMMARY = "Run a model over files or a stream. Files may be larger than memory."
DETAILS = """\
The extension of a file name tells what the file is:

  .npy      One array: (T, B, I), or (B, T, I) if the model is
            batch_first; (T, I) for a single sequence. Tokens
            have no I. A model with one feature also takes (T,).
  .npz      Input: x, or one array of any name. Optionally
            lengths, and the initial state0, state1, ...
            Output: y, and the final state0, state1, ...
  .parquet  A table, which needs pyarrow. Input: each column is
            a feature, or one column of integers is tokens.
            Output: columns y0, y1, ... of an output with 2 axes.
  -         stdin or stdout. Input: a .npy stream, or raw
            little-endian numbers of the model's dtype (int64
            for tokens), step after step. The model runs over
            them as they come. Output: the same kind.

If a run is interrupted, the same command goes on where it
stopped. Until then, a folder .fastrnn-... next to the output
holds what is done.

A program (fastrnn.export) takes one .npy, or an .npz with its
inputs by name, and gives a .npy, or an .npz with its results.

With several inputs, OUTPUT is a folder. Each output has the
name of its input.
"""


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(commands, "run", _run, SUMMARY)
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = DETAILS
    command.add_argument("model", help=MODEL_HELP)
    command.add_argument("input", nargs="+", help="a .npy, .npz or .parquet file, or - for stdin")
    command.add_argument(
        "-o",
        "--output",
        required=True,
        help="the output: .npy, .npz, .parquet, or - for stdout; a folder if there are several inputs",
    )
    command.add_argument(
        "--final-state",
        "--state",
        dest="state",
        metavar="FILE",
        help="save the final states here (.npz); a folder for several inputs. Initial states are arrays of "
        "an .npz input",
    )
    command.add_argument(
        "--rows",
        type=_bounds,
        metavar="A:B",
        help="run only these rows, or time steps if there is no axis of rows. A and B are those of a Python "
        "slice: what is beyond the end is left out, and negative ones count from the end (write --rows=-9:)",
    )
    command.add_argument(
        "--columns", type=_names, metavar="A,B,C", help="run only these columns of a .parquet, in this order"
    )
    command.add_argument(
        "--raw", action="store_true", help="write raw numbers to stdout, with no .npy header"
    )
    command.add_argument(
        "--restart", action="store_true", help="start over instead of continuing an interrupted run"
    )
    command.add_argument("--threads", type=at_least(1), metavar="N", help="use at most N cores")
    add_loading(command)


def _bounds(text: str) -> slice:
    begin, colon, end = text.partition(":")
    try:
        if not colon:
            raise ValueError
        return slice(*(int(bound) if bound.strip() else None for bound in (begin, end)))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected A:B, two whole numbers or one, got {text!r}.") from None


def _names(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not all(names):
        raise argparse.ArgumentTypeError(f"expected names with commas between them, got {text!r}.")
    return names


def _run(options: argparse.Namespace) -> None:
    began = time.perf_counter()
    saved = programs.open_program(options, options.model)
    if saved is not None:
        programs.run(saved, options)
        return
    if len(options.input) > 1:
        _run_several(options, began)
    elif STDIO in (options.input[0], options.output):
        _run_stream(options, began)
    else:
        _run_one(options, began)


# ---------------------------------------------------------------- a file, several files, a stream


def _run_one(options: argparse.Namespace, began: float) -> None:
    path, output = options.input[0], options.output
    _check_unused(options, {"--raw": "-o -"})
    check_outputs([output, options.state], [options.model, path])
    kind_of(output)
    _check_state_name(options.state)
    check_input(path)
    task = _prepare(options)(path, output, options.state, _name(path))
    with _watched(os.path.basename(path)) as (report, say):
        outcome = run_file(task, report, say, restart=options.restart)
    _print_one(options, outcome, began, sys.stdout)


def _run_stream(options: argparse.Namespace, began: float) -> None:
    path, output = options.input[0], options.output
    is_in, is_out = path == STDIO, output == STDIO
    # Options that would have no effect without something else.
    unused = {"--restart": "an input and an output that are files"}
    if is_in:
        unused |= {"--rows": "an input that is a file", "--columns": "an input that is a file"}
    if not is_out:
        unused |= {"--raw": "-o -"}
    _check_unused(options, unused)
    check_outputs([None if is_out else output, options.state], [options.model, *([] if is_in else [path])])
    if not is_out:
        kind_of(output)
    _check_state_name(options.state)
    task = _prepare(options)(path, output, options.state, _name(path))
    with _stdout() if is_out else contextlib.nullcontext() as file:
        if is_in:
            stream_in = InputStream(_stdin(), task.model)
            if file is None:
                outcome = run_stdin_to_file(task, stream_in, remark)
            else:
                is_raw = options.raw or stream_in.header.is_raw
                outcome = run_stdin_to_stdout(task, stream_in, file, is_raw)
        else:
            assert file is not None
            with _watched(os.path.basename(path)) as (report, _):
                outcome = run_file_to_stdout(task, file, options.raw, report)
    _print_one(options, outcome, began, sys.stderr if is_out else sys.stdout)


def _run_several(options: argparse.Namespace, began: float) -> None:
    _check_unused(options, {"--raw": "-o -"})
    names = check_names(options.input)
    with _folders(options):
        outputs = [os.path.join(options.output, name) for name in names]
        states: list[str | None] = [None] * len(names)
        if options.state is not None:
            states = [os.path.join(options.state, state_name(name)) for name in names]
        check_outputs([*outputs, *states], [options.model, *options.input])
        make_task = _prepare(options)
        tasks = [
            make_task(*files, name)
            for *files, name in zip(options.input, outputs, states, names, strict=True)
        ]
        for task in tasks:
            check_early(task)
        sizes = [os.path.getsize(path) for path in options.input]
        with _watched(f"{len(names)} inputs") as (report, say):
            shared = SharedProgress(sizes, report)
            outcomes = [
                run_file(task, shared.of(index), say, restart=options.restart, is_one_of_several=True)
                for index, task in enumerate(tasks)
            ]
    for task in tasks:
        forget(task)
    _print_several(options, names, outcomes, began)


def _name(path: str) -> str:
    """What messages call an input."""
    return "stdin" if path == STDIO else os.path.basename(path)


def _prepare(options: argparse.Namespace) -> Callable[..., Task]:
    """Load the model. Returns a function (input, output, state, where) that makes a Task."""
    model, state_dict = load_model(options.model, options)
    tell_granted(model, "example.output" in state_dict)
    _check_effects(options, model)
    digest = digest_model(options.model)
    names = ("key", "batch_first", "nonlinearity", "precision", "threads")
    rest = {name: getattr(options, name) for name in names}

    def make(path: str, output: str, state: str | None, where: str) -> Task:
        return Task(model, digest, path, output, state, options.rows, options.columns, rest, where)

    return make


# ---------------------------------------------------------------- what options may be


def _check_unused(options: argparse.Namespace, wanted: dict[str, str]) -> None:
    """Refuse options that would have no effect without something else: what that is, by the option's name."""
    for option, beside in wanted.items():
        if getattr(options, option.removeprefix("--")):
            got = f"{' '.join(options.input)} -o {options.output}"
            raise ValueError(message(option, beside, got, "The option would have no effect."))


def _check_effects(options: argparse.Namespace, model: fastrnn.Sequential) -> None:
    """Refuse options that would have no effect on a model."""
    effects = {
        "--final-state": (options.state, bool(state_names(model)), "a model that has a state"),
        "--threads": (
            options.threads,
            any(layer.has_backend for layer in model.layers),
            "layers with weights",
        ),
        "--precision": (
            options.precision,
            any(hasattr(layer, "dtype") for layer in model.layers),
            "layers that have a precision",
        ),
    }
    for option, (value, has_effect, wanted) in effects.items():
        if value is not None and not has_effect:
            raise ValueError(message(option, wanted, repr(model), "The option would have no effect."))


def _check_state_name(path: str | None) -> None:
    if path is not None and os.path.splitext(path)[1].lower() != NPZ:
        raise ValueError(message("--final-state", f"a name that ends in {NPZ}", path))


@contextlib.contextmanager
def _folders(options: argparse.Namespace) -> Iterator[None]:
    """Make the folders of several outputs and states. New ones that stay empty are removed again."""
    made: list[str] = []
    try:
        for option, path in (("-o", options.output), ("--final-state", options.state)):
            if path is not None:
                made += make_folder(option, path)
        yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                os.rmdir(path)


# ---------------------------------------------------------------- streams, progress and what is printed


def _stdin() -> BinaryIO:
    stream: BinaryIO = sys.stdin.buffer
    return stream


@contextlib.contextmanager
def _stdout() -> Iterator[BinaryIO]:
    """stdout for numbers. Refuses a terminal, which cannot show them."""
    if sys.stdout.isatty():
        raise ValueError(message("stdout", "a file or a pipe", "a terminal, which shows no numbers"))
    stream: BinaryIO = sys.stdout.buffer
    yield stream


@contextlib.contextmanager
def _watched(title: str) -> Iterator[tuple[Callable[[int, int], None], Callable[[str], None]]]:
    """Show progress. Yields the function that reports it, and one for remarks.

    Once progress is shown, remarks wait until the end, so that they do not break its line.
    """
    waiting: list[str] = []
    has_begun = False

    def tell(done: int, total: int) -> None:
        nonlocal has_begun
        has_begun = True
        report(done, total)

    def say(text: str) -> None:
        (waiting.append if has_begun else remark)(text)

    try:
        with progress(title) as report:
            yield tell, say
    finally:
        for text in waiting:
            remark(text)


def _print_one(options: argparse.Namespace, outcome: Outcome, began: float, file: Any) -> None:
    seconds = time.perf_counter() - began
    if options.json:
        result = {"input": outcome.input, "output": outcome.output, "seconds": seconds}
        print(json.dumps(result), file=file)
    else:
        name = "stdout" if options.output == STDIO else options.output
        print(f"{name}: {outcome.output}, {seconds:.2f} s", file=file)


def _print_several(
    options: argparse.Namespace, names: Sequence[str], outcomes: Sequence[Outcome], began: float
) -> None:
    seconds = time.perf_counter() - began
    if options.json:
        outputs = [
            {"name": name, "input": outcome.input, "output": outcome.output, "was_there": outcome.was_there}
            for name, outcome in zip(names, outcomes, strict=True)
        ]
        print(json.dumps({"outputs": outputs, "seconds": seconds}))
        return
    notes = ["made earlier" if outcome.was_there else "" for outcome in outcomes]
    shapes = [str(outcome.output) for outcome in outcomes]
    columns, cells = ["output", "shape"], [names, shapes]
    if any(notes):
        columns.append("")
        cells.append(notes)
    print_table(columns, list(zip(*cells, strict=True)))
    print(f"{len(names)} outputs in {options.output}, {seconds:.2f} s")
