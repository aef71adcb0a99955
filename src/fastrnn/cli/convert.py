"""``fastrnn convert``: a state dict to a saved model."""

import argparse
import json

from fastrnn.cli.options import (
    Commands,
    add_command,
    add_loading,
    check_outputs,
    load_model,
    taken_for_granted,
)
from fastrnn.cli.verify import finite
from fastrnn.model import verify


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands, "convert", _convert, "Make a saved model, with its self-test, of a state dict."
    )
    command.add_argument("input", help="a state dict whose architecture is plain")
    command.add_argument("output", help="the model (.safetensors)")
    add_loading(command)


def _convert(options: argparse.Namespace) -> None:
    check_outputs([options.output], [options.input])
    model, is_read_off = load_model(options.input, options)
    model.save(options.output)
    result = verify(options.output)
    if options.json:
        print(json.dumps({"model": repr(model), **finite(result)}))
    else:
        print(model)
        if is_read_off:
            print(taken_for_granted(options))
        print(
            f"{options.output}: self-test beside the reference in NumPy: "
            f"largest error {result['largest_error']:.2g}, allowed {result['tolerance']:.2g}"
        )
