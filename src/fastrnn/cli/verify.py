"""``fastrnn verify``: the self-test of a saved model."""

import argparse
import json
import math
from typing import Any

from fastrnn.cli.options import Commands, add_command
from fastrnn.model import Comparison, verify


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands, "verify", _verify, "See whether this machine computes what a saved model's weights say."
    )
    command.add_argument("model", help="a saved model, with its self-test")


def _verify(options: argparse.Namespace) -> int:
    result = verify(options.model)
    if options.json:
        print(json.dumps(finite(result)))
    else:
        print(
            f"{'passed' if result['passed'] else 'FAILED'}: {result['values']} values, largest error "
            f"{result['largest_error']:.2g}, allowed {result['tolerance']:.2g}"
        )
    return 0 if result["passed"] else 1


def finite(result: Comparison) -> dict[str, Any]:
    """For JSON, which knows no NaN: an error that is none is null."""
    error = result["largest_error"]
    return {**result, "largest_error": error if math.isfinite(error) else None}
