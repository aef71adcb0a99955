"""``fastrnn verify``: run the tests of a saved model, or compare a model with torch or another model."""

import argparse
import json
import math
from collections.abc import Mapping
from typing import Any

import fastrnn
from fastrnn.cli import against, programs
from fastrnn.cli.options import (
    Commands,
    add_command,
    add_example,
    add_loading,
    load_model,
    read_example,
    tell_not_finite,
)
from fastrnn.errors import message
from fastrnn.importers import Source, read_stored
from fastrnn.loading.load import what_is_open
from fastrnn.loading.verify import Verification, verify_read
from fastrnn.saving.golden import Comparison
from fastrnn.saving.model_file import is_saved
from fastrnn.saving.program_file import is_program
from fastrnn.terminal import print_lines


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "verify",
        _verify,
        "Run the self-test of a saved model on this machine. With --input and --expect, compare a model's "
        "output with that of the torch module. With --against, compare it with another model.",
    )
    command.add_argument("model", help="a saved model; with an example, a state dict will do as well")
    add_example(command, "an example from torch")
    command.add_argument(
        "--keep",
        action="store_true",
        help="if the outputs agree, store the example in the saved model's file",
    )
    against.add_options(command)
    add_loading(command)


def _verify(options: argparse.Namespace) -> int:
    if options.against is not None:
        return against.compare_models(options)
    if options.steps is not None:
        raise ValueError(message("--steps", "--against as well", "none"))
    if options.example_input is None and options.example_expect is None:
        for name in (
            "example_initial_state",
            "tolerance",
            "keep",
            "key",
            "batch_first",
            "nonlinearity",
            "precision",
        ):
            if getattr(options, name):
                raise ValueError(message(programs.option_of(name), "--input and --expect as well", "neither"))
        source = Source(options.model)
        read = read_stored(source)
        result = verify_read(source.where, read)
        tell_not_finite(source, read)
        if options.json:
            print(json.dumps(as_json(result)))
        else:
            print_verification(options.model, result, is_program(read))
        return 0 if result["passed"] else 1
    model: fastrnn.Sequential | fastrnn.Program
    saved = programs.open_program(options, options.model)
    if saved is not None:
        model, state_dict = programs.load_program(options.model, saved, options), saved
        example = programs.read_example(options, model)
    else:
        model, state_dict = load_model(options.model, options)
        example = None
    if options.keep and not is_saved(state_dict):
        hint = "fastrnn convert makes one that holds the example."
        raise ValueError(message("--keep", "a saved model", state_dict.file_format, hint))
    if isinstance(model, fastrnn.Sequential):
        example = read_example(options, model)
    assert example is not None
    found = model.verify(**example, tolerance=options.tolerance)
    if options.keep and found["passed"]:
        model.save(options.model, example, tolerance=options.tolerance)
    if options.json:
        print(json.dumps(as_json(found)))
    else:
        print_lines(_told(found))
        if options.keep and found["passed"]:
            print_lines(f"{options.model} now holds the example")
    return 0 if found["passed"] else 1


def print_verification(name: str, result: Verification, is_program: bool = False) -> None:
    """Print the results of a file's tests, and a note if it was never compared with torch."""
    own = "passed" if result["self_test_passed"] else "FAILED"
    print_lines(f"{own}: self-test against the NumPy reference: {_numbers(result)}")
    if result["example"] is not None:
        print_lines(f"{_told(result['example'])}, compared with torch")
    if is_program:
        return
    open_ = what_is_open(result["taken_for_granted"], result["example"] is not None)
    if open_:
        print_lines(open_)
        print_lines(f"To compare: fastrnn verify {name} --input x.npy --expect y.npy --keep")


def _told(result: Comparison) -> str:
    return f"{'passed' if result['passed'] else 'FAILED'}: {_numbers(result)}"


def _numbers(result: Comparison) -> str:
    hint = f". {result['hint']}" if result["hint"] else ""
    error = result["largest_error"]
    return (
        f"{result['values']} values, largest error {'NaN' if math.isnan(error) else f'{error:.2g}'}, "
        f"allowed {result['tolerance']:.2g}{hint}"
    )


def as_json(result: Mapping[str, Any]) -> dict[str, Any]:
    """The result for JSON, which has neither NaN nor infinity: such an error is null."""
    error = result["largest_error"]
    inner = result.get("example")
    more = {} if "example" not in result else {"example": None if inner is None else as_json(inner)}
    return {**result, "largest_error": error if math.isfinite(error) else None, **more}
