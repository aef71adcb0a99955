"""The command line: thin over the library. A module for each command, with its options and what it prints.

Nothing here computes: what a command does is the library's, and `options` holds what several commands share.
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
    """Run the command; return its exit status."""
    with streams(), ended_by_signal():
        options = _parser().parse_args(arguments)
        try:
            with np.errstate(all="ignore"):  # numbers out of range are the model's or the input's
                status: int = options.command(options) or 0
            sys.stdout.flush()
            return status
        except BrokenPipeError:
            # Whoever read the output has had enough. Nothing more is written, at exit either.
            send_nowhere(sys.stdout)
            return 0
        except (ValueError, TypeError, ArithmeticError, OSError, MemoryError, RuntimeError) as error:
            remark(f"fastrnn {options.name}: {str(error) or type(error).__name__}")
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
