"""``fastrnn verify MODEL --against ORIGINAL``: how far a model is from another, and what each costs."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

import fastrnn
from fastrnn.arrays import Array
from fastrnn.cli import programs
from fastrnn.cli.options import at_least, load_model, read_input
from fastrnn.errors import message
from fastrnn.importers import Source, read_stored
from fastrnn.saving.golden import SEED
from fastrnn.saving.model_file import is_saved
from fastrnn.structure import rebuild
from fastrnn.terminal import print_lines

# The seeded input, if no file has one.
ROWS, INPUT_STEPS = 2, 100
# What says how a state dict becomes a model, and what no saved model takes.
READING = ("key", "batch_first", "nonlinearity")


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the options to the command."""
    group = command.add_argument_group("a comparison with another model")
    group.add_argument(
        "--against",
        metavar="ORIGINAL",
        help="compare with this model, such as the one in float32: errors at each layer and over a long "
        "run, sizes and times. --input is what both are given (default: seeded numbers). With --tolerance "
        "the exit status is 1 if a result is further away",
    )
    group.add_argument(
        "--steps", type=at_least(1), metavar="N", help="steps of the long run (default 10,000)"
    )


def compare_models(options: argparse.Namespace) -> int:
    """Compare the two models that the options name. Return the exit status."""
    for name in ("example_expect", "keep"):
        if getattr(options, name):
            raise ValueError(message(programs.option_of(name), "no --against", "both"))
    original = _load(options.against, argparse.Namespace(**{**vars(options), "precision": None}))
    model = _load(options.model, options)
    x, lengths = _input(options, original)
    given = {} if options.steps is None else {"steps": options.steps}
    found = fastrnn.compare(original, model, x, lengths=lengths, **given)
    error, allowed = found.largest_error, options.tolerance
    passed = allowed is None or error <= allowed
    if options.json:
        print(json.dumps({**found.as_dict(), "tolerance": allowed, "passed": passed}))
    else:
        print_lines(str(found))
        if allowed is not None:
            told = f"largest error {error:.2g}, allowed {allowed:.2g}"
            print_lines(f"{'passed' if passed else 'FAILED'}: {told}")
    return 0 if passed else 1


def _load(path: str, options: argparse.Namespace) -> Any:
    saved = programs.open_program(options, path)
    if saved is not None:
        return programs.load_program(path, saved, options)
    if is_saved(read_stored(Source(path))):
        options = argparse.Namespace(**{**vars(options), **dict.fromkeys(READING)})
    return load_model(path, options)[0]


def _input(options: argparse.Namespace, model: Any) -> tuple[Any, Array | None]:
    """The arguments of a call, and lengths."""
    path, state = options.example_input, options.example_initial_state
    if path is None and state is not None:
        raise ValueError(message("--initial-state", "--input as well", "none"))
    if not isinstance(model, fastrnn.Sequential):
        programs.refuse(options, "example_initial_state")
        if path is None:
            from fastrnn.program.pairs import make_inputs

            arrays: Any = list((model.golden_inputs or make_inputs(model))[-1])
        else:
            arrays = programs.read_inputs(path, model)
        args, _ = rebuild(model.spec.arguments, arrays)
        return tuple(args), None
    if path is not None:
        x, lengths, state = read_input(options, model)
        return (x, state), lengths
    random = np.random.default_rng(SEED)
    shape: tuple[int, ...] = (ROWS, INPUT_STEPS) if model.batch_first else (INPUT_STEPS, ROWS)
    if model.signature.tokens is not None:
        return random.integers(model.signature.tokens, size=shape), None
    return random.standard_normal((*shape, model.features_in or 4)).astype(np.float32), None
