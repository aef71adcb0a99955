"""``fastrnn run``: a model over the sequences of a file."""

import argparse
import json
import os
import time
from typing import Any

import numpy as np

from fastrnn.cli.options import (
    Commands,
    add_command,
    add_loading,
    check_outputs,
    load_model,
    tell_granted,
)
from fastrnn.errors import Array, State
from fastrnn.files import replacing
from fastrnn.offline import read_inputs, run_file
from fastrnn.terminal import progress


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands, "run", _run, "Run a model over the sequences of a file, larger than memory if need be."
    )
    command.add_argument("model", help="a saved model, or a state dict whose architecture is plain")
    command.add_argument(
        "input",
        help="a .npy array, (T, B, I) or as the model's batch_first says, (T, I), or tokens "
        "without I; or an .npz with x, and lengths if need be",
    )
    command.add_argument("-o", "--output", required=True, help="where the output goes (.npy)")
    command.add_argument("--state", help="where the final states go (.npz)")
    add_loading(command)


def _run(options: argparse.Namespace) -> None:
    began = time.perf_counter()
    check_outputs([options.output, options.state], [options.model, options.input])
    model, _ = load_model(options.model, options)
    x, lengths = read_inputs(options.input)
    tell_granted(model)
    with progress(os.path.basename(options.input)) as report:
        shape, state = run_file(model, x, options.output, lengths, report)
    if options.state is not None:
        arrays: dict[str, Any] = {f"state{i}": array for i, array in enumerate(_flatten(state))}
        with replacing(options.state) as draft, open(draft, "wb") as file:
            np.savez(file, **arrays)
    seconds = time.perf_counter() - began
    if options.json:
        print(json.dumps({"input": x.shape, "output": shape, "seconds": seconds}))
    else:
        print(f"{options.output}: {shape}, {seconds:.2f} s")


def _flatten(state: State | None) -> list[Array]:
    """The arrays of a state in order: h, c of the first recurrent layer, and so on."""
    if state is None:
        return []
    if isinstance(state, tuple):
        return [array for part in state for array in _flatten(part)]
    return [state]
