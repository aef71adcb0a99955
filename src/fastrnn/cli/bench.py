"""``fastrnn bench``: a model beside the engines that are installed."""

import argparse
import json

from fastrnn.cli.options import Commands, add_command, add_loading, at_least, check_outputs, load_model
from fastrnn.files import replacing
from fastrnn.terminal import progress


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands, "bench", _bench, "Time a model beside the engines that are installed, one thread each."
    )
    command.add_argument("model", help="a saved model, or a state dict whose architecture is plain")
    for option, default, meaning in (
        ("--steps", 100, "time steps of a sequence"),
        ("--batch", 32, "rows of the larger batch"),
        ("--rounds", 21, "turns that each engine takes"),
    ):
        command.add_argument(option, type=at_least(1), default=default, help=f"{meaning} (default {default})")
    command.add_argument("-o", "--output", help="where the result goes (.json)")
    add_loading(command)


def _bench(options: argparse.Namespace) -> None:
    check_outputs([options.output], [options.model])
    # Late: no other command needs it. And before any engine loads, which reads its threads then.
    from fastrnn.benchmark.engines import limit_threads
    from fastrnn.benchmark.model import bench_model, print_result

    limit_threads(1)
    model, _ = load_model(options.model, options)
    with progress("bench") as report:
        result = bench_model(model, options.steps, options.batch, options.rounds, report=report)
    if options.output is not None:
        with replacing(options.output) as draft, open(draft, "w") as file:
            json.dump(result, file, indent=1)
    if options.json:
        print(json.dumps(result))
    else:
        print_result(result)
