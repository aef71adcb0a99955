"""What several commands share: options, the model of a file, where results may go."""

import argparse
import math
import os
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np

import fastrnn
from fastrnn.arrays import Array
from fastrnn.errors import literal, message, printable, quote
from fastrnn.importers import Source, StateDict
from fastrnn.importers.expression import key_in
from fastrnn.importers.numpy_file import read_arrays
from fastrnn.loading.expression import make_from_expression
from fastrnn.loading.load import make_model, what_is_open
from fastrnn.program.sequential import nest_state
from fastrnn.saving.whole_files import check_target
from fastrnn.terminal import remark

# How many of the things beside the weights are named.
MAX_NAMED = 12

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


def add_example(command: argparse.ArgumentParser, title: str) -> None:
    """Add the files of an example from torch."""
    group = command.add_argument_group(title)
    for option, name, meaning in (
        ("--input", "X", "what the module was given (.npy, or .npz with x and perhaps lengths)"),
        ("--expect", "Y", "what it gave in eval() (.npy or .npz)"),
        ("--state", "S", "the initial state that it was given: h, or h and c (.npz or .npy)"),
    ):
        group.add_argument(option, dest=f"example_{option[2:]}", metavar=name, help=meaning)
    group.add_argument(
        "--tolerance",
        type=above_0,
        help="how far outputs may differ (default: 1e-5 of the largest value, "
        "more where a model amplifies rounding)",
    )


def read_example(options: argparse.Namespace, model: fastrnn.Sequential) -> dict[str, Any] | None:
    """The example that options name, as `Sequential.save` takes it; None where they name none."""
    files = [options.example_input, options.example_expect]
    if files == [None, None]:
        if options.example_state is not None:
            raise ValueError(message("--state", "--input and --expect beside it", "none"))
        if options.tolerance is not None:
            raise ValueError(message("--tolerance", "--input and --expect beside it", "none"))
        return None
    if None in files:
        raise ValueError(message("example", "--input and --expect together", "one of them"))
    inputs = read_arrays(Source(files[0]))
    lengths = inputs.pop("lengths", None)
    x = _only_array(files[0], inputs, "x")
    y = _only_array(files[1], read_arrays(Source(files[1])), "y")
    state = None
    if options.example_state is not None:
        state = nest_state(model, _in_order(options.example_state))
    return {"x": x, "y": y, "state": state, "lengths": lengths}


def _in_order(path: str) -> list[Array]:
    """The arrays of a file of states: h, or h and c, or state0, state1, ... as `fastrnn run` writes them."""
    arrays = read_arrays(Source(path))
    numbered = [f"state{index}" for index in range(len(arrays))]
    for names in (["x"], ["h"], ["h", "c"], numbered):
        if arrays.keys() == set(names):
            return [arrays[name] for name in names]
    raise ValueError(message(os.path.basename(path), "h, or h and c, or state0, state1, ...", quote(arrays)))


def _only_array(path: str, arrays: dict[str, Array], name: str) -> Array:
    if len(arrays) != 1:
        raise ValueError(message(os.path.basename(path), f"one array, {name}", f"{quote(arrays)}"))
    return next(iter(arrays.values()))


def tell_granted(model: fastrnn.Sequential, has_example: bool) -> None:
    """Say on stderr what no example from torch has decided."""
    if model.taken_for_granted is not None:
        remark(what_is_open(model.taken_for_granted, has_example))


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


def load_model(path: str, options: argparse.Namespace) -> tuple[fastrnn.Sequential, StateDict]:
    """The model of a file, and what it was made of; what is odd about it is told on stderr."""
    source = Source(path)
    state_dict = fastrnn.load_state_dict(source, _key(options))
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
    """Where the state dict lies, as --key or the program in --layers says."""
    layers = getattr(options, "layers", None)
    key: str | None = options.key
    written = None if layers is None else key_in(layers)
    if written is not None and key is not None and written != key:
        raise ValueError(message("--layers", f"the key {literal(key)} as --key has it", literal(written)))
    return key if written is None else written


def tell_of_weights(source: Source, state_dict: StateDict) -> None:
    """Say which weights are no numbers, and what of a state dict is not used."""
    for name, array in state_dict.items():
        is_weight = array.dtype.kind == "f" and not name.startswith(("golden.", "example."))
        if is_weight and not np.isfinite(array).all():
            remark(f"{source.where}: {printable(name)} holds NaN or infinity.")
    if state_dict.left_out:
        names = list(map(printable, state_dict.left_out))
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        remark(f"{source.where}: not used: {', '.join(names[:MAX_NAMED])}{more} (fastrnn info shows them).")


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
