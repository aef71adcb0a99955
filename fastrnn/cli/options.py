"""What several commands share: options, the model that they name, and where results may go."""

import argparse
import math
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np

import fastrnn
from fastrnn.arrays import Array
from fastrnn.checks import PRECISIONS, WIDE, Precision, check_precisions
from fastrnn.errors import join, literal, message, printable, quote
from fastrnn.importers import Source, StateDict, read_stored
from fastrnn.importers.expression import key_in
from fastrnn.importers.numpy_file import read_arrays
from fastrnn.loading.expression import make_from_expression
from fastrnn.loading.load import make_model, what_is_open
from fastrnn.program.sequential import nest_state
from fastrnn.saving.whole_files import check_target
from fastrnn.terminal import remark

# How many of the values next to the weights a remark names.
MAX_NAMED = 12

MODEL_HELP = "a saved model, or a state dict whose architecture is clear"
KEY_HELP = "where in a checkpoint the state dict is"

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_command(
    commands: Commands,
    name: str,
    function: Callable[[argparse.Namespace], int | None],
    summary: str,
) -> argparse.ArgumentParser:
    """Add a command that prints its result, or JSON with ``--json``."""
    command = commands.add_parser(name, help=summary, description=summary)
    command.set_defaults(command=function)
    command.add_argument("--json", action="store_true", help="print the result as JSON")
    return command


def add_loading(command: argparse.ArgumentParser, all_help: str = "") -> None:
    """Add the options that say how a model is loaded. With `all_help`, --precision may be "all" too."""
    command.add_argument("--key", help=KEY_HELP)
    command.add_argument(
        "--batch-first", action="store_true", default=None, help="inputs have shape (B, T, I)"
    )
    command.add_argument("--nonlinearity", choices=("tanh", "relu"), help="the nonlinearity of an RNN")
    narrow = join([name for name in PRECISIONS if name not in WIDE])
    command.add_argument(
        "--precision",
        type=partial(_precision, (*PRECISIONS, *(["all"] if all_help else []))),
        metavar="PRECISION",
        help=f"what to compute in: {', '.join(PRECISIONS)} ({narrow}: products alone). Or those of the "
        f"matrices of recurrent layers: recurrent=int8,input=float32{all_help}",
    )


def _precision(choices: Sequence[str], text: str) -> Precision:
    """The argparse type of a precision: one name, or names of matrices with one each."""
    if "=" not in text:
        if text not in choices:
            raise argparse.ArgumentTypeError(f"expected one of {', '.join(choices)}, got {text}.")
        return text
    named: dict[str, str] = {}
    for part in text.split(","):
        name, _, precision = (word.strip() for word in part.partition("="))
        if name in named:
            raise argparse.ArgumentTypeError(f"expected {name} once, got it twice.")
        named[name] = precision
    try:
        check_precisions("--precision", named)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error).removeprefix("--precision: ")) from None
    return named


def add_example(command: argparse.ArgumentParser, title: str) -> None:
    """Add the files of an example from torch."""
    group = command.add_argument_group(title)
    for option, name, meaning in (
        (("--input",), "X", "the module's input (.npy, or .npz with x and optionally lengths)"),
        (("--expect",), "Y", "its output in eval() (.npy or .npz)"),
        (("--initial-state", "--state"), "S", "the state that it began in: h, or h and c (.npz or .npy)"),
    ):
        dest = f"example_{option[0][2:].replace('-', '_')}"
        group.add_argument(*option, dest=dest, metavar=name, help=meaning)
    group.add_argument(
        "--tolerance",
        type=above_0,
        help="largest difference allowed (default: 1e-5 of the largest value, "
        "more if the model amplifies rounding)",
    )


def read_example(options: argparse.Namespace, model: fastrnn.Sequential) -> dict[str, Any] | None:
    """The example that the options name, as `Sequential.save` takes it. None if they name none."""
    files = [options.example_input, options.example_expect]
    if files == [None, None]:
        if options.example_initial_state is not None:
            raise ValueError(message("--initial-state", "--input and --expect as well", "neither"))
        if options.tolerance is not None:
            raise ValueError(message("--tolerance", "--input and --expect as well", "neither"))
        return None
    if None in files:
        raise ValueError(message("example", "both --input and --expect", "one of them"))
    x, lengths, state = read_input(options, model)
    y = only_array(files[1], read_arrays(Source(files[1])), "y")
    return {"x": x, "y": y, "state": state, "lengths": lengths}


def read_input(options: argparse.Namespace, model: fastrnn.Sequential) -> tuple[Array, Array | None, Any]:
    """The input that the options name, its lengths, and the initial state."""
    path = options.example_input
    inputs = read_arrays(Source(path))
    lengths = inputs.pop("lengths", None)
    x = only_array(path, inputs, "x")
    state = None
    if options.example_initial_state is not None:
        state = nest_state(model, _in_order(options.example_initial_state))
    return x, lengths, state


def _in_order(path: str) -> list[Array]:
    """The arrays of a file of states: h, or h and c, or state0, state1, ... as `fastrnn run` saves them."""
    arrays = read_arrays(Source(path))
    numbered = [f"state{index}" for index in range(len(arrays))]
    for names in (["x"], ["h"], ["h", "c"], numbered):
        if arrays.keys() == set(names):
            return [arrays[name] for name in names]
    raise ValueError(message(os.path.basename(path), "h, or h and c, or state0, state1, ...", quote(arrays)))


def only_array(path: str, arrays: dict[str, Array], name: str) -> Array:
    """The only array of a file."""
    if len(arrays) != 1:
        raise ValueError(message(os.path.basename(path), f"one array, {name}", f"{quote(arrays)}"))
    return next(iter(arrays.values()))


def tell_granted(model: fastrnn.Sequential, has_example: bool) -> None:
    """Say on stderr what is taken for granted, since no example from torch has confirmed it."""
    if model.taken_for_granted is not None:
        remark(what_is_open(model.taken_for_granted, has_example))


def at_least(least: int) -> Callable[[str], int]:
    """The argparse type of a whole number that is not smaller than `least`."""

    def read(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a number of at least {least}, got {text}.")
        return int(text)

    read.__name__ = "int"  # what argparse calls it in the message for a text that is not a number
    return read


def above_0(text: str) -> float:
    """The argparse type of a finite number above 0."""
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}.")
    return float(text)


above_0.__name__ = "float"


def some_text(text: str) -> str:
    """The argparse type of a text that is not empty."""
    if not text:
        raise argparse.ArgumentTypeError("expected at least one character, got none.")
    return text


def load_model(path: str, options: argparse.Namespace) -> tuple[fastrnn.Sequential, StateDict]:
    """The model of a file, and the state dict it was made of. Remarks on stderr say what is odd about it."""
    source = Source(path)
    state_dict = read_stored(source, _key(options))
    loading = {"precision": options.precision, "threads": getattr(options, "threads", None)}
    layers = getattr(options, "layers", None)
    if layers is None:
        model = make_model(
            source, state_dict, batch_first=options.batch_first, nonlinearity=options.nonlinearity, **loading
        )
    else:
        model, unused = make_from_expression(
            source,
            state_dict,
            layers,
            batch_first=options.batch_first,
            nonlinearity=options.nonlinearity,
            **loading,
        )
        if unused:
            remark(f"{source.where}: not used: the modules {quote(unused[:MAX_NAMED])}.")
    tell_of_weights(source, state_dict)
    return model, state_dict


def _key(options: argparse.Namespace) -> str | None:
    """Where in a checkpoint the state dict is, as --key or the program in --layers says."""
    layers = getattr(options, "layers", None)
    key: str | None = options.key
    written = None if layers is None else key_in(layers)
    if written is not None and key is not None and written != key:
        raise ValueError(message("--layers", f"the key {literal(key)} as --key has it", literal(written)))
    return key if written is None else written


def tell_of_weights(source: Source, state_dict: StateDict) -> None:
    """Say which weights are not finite, and what in a state dict is not used."""
    tell_not_finite(source, state_dict)
    if state_dict.left_out:
        names = list(map(printable, state_dict.left_out))
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        remark(f"{source.where}: not used: {', '.join(names[:MAX_NAMED])}{more} (fastrnn info shows them).")


def tell_not_finite(source: Source, state_dict: StateDict) -> None:
    """Say which weights are not finite, how many of their numbers, and where the first one is."""
    for name, stored in state_dict.items():
        array = np.asarray(stored)
        is_weight = array.dtype.kind in "fc" and not name.startswith(("golden.", "example."))
        if is_weight and not (finite := np.isfinite(array)).all():
            places = np.argwhere(~finite)
            first = f", first at {tuple(map(int, places[0]))}" if array.ndim else ""
            count = f"{len(places)} of {array.size} places{first}"
            remark(f"{source.where}: {printable(name)} holds NaN or infinity at {count}.")


def check_outputs(outputs: Iterable[str | None], inputs: Iterable[str]) -> None:
    """Before any work is done, refuse to overwrite an input or another output, or what cannot be written."""
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
