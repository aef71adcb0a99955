"""``fastrnn info``: show what is in a file."""

import argparse
import datetime
import json
from collections.abc import Iterator
from typing import Any

import numpy as np

import fastrnn
from fastrnn.cli import programs
from fastrnn.cli.options import KEY_HELP, Commands, add_command, tell_not_finite
from fastrnn.errors import printable, quote
from fastrnn.importers import Source, StateDict, read_stored
from fastrnn.importers.architecture import suggestion
from fastrnn.importers.parameters import recurrent_prefixes
from fastrnn.importers.state_dict import describe
from fastrnn.loading.load import make_model, what_is_open
from fastrnn.narrow import NarrowWeight
from fastrnn.saving.model_file import is_saved
from fastrnn.terminal import print_lines, print_table

# How much is shown of the values next to the weights: levels, items per level, lines in all.
MAX_LEVELS = 4
MAX_ITEMS = 20
MAX_SHOWN = 200
MAX_VALUES = 100_000  # in JSON


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands, "info", _info, "Show what is in a file: tensors, recurrent modules, and everything else."
    )
    command.add_argument(
        "file", help="a saved model, a state dict (.pt, .safetensors, .npz), or a folder with its shards"
    )
    command.add_argument("--key", help=KEY_HELP)


def _info(options: argparse.Namespace) -> None:
    source = Source(options.file)
    saved = programs.open_program(options, options.file)
    if saved is not None:
        programs.info(saved, options.file, options.json)
        return
    state_dict = read_stored(source, options.key)
    model = make_model(source, state_dict) if is_saved(state_dict) else None
    tell_not_finite(source, state_dict)
    if options.json:
        print(json.dumps(_as_json(state_dict, model)))
        return
    tensors = dict(state_dict)
    if model is not None:
        tensors = {name: tensors[name] for name in sorted(tensors) if name.startswith("layers.")}
    numbers = sum(array.size for array in tensors.values())
    place = f', under "{state_dict.key}"' if state_dict.key else ""
    print_lines(f"{state_dict.file_format}{place}: {len(tensors)} tensors, {numbers:,} numbers\n")
    print_table(
        ("tensor", "shape", "dtype"),
        [(name, str(array.shape), _stored_as(array)) for name, array in tensors.items()],
    )
    _print_named("Folded into one weight each", state_dict.folded)
    _print_named("Not read", state_dict.unread)
    if state_dict.others:
        print_lines(f"\nOther models in this file: {quote(state_dict.others)}")
    beside = {name: value for name, value in state_dict.left_out.items() if not _is_unread(value)}
    if beside:
        lines = list(_folded(beside))
        print_lines(
            "\n".join(["", "Also in this file:", *lines[:MAX_SHOWN], *["  ..."] * (len(lines) > MAX_SHOWN)])
        )
    print()
    if model is None:
        print_lines(suggestion(source, state_dict))
        return
    print_lines(repr(model))
    has_example = "example.output" in state_dict
    if has_example:
        print_lines("The file holds an example from torch, which `fastrnn verify` compares with.")
    open_ = what_is_open(model.taken_for_granted, has_example)
    print_lines(open_ or "Nothing is taken for granted.")


def _stored_as(array: Any) -> str:
    return array.storage if isinstance(array, NarrowWeight) else str(array.dtype)


def _is_unread(value: object) -> bool:
    return isinstance(value, fastrnn.StandIn) and value.reason != ""


def _print_named(title: str, named: dict[str, str]) -> None:
    if named:
        lines = [printable(f"  {name}: {what}") for name, what in list(named.items())[:MAX_ITEMS]]
        rest = ["  ..."] if len(named) > MAX_ITEMS else []
        print_lines("\n".join(["", f"{title}:", *lines, *rest]))


def _folded(values: Any, level: int = 1) -> Iterator[str]:
    """A line for each value, indented by its level. Long lists and deep levels show their size only."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    for count, (name, value) in enumerate(pairs):
        if count == MAX_ITEMS:
            yield f"{'  ' * level}... {len(values) - MAX_ITEMS} more"
            return
        shown = name if isinstance(name, str) else describe(name)
        yield printable(f"{'  ' * level}{shown}: {_brief(value)}")
        inner = value.state if isinstance(value, fastrnn.StandIn) else value
        if level < MAX_LEVELS and isinstance(inner, dict):
            yield from _folded(inner, level + 1)


def _brief(value: Any) -> str:
    """A value on one line. Short lists of numbers and texts are shown as they are."""
    if isinstance(value, np.ndarray) and value.size <= 8:
        return f"{describe(value)}: {np.array2string(value.reshape(-1), precision=5, separator=', ')}"
    text = repr(value) if isinstance(value, (list, tuple, frozenset)) and _is_flat(value) else ""
    return text if text and len(text) <= 60 else describe(value)


def _is_flat(value: Any) -> bool:
    return len(value) <= MAX_ITEMS and all(isinstance(v, (str, int, float, type(None))) for v in value)


# ---------------------------------------------------------------- for scripts


def _as_json(state_dict: StateDict, model: fastrnn.Sequential | None) -> dict[str, Any]:
    return {
        "format": state_dict.file_format,
        "key": state_dict.key,
        "model": None if model is None else repr(model),
        "taken_for_granted": None if model is None else model.taken_for_granted,
        "compared": "example.output" in state_dict if model is not None else None,
        "tensors": {
            name: {"shape": list(array.shape), "dtype": _stored_as(array)}
            for name, array in state_dict.items()
        },
        "recurrent": recurrent_prefixes(state_dict),
        "folded": state_dict.folded,
        "unread": state_dict.unread,
        "others": list(state_dict.others),
        "left_out": _plain(dict(state_dict.left_out)),
    }


def _plain(value: Any) -> Any:
    """A value as JSON can hold it. Large arrays, deep levels and other types are described in a few words."""
    room = MAX_VALUES

    def plain(value: Any, level: int) -> Any:
        nonlocal room
        room -= 1
        if isinstance(value, np.generic):
            value = value.item()
        if isinstance(value, (bool, str, int, type(None))):
            return value
        if isinstance(value, float):
            return value if np.isfinite(value) else str(value)
        if isinstance(value, np.ndarray) and value.size <= 1000 and value.dtype.kind in "biufU":
            value = value.tolist()
        if level < 2 * MAX_LEVELS and room > 0:
            if isinstance(value, dict):
                return {
                    k if isinstance(k, str) else describe(k): plain(v, level + 1) for k, v in value.items()
                }
            if isinstance(value, (list, tuple, frozenset)) and len(value) <= room:
                return [plain(item, level + 1) for item in value]
        if isinstance(value, (datetime.date, datetime.time)):
            return value.isoformat()
        return value if isinstance(value, (int, float)) else describe(value)

    return plain(value, 0)
