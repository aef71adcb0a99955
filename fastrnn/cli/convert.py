"""``fastrnn convert``: make a saved model of a state dict."""

import argparse
import json
import os
import sys
import warnings
from typing import Any

import fastrnn
from fastrnn.cli import programs
from fastrnn.cli.options import (
    Commands,
    add_command,
    add_example,
    add_loading,
    check_outputs,
    load_model,
    only_array,
    read_example,
)
from fastrnn.cli.verify import as_json, print_verification
from fastrnn.errors import message
from fastrnn.importers import Source
from fastrnn.importers.numpy_file import read_arrays
from fastrnn.loading.calibration import calibrate
from fastrnn.loading.expression import with_last
from fastrnn.loading.verify import verify
from fastrnn.terminal import print_lines, remark

LAYERS_HELP = """\
the layers in order, if the file alone does not tell them: paths of modules, and layers without weights, such
as "embedding, lstm, Last, fc, Sigmoid". Put a path with a number in quotes: "'fc.0'". Options go in
parentheses: "LSTM('lstm', batch_first=True), Softmax(dim=-1)". Or paste the Sequential that `fastrnn info`
shows. Use - to read the layers from stdin and @FILE to read them from a file. They are never executed"""


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands,
        "convert",
        _convert,
        "Convert a state dict to a saved model with a self-test, or a program to another precision.",
    )
    command.add_argument("input", help="a state dict: a file, or a folder with its shards")
    command.add_argument("output", help="where to save the model (.safetensors)")
    command.add_argument("--layers", type=_text_of, metavar="LAYERS", help=LAYERS_HELP)
    command.add_argument(
        "--last", action="store_true", help="keep only the last valid time step of the recurrent layer"
    )
    command.add_argument(
        "--calibrate",
        metavar="X",
        help="a typical input (.npy, or .npz with x and optionally lengths). With --precision int8, features "
        "of very different sizes are brought to about one, if this makes errors smaller",
    )
    add_loading(command)
    add_example(command, "an example from torch, which the model has to match and the file keeps")


def _text_of(text: str) -> str:
    if text == "-":
        return sys.stdin.read()
    if text.startswith("@"):
        try:
            with open(text[1:]) as file:
                return file.read()
        except (OSError, UnicodeDecodeError) as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return text


def _calibrated(options: argparse.Namespace) -> fastrnn.Sequential:
    """The model at a precision, with factors for the features of its input if they help."""
    if options.precision is None:
        raise ValueError(message("--calibrate", "--precision int8 as well", "none"))
    arrays = read_arrays(Source(options.calibrate))
    lengths = arrays.pop("lengths", None)
    x = only_array(options.calibrate, arrays, "x")
    wide, _ = load_model(options.input, argparse.Namespace(**{**vars(options), "precision": None}))
    found = calibrate(wide, x, options.precision, lengths)
    told = f"mean error {found.scaled:.2g} with scaled features, {found.plain:.2g} without"
    remark(f"--calibrate: {told}. {'They are scaled.' if found.is_scaled else 'They stay as they are.'}")
    return found.model


def _convert(options: argparse.Namespace) -> int:
    check_outputs([options.output], [options.input])
    saved = programs.open_program(options, options.input)
    if saved is not None:
        programs.refuse(options, "layers", "last", "calibrate")
        model: Any = programs.load_program(options.input, saved, options)
        example = programs.read_example(options, model)
    else:
        model = load_model(options.input, options)[0] if options.calibrate is None else _calibrated(options)
        if options.last:
            if model.example is not None:
                remark(
                    f"{os.path.basename(options.input)}: its example is not kept: it is of another output."
                )
            model = with_last(model)
        example = read_example(options, model)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UserWarning)
        model.save(options.output, example, tolerance=options.tolerance)
    for warning in told:
        remark(str(warning.message))
    result = verify(options.output)
    if options.json:
        print(json.dumps({"model": repr(model), **as_json(result)}))
    else:
        print_lines(repr(model))
        print_verification(options.output, result, saved is not None)
    return 0
