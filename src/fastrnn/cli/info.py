"""``fastrnn info``: what a file holds."""

import argparse
import json
import os

import fastrnn
from fastrnn.cli.options import Commands, add_command
from fastrnn.importers.architecture import suggestion
from fastrnn.model import is_saved, make_model
from fastrnn.spec import recurrent_prefixes
from fastrnn.terminal import print_table, shown


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands, "info", _info, "Show what a file holds: tensors, recurrent modules, what was left out."
    )
    command.add_argument("file", help="a state dict (.pt, .safetensors, .npz) or a saved model")
    command.add_argument("--key", help="where the state dict lies in a checkpoint")


def _info(options: argparse.Namespace) -> None:
    state_dict = fastrnn.load_state_dict(options.file, options.key)
    model = repr(make_model(os.path.basename(options.file), state_dict)) if is_saved(state_dict) else None
    if options.json:
        print(json.dumps({
            "format": state_dict.file_format,
            "key": state_dict.key,
            "model": model,
            "tensors": {
                name: {"shape": list(array.shape), "dtype": str(array.dtype)}
                for name, array in state_dict.items()
            },
            "recurrent": recurrent_prefixes(state_dict),
            "left_out": state_dict.left_out,
        }))  # fmt: skip
        return
    tensors = dict(state_dict)
    if model is not None:
        tensors = {name: tensors[name] for name in sorted(tensors) if not name.startswith("golden.")}
    numbers = sum(array.size for array in tensors.values())
    place = f', under "{state_dict.key}"' if state_dict.key else ""
    print(f"{state_dict.file_format}{place}: {len(tensors)} tensors, {numbers:,} numbers\n")
    print_table(
        ("tensor", "shape", "dtype"),
        [(name, str(array.shape), str(array.dtype)) for name, array in tensors.items()],
    )
    if state_dict.left_out:
        print("\nLeft out:")
        for name, what in list(state_dict.left_out.items())[:50]:
            print(shown(f"  {name}: {what}"))
    print()
    for line in (repr(model) if model is not None else suggestion(state_dict)).splitlines():
        print(shown(line))
