"""What several commands share: options, the model of a file, where results may go."""

import argparse
import math
import os
from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

import fastrnn
from fastrnn.errors import message
from fastrnn.files import check_target
from fastrnn.model import is_saved, make_model
from fastrnn.terminal import remark

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands,
    name: str,
    function: Callable[[argparse.Namespace], int | None],
    summary: str,
) -> argparse.ArgumentParser:
    """Add a command that prints its result, as JSON if asked to."""
    command = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(command=function)
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    return command


def add_loading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--key", help="where the state dict lies in a checkpoint")
    command.add_argument("--batch-first", action="store_true", default=None, help="inputs are (B, T, I)")
    command.add_argument("--nonlinearity", choices=("tanh", "relu"), help="of an RNN")
    command.add_argument("--precision", choices=("float32", "float64"))


def at_least(least: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from there on."""

    def read(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a number from {least} on, got {text}.")
        return int(text)

    read.__name__ = "int"  # as argparse names it where the text is no number
    return read


def above_0(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}.")
    return float(text)


above_0.__name__ = "float"


def some_text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected at least one character, got none.")
    return text


def load_model(path: str, options: argparse.Namespace) -> tuple[fastrnn.Sequential, bool]:
    """The model of a file, and whether it was read off a state dict, which tells less than a saved model."""
    state_dict = fastrnn.load_state_dict(path, options.key)
    model = make_model(
        os.path.basename(path),
        state_dict,
        batch_first=options.batch_first,
        nonlinearity=options.nonlinearity,
        precision=options.precision,
        threads=getattr(options, "threads", None),  # which not every command has
    )
    for name, array in state_dict.items():
        is_weight = array.dtype.kind == "f" and not name.startswith("golden.")
        if is_weight and not np.isfinite(array).all():
            remark(f"{os.path.basename(path)}: {name} holds NaN or infinity.")
    return model, not is_saved(state_dict)


def check_outputs(outputs: Iterable[str | None], inputs: Iterable[str]) -> None:
    """Refuse to write over an input or another output, or where nothing can be written, before any work is
    done."""
    taken = dict.fromkeys(map(os.path.realpath, inputs), "the input")
    for output in outputs:
        if output is None:
            continue
        check_target(output)
        for other, what in taken.items():
            if os.path.realpath(output) == other or (
                os.path.exists(output) and os.path.exists(other) and os.path.samefile(output, other)
            ):
                raise ValueError(message("output", f"another file than {what}", output))
        taken[os.path.realpath(output)] = "the other output"


def taken_for_granted(options: argparse.Namespace) -> str:
    axis = "batch" if options.batch_first else "time"
    return (
        f"Read off keys and shapes. Taken for granted: {axis} first, an output for every step, "
        "no activations. A state dict tells nothing of those."
    )
