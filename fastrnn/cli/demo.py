"""``fastrnn demo``: write text with the shipped character-level LSTM."""

import argparse
import json
import sys
import time

import numpy as np

import fastrnn
from fastrnn import demo
from fastrnn.cli.options import Commands, above_0, add_command, at_least, some_text


def add_to(commands: Commands) -> None:
    """Add the command to the parser."""
    command = add_command(
        commands, "demo", _demo, "Write text with the shipped character-level LSTM, one step at a time."
    )
    command.add_argument("--length", type=at_least(1), default=600, help="number of characters (default 600)")
    command.add_argument(
        "--prompt",
        type=some_text,
        default=demo.PROMPT,
        help=f"what the text begins with (default {demo.PROMPT!r})",
    )
    command.add_argument(
        "--temperature", type=above_0, default=0.6, help="higher is more random (default 0.6)"
    )
    command.add_argument("--seed", type=at_least(0), default=0, help="seed of the random numbers (default 0)")


def _demo(options: argparse.Namespace) -> None:
    began = time.perf_counter()
    model = fastrnn.load(demo.weights_path())
    stream = model.stream()
    loading = time.perf_counter() - began
    tokens, seconds = [], []
    text_out = sys.stderr if options.json else sys.stdout
    print(options.prompt, end="", file=text_out)
    for token, second in demo.generate(
        stream, options.length, options.prompt, options.temperature, options.seed
    ):
        tokens.append(token)
        seconds.append(second)
        print(demo.decode([token]), end="", file=text_out, flush=True)
    print(file=text_out)
    microseconds = float(np.median(seconds) * 1e6)
    torch = demo.compare_with_torch(model, tokens)
    if options.json:
        print(json.dumps({
            "model": repr(model),
            "text": options.prompt + demo.decode(tokens),
            "load_seconds": loading,
            "microseconds": microseconds,
            "torch": torch,
        }))  # fmt: skip
        return
    print(f"\n{model}")
    print(
        f"fastrnn {fastrnn.__version__}: loaded in {loading * 1e3:.0f} ms, "
        f"{microseconds:.1f} us per character (median step of {len(seconds)})"
    )
    if torch is None:
        print("torch is not installed, so there is nothing to compare with")
    else:
        print(
            f"torch {torch['version']}, one thread: {torch['microseconds']:.1f} us per character, "
            f"largest difference of a score {torch['largest_difference']:.1e}"
        )
