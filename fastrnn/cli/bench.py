"""``fastrnn bench``: time a model next to the other engines that are installed."""

import argparse
import json
import os
from collections.abc import Callable
from typing import Any, TypeAlias

import fastrnn
from fastrnn.cli import programs
from fastrnn.cli.options import (
    MODEL_HELP,
    Commands,
    above_0,
    add_command,
    add_loading,
    at_least,
    check_outputs,
    load_model,
)
from fastrnn.errors import message
from fastrnn.importers import StateDict
from fastrnn.saving.whole_files import replacing
from fastrnn.terminal import progress

STEPS, BATCH = 100, 32
# What was measured, and the function that prints it.
Result: TypeAlias = tuple[dict[str, Any], Callable[[dict[str, Any]], None]]


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "bench",
        _bench,
        "Time a model next to the other engines that are installed, on one thread each.",
    )
    command.add_argument("model", help=MODEL_HELP)
    for option, default, meaning in (
        ("--steps", STEPS, "time steps in a sequence"),
        ("--batch", BATCH, "rows in the larger batch"),
        ("--rounds", 21, "rounds that each engine is timed for"),
    ):
        command.add_argument(option, type=at_least(1), default=default, help=f"{meaning} (default {default})")
    command.add_argument(
        "--block",
        type=at_least(1),
        metavar="STEPS",
        help="instead, time a live stream in blocks of this many steps",
    )
    command.add_argument(
        "--rate",
        type=above_0,
        metavar="HZ",
        help="steps per second of that stream, which set the time budget of a block",
    )
    command.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="write the result to this file as JSON; of --precision all, as a picture if it ends in .svg",
    )
    add_loading(command, '. "all": time against error for every precision of every engine')


def _bench(options: argparse.Namespace) -> None:
    if (options.block is None) != (options.rate is None):
        there, absent = ("--block", "--rate") if options.rate is None else ("--rate", "--block")
        hint = "For example --block 64 --rate 48000."
        raise ValueError(message("bench", f"{absent} with {there}", f"{there} alone", hint))
    check_outputs([options.output], [options.model])
    has_all = options.precision == "all"
    draws = options.output is not None and options.output.lower().endswith(".svg")
    if draws and not has_all:
        raise ValueError(message("--output", "--precision all with a picture", options.output))
    if has_all:
        if options.block is not None:
            raise ValueError(message("--precision", "one precision with --block", "all"))
        options.precision = None
    saved = programs.open_program(options, options.model)
    if saved is not None:
        programs.refuse(options, "block", "rate", steps=STEPS, batch=BATCH)
        if has_all:
            raise ValueError(message("--precision", "a model of layers with all", "a program"))
    # Imported here, since no other command needs it. Engines read their number of threads as they load.
    from fastrnn.benchmark.engines import limit_threads

    limit_threads(1)
    if saved is not None:
        result, show = _bench_program(saved, options)
    else:
        model, _ = load_model(options.model, options)
        time_model = _bench_precisions if has_all else _bench_model if options.block is None else _bench_block
        result, show = time_model(model, options)
    if options.output is not None:
        with replacing(options.output) as draft, open(draft, "w") as file:
            file.write(_drawn(result) if draws else json.dumps(result, indent=1))
    if options.json:
        print(json.dumps(result))
    else:
        show(result)


def _bench_program(saved: StateDict, options: argparse.Namespace) -> Result:
    program = programs.load_program(options.model, saved, argparse.Namespace(**vars(options), threads=1))
    return programs.bench(program, options.rounds), programs.print_bench


def _bench_model(model: fastrnn.Sequential, options: argparse.Namespace) -> Result:
    from fastrnn.benchmark.model import bench_model, print_result

    with progress("bench") as report:
        result = bench_model(model, options.steps, options.batch, options.rounds, report=report)
    return result, print_result


def _bench_precisions(model: fastrnn.Sequential, options: argparse.Namespace) -> Result:
    from fastrnn.benchmark.precisions import bench_precisions, print_precisions

    with progress("bench") as report:
        result = bench_precisions(model, options.steps, options.batch, options.rounds, report=report)
    return result, print_precisions


def _drawn(result: dict[str, Any]) -> str:
    from fastrnn.benchmark.picture import svg

    return svg(result)


def _bench_block(model: fastrnn.Sequential, options: argparse.Namespace) -> Result:
    from fastrnn.benchmark.block import bench_block, print_block

    name = os.path.basename(options.model)
    with progress("bench") as report:
        result = bench_block(model, name, options.block, options.rate, options.rounds, report=report)
    return result, print_block
