"""The command line: thin over the library."""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

import fastrnn
from fastrnn import demo
from fastrnn.errors import Array, State, message
from fastrnn.files import check_target, replacing
from fastrnn.importers.architecture import suggestion
from fastrnn.model import Comparison, is_saved, make_model, verify
from fastrnn.offline import read_inputs, run_file
from fastrnn.spec import recurrent_prefixes
from fastrnn.terminal import (
    ended_by_signal,
    print_table,
    progress,
    remark,
    send_nowhere,
    shown,
    streams,
)


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

    def add(
        name: str,
        function: Callable[[argparse.Namespace], int | None],
        summary: str,
        with_json: bool = True,
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(command=function)
        if with_json:
            command.add_argument("--json", action="store_true", help="print the result as JSON")
        return command

    info = add("info", _info, "Show what a file holds: tensors, recurrent modules, what was left out.")
    info.add_argument("file", help="a state dict (.pt, .safetensors, .npz) or a saved model")
    info.add_argument("--key", help="where the state dict lies in a checkpoint")

    convert = add("convert", _convert, "Make a saved model, with its self-test, of a state dict.")
    convert.add_argument("input", help="a state dict whose architecture is plain")
    convert.add_argument("output", help="the model (.safetensors)")
    _add_loading(convert)

    run = add("run", _run, "Run a model over the sequences of a file, larger than memory if need be.")
    run.add_argument("model", help="a saved model, or a state dict whose architecture is plain")
    run.add_argument(
        "input",
        help="a .npy array, (T, B, I) or as the model's batch_first says, (T, I), or tokens "
        "without I; or an .npz with x, and lengths if need be",
    )
    run.add_argument("-o", "--output", required=True, help="where the output goes (.npy)")
    run.add_argument("--state", help="where the final states go (.npz)")
    _add_loading(run)

    bench = add("bench", _bench, "Time a model beside the engines that are installed, one thread each.")
    bench.add_argument("model", help="a saved model, or a state dict whose architecture is plain")
    for option, default, meaning in (
        ("--steps", 100, "time steps of a sequence"),
        ("--batch", 32, "rows of the larger batch"),
        ("--rounds", 21, "turns that each engine takes"),
    ):
        bench.add_argument(option, type=_at_least(1), default=default, help=f"{meaning} (default {default})")
    bench.add_argument("-o", "--output", help="where the result goes (.json)")
    _add_loading(bench)

    check = add("verify", _verify, "See whether this machine computes what a saved model's weights say.")
    check.add_argument("model", help="a saved model, with its self-test")

    show = add("demo", _demo, "Write text with the shipped character-level LSTM, one step at a time.")
    show.add_argument("--length", type=_at_least(1), default=600, help="characters (default 600)")
    show.add_argument("--prompt", type=_some_text, default=demo.PROMPT, help="what the text begins with")
    show.add_argument(
        "--temperature", type=_above_0, default=0.6, help="the higher, the more daring (default 0.6)"
    )
    show.add_argument("--seed", type=_at_least(0), default=0, help="of the random numbers (default 0)")
    return parser


def _add_loading(command: argparse.ArgumentParser) -> None:
    command.add_argument("--key", help="where the state dict lies in a checkpoint")
    command.add_argument("--batch-first", action="store_true", default=None, help="inputs are (B, T, I)")
    command.add_argument("--nonlinearity", choices=("tanh", "relu"), help="of an RNN")
    command.add_argument("--precision", choices=("float32", "float64"))


def _at_least(least: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from there on."""

    def read(text: str) -> int:
        if int(text) < least:
            raise argparse.ArgumentTypeError(f"expected a number from {least} on, got {text}.")
        return int(text)

    read.__name__ = "int"  # as argparse names it where the text is no number
    return read


def _above_0(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}.")
    return float(text)


_above_0.__name__ = "float"


def _some_text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("expected at least one character, got none.")
    return text


def _load(path: str, options: argparse.Namespace) -> tuple[fastrnn.Sequential, bool]:
    """The model of a file, and whether it was read off a state dict, which tells less than a saved model."""
    state_dict = fastrnn.load_state_dict(path, options.key)
    model = make_model(
        os.path.basename(path),
        state_dict,
        batch_first=options.batch_first,
        nonlinearity=options.nonlinearity,
        precision=options.precision,
    )
    for name, array in state_dict.items():
        is_weight = array.dtype.kind == "f" and not name.startswith("golden.")
        if is_weight and not np.isfinite(array).all():
            remark(f"{os.path.basename(path)}: {name} holds NaN or infinity.")
    return model, not is_saved(state_dict)


# ---------------------------------------------------------------- info, convert, verify


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


def _check_outputs(outputs: Iterable[str | None], inputs: Iterable[str]) -> None:
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


def _convert(options: argparse.Namespace) -> None:
    _check_outputs([options.output], [options.input])
    model, is_read_off = _load(options.input, options)
    model.save(options.output)
    result = verify(options.output)
    if options.json:
        print(json.dumps({"model": repr(model), **_finite(result)}))
    else:
        print(model)
        if is_read_off:
            print(_taken_for_granted(options))
        print(
            f"{options.output}: self-test beside the reference in NumPy: "
            f"largest error {result['largest_error']:.2g}, allowed {result['tolerance']:.2g}"
        )


def _taken_for_granted(options: argparse.Namespace) -> str:
    axis = "batch" if options.batch_first else "time"
    return (
        f"Read off keys and shapes. Taken for granted: {axis} first, an output for every step, "
        "no activations. A state dict tells nothing of those."
    )


def _verify(options: argparse.Namespace) -> int:
    result = verify(options.model)
    if options.json:
        print(json.dumps(_finite(result)))
    else:
        print(
            f"{'passed' if result['passed'] else 'FAILED'}: {result['values']} values, largest error "
            f"{result['largest_error']:.2g}, allowed {result['tolerance']:.2g}"
        )
    return 0 if result["passed"] else 1


def _finite(result: Comparison) -> dict[str, Any]:
    """For JSON, which knows no NaN: an error that is none is null."""
    error = result["largest_error"]
    return {**result, "largest_error": error if math.isfinite(error) else None}


# ---------------------------------------------------------------- run


def _run(options: argparse.Namespace) -> None:
    began = time.perf_counter()
    _check_outputs([options.output, options.state], [options.model, options.input])
    model, is_read_off = _load(options.model, options)
    x, lengths = read_inputs(options.input)
    if is_read_off:
        remark(_taken_for_granted(options))
    with progress(os.path.basename(options.input)) as report:
        shape, state = run_file(model, x, options.output, lengths, report)
    if options.state is not None:
        arrays: dict[str, Any] = {f"state{i}": array for i, array in enumerate(_flatten(state))}
        with replacing(options.state) as draft, open(draft, "wb") as file:
            np.savez(file, **arrays)
    seconds = time.perf_counter() - began
    if options.json:
        print(json.dumps({"input": x.shape, "output": shape, "seconds": seconds}))
    else:
        print(f"{options.output}: {shape}, {seconds:.2f} s")


def _flatten(state: State | None) -> list[Array]:
    """The arrays of a state in order: h, c of the first recurrent layer, and so on."""
    if state is None:
        return []
    if isinstance(state, tuple):
        return [array for part in state for array in _flatten(part)]
    return [state]


# ---------------------------------------------------------------- bench


def _bench(options: argparse.Namespace) -> None:
    _check_outputs([options.output], [options.model])
    # Late: no other command needs it. And before any engine loads, which reads its threads then.
    from fastrnn.benchmark.engines import limit_threads
    from fastrnn.benchmark.model import bench_model, print_result

    limit_threads(1)
    model, _ = _load(options.model, options)
    with progress("bench") as report:
        result = bench_model(model, options.steps, options.batch, options.rounds, report=report)
    if options.output is not None:
        with replacing(options.output) as draft, open(draft, "w") as file:
            json.dump(result, file, indent=1)
    if options.json:
        print(json.dumps(result))
    else:
        print_result(result)


# ---------------------------------------------------------------- demo


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
        print("torch is not installed: nothing to compare with")
    else:
        print(
            f"torch {torch['version']}, one thread: {torch['microseconds']:.1f} us per character, "
            f"largest difference of a score {torch['largest_difference']:.1e}"
        )
