"""The command line: a module for each command, with its options and what it prints.

A command parses its options, calls the library and prints the result. It computes nothing itself, and
nothing in the library imports it.

The modules, in the order in which to read them:

    options     options that several commands share, and the model that they name
    info        what is in a file
    convert     a state dict to a saved model
    verify      whether a model gives the outputs that it should
    against     how far a model is from another: ``verify --against``
    run         a model over files or a stream; `running` does the work
    programs    what these do with the file of a program
    bench       a model next to other engines; `fastrnn.benchmark` does the work
    demo        text from the shipped model
"""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

import fastrnn
from fastrnn.cli import bench, convert, demo, info, run, verify
from fastrnn.terminal import ended_by_signal, remark, send_nowhere, streams

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    with streams(), ended_by_signal():
        options = _parser().parse_args(arguments)
        try:
            with np.errstate(all="ignore"):  # overflow is a matter of the model or its input
                status: int = options.command(options) or 0
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            # The reader of the output is gone. Write nothing more, not even at exit.
            send_nowhere(sys.stdout)
            return 0
        except (ValueError, TypeError, ArithmeticError, OSError, MemoryError, RuntimeError) as error:
            text = str(error) or type(error).__name__
            remark(f"fastrnn {options.name}: {text.removeprefix(f'{options.name}: ')}")
            return 2
        except KeyboardInterrupt:
            remark(f"fastrnn {options.name}: interrupted")
            return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fastrnn", description="Run PyTorch's RNN, GRU and LSTM models on a CPU, without torch."
    )
    parser.add_argument("--version", action="version", version=f"fastrnn {fastrnn.__version__}")
    commands = parser.add_subparsers(dest="name", required=True, metavar="COMMAND")
    for command in (info, convert, run, bench, verify, demo):
        command.add_to(commands)
    return parser
