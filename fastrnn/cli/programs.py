"""What the commands do with the file of a program, which has other inputs, results and options."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array
from fastrnn.checks import Precision
from fastrnn.cli.options import check_outputs, tell_not_finite, tell_of_weights
from fastrnn.errors import join, message, quote
from fastrnn.graph import all_nodes
from fastrnn.importers import Source, StateDict, read_stored
from fastrnn.importers.numpy_file import read_arrays
from fastrnn.importers.safetensors_file import MAX_HEADER
from fastrnn.loading.load import make_program
from fastrnn.saving.program_file import is_program
from fastrnn.saving.whole_files import replacing
from fastrnn.structure import flatten, names_of, rebuild
from fastrnn.terminal import print_lines, print_table, progress

if TYPE_CHECKING:
    from fastrnn.program.program import Program

NPY, NPZ = ".npy", ".npz"
ONE = "y"  # the name of a result that stands alone


def open_program(options: argparse.Namespace, path: str) -> StateDict | None:
    """The state dict of a program's file, or None for any other file, which the caller reads in its own way.

    Raises
    ------
    ValueError
        An option is given that no program has.
    """
    if not holds_program(path):
        return None
    state_dict = read_stored(Source(path))
    if not is_program(state_dict):
        return None
    refuse(options, "key", "batch_first", "nonlinearity")
    return state_dict


def holds_program(path: str) -> bool:
    """Whether a file seems to hold a program, of which no more is read than the header."""
    source = Source(path)
    if source.is_folder:
        return False
    with source.open() as file:
        size = int.from_bytes(file.read(8), "little") if file.size > 8 else 0
        header = file.read(min(size, MAX_HEADER, file.size - 8)) if size else b""
    return header.startswith(b"{") and b'\\"kind\\":\\"program\\"' in header


def load_program(path: str, state_dict: StateDict, options: argparse.Namespace) -> Program:
    """The program of a file that is read already. Remarks on stderr say what is odd about it."""
    source = Source(path)
    threads = getattr(options, "threads", None)
    program = make_program(source, state_dict, {}, getattr(options, "precision", None), threads)
    tell_of_weights(source, state_dict)
    return program


def refuse(options: argparse.Namespace, *names: str, **defaults: Any) -> None:
    """Raise ValueError if an option is given that no program has. Defaults are those that are not None."""
    for name in (*names, *defaults):
        value = getattr(options, name, None)
        if value not in (None, False) and value != defaults.get(name):
            option = "--final-state" if name == "state" else option_of(name)
            hint = "The option has no meaning for a program."
            raise ValueError(message(option, "a model of layers", "a program", hint))


def option_of(name: str) -> str:
    """What the option is called that the parser keeps under this name."""
    return f"--{name.removeprefix('example_').replace('_', '-')}"


# ---------------------------------------------------------------- info


def info(state_dict: StateDict, path: str, as_json: bool) -> None:
    """Show what is in the file of a program."""
    source = Source(path)
    program = make_program(source, state_dict)
    tell_not_finite(source, state_dict)
    graph = program.graph
    counts = Counter(node.operator for node in all_nodes(graph.nodes))
    arrays = {id(array): array for array in graph.constants.values()}
    parameters = sum(array.size for array in arrays.values())
    names = result_names(program)
    states = [link.input for link in graph.states]
    if as_json:
        print(
            json.dumps(
                {
                    "format": state_dict.file_format,
                    "program": repr(program),
                    "precision": program.precision,
                    "inputs": [form._asdict() for form in program.inputs],
                    "outputs": names,
                    "states": states,
                    "operators": dict(counts.most_common()),
                    "parameters": parameters,
                    "golden": [[list(array.shape) for array in arrays] for arrays in program.golden_inputs],
                    "compared": program.example is not None,
                }
            )
        )
        return
    print_lines(
        f"{state_dict.file_format}: a program of {counts.total()} operators, {parameters:,} numbers in "
        f"{len(arrays)} constants, {_named(program.precision)}\n"
    )
    print_table(
        ("input", "shape", "dtype"),
        [(form.name, f"({', '.join(map(str, form.shape))})", form.dtype) for form in program.inputs],
    )
    print()
    print_table(("operator", "times"), [(name, str(count)) for name, count in counts.most_common()])
    print_lines(f"\nOutputs: {', '.join(names)}")
    if states:
        print_lines(f"States, which a call takes and returns: {', '.join(states)}")
    if program.example is not None:
        print_lines("The file holds an example from torch, which `fastrnn verify` compares with.")


def _named(precision: Precision) -> str:
    """A precision in words."""
    if isinstance(precision, str):
        return precision
    return ", ".join(f"{matrix} {of_matrix}" for matrix, of_matrix in precision.items())


# ---------------------------------------------------------------- run


def run(state_dict: StateDict, options: argparse.Namespace) -> None:
    """Run a program over arrays from a file."""
    began = time.perf_counter()
    refuse(options, "state", "rows", "columns", "raw", "restart")
    if len(options.input) > 1 or "-" in (options.input[0], options.output):
        got = f"{' '.join(options.input)} -o {options.output}"
        where = os.path.basename(options.model)
        expected = "one input and one output that are files, since it is a program"
        raise ValueError(message(where, expected, got))
    path, output = options.input[0], options.output
    check_outputs([output], [options.model, path])
    program = load_program(options.model, state_dict, options)
    names = result_names(program)
    _check_output(output, names)
    outputs = run_arrays(program, read_inputs(path, program))
    write_results(output, dict(zip(names, outputs, strict=True)))
    shapes = {name: list(array.shape) for name, array in zip(names, outputs, strict=True)}
    seconds = time.perf_counter() - began
    if options.json:
        print(json.dumps({"output": output, "results": shapes, "seconds": seconds}))
    else:
        told = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        print_lines(f"{output}: {told}, {seconds:.2f} s")


def result_names(program: Program) -> list[str]:
    """The names of a program's results as arrays in a file: "y", "y0", "y1.h", or the keys of a dict."""
    results = program.spec.results
    return [name.removeprefix(".") or ONE for name in names_of(_named_parts(results), "")]


def _named_parts(structure: Any) -> Any:
    """The structure with its outermost tuple as a dict of y0, y1, ..."""
    ((kind, content),) = structure.items()
    if kind in ("tuple", "list"):
        return {"dict": {f"{ONE}{index}": part for index, part in enumerate(content)}}
    return structure


def read_inputs(path: str, program: Program) -> list[Array | None]:
    """The inputs in order: an .npz by their names, or a .npy for the only one.

    States that calls may leave out may be missing. They are None.

    Raises
    ------
    ValueError
        An input is missing, or an array is none.
    """
    where = os.path.basename(path)
    arrays = read_arrays(Source(path))
    names = [form.name for form in program.inputs]
    needed = [name for name in names if name not in program.graph.optional]
    if len(needed) == 1 and len(arrays) == 1 and arrays.keys().isdisjoint(names):
        arrays = {needed[0]: next(iter(arrays.values()))}
    if not set(needed) <= arrays.keys() <= set(names):
        raise ValueError(message(where, f"arrays {quote(names)}", quote(arrays) if arrays else "none"))
    return [arrays.get(name) for name in names]


def run_arrays(program: Program, arrays: Sequence[Array | None]) -> list[Array]:
    """The results of a program in order, for its inputs in order."""
    args, kwargs = rebuild(program.spec.arguments, list(arrays))
    outputs: list[Array] = []
    flatten("run", program.spec.results, program(*args, **kwargs), "results", outputs)
    return outputs


def _check_output(path: str, names: Sequence[str]) -> None:
    ending = os.path.splitext(path)[1].lower()
    if ending not in (NPY, NPZ):
        raise ValueError(message(os.path.basename(path), f"a name that ends in {NPY} or {NPZ}", path))
    if ending == NPY and len(names) != 1:
        hint = f"The results are {join(names)}."
        raise ValueError(message(os.path.basename(path), f"{NPZ} for {len(names)} results", NPY, hint))


def write_results(path: str, arrays: Mapping[str, Array]) -> None:
    """Write results to a .npy or .npz file, which appears whole or not at all."""
    with replacing(path) as draft, open(draft, "wb") as file:
        if path.lower().endswith(NPY):
            np.save(file, next(iter(arrays.values())))
        else:
            named: dict[str, Any] = dict(arrays)
            np.savez(file, **named)


# ---------------------------------------------------------------- examples


def read_example(options: argparse.Namespace, program: Program) -> dict[str, Any] | None:
    """The example that the options name, as `Program.save` takes it. None if they name none."""
    refuse(options, "example_initial_state")
    files = [options.example_input, options.example_expect]
    if files == [None, None]:
        if options.tolerance is not None:
            raise ValueError(message("--tolerance", "--input and --expect as well", "neither"))
        return None
    if None in files:
        raise ValueError(message("example", "both --input and --expect", "one of them"))
    args, kwargs = rebuild(program.spec.arguments, read_inputs(files[0], program))
    names = result_names(program)
    results = read_arrays(Source(files[1]))
    if len(names) == 1 and len(results) == 1:
        results = {names[0]: next(iter(results.values()))}
    if results.keys() != set(names):
        where = os.path.basename(files[1])
        raise ValueError(message(where, f"arrays {quote(names)}", quote(results) if results else "none"))
    nested = rebuild(program.spec.results, [results[name] for name in names])
    return {"args": args, "kwargs": kwargs, "results": nested}


# ---------------------------------------------------------------- bench

SECONDS = 0.02  # of a round
MOST_SECONDS = 4.0


def bench(program: Program, rounds: int) -> dict[str, Any]:
    """Time calls at the sizes of the self-test. The result can be written as JSON."""
    from fastrnn.benchmark.measure import rounds_in_time, seconds_of_one
    from fastrnn.engine.backends import config
    from fastrnn.program.pairs import make_inputs

    works = []
    with progress("bench") as report:
        golden = program.golden_inputs or make_inputs(program)
        for index, arrays in enumerate(golden):
            given = [np.asarray(a, f.dtype, order="C") for a, f in zip(arrays, program.inputs, strict=True)]
            args, kwargs = rebuild(program.spec.arguments, given)

            def seconds_of(count: int, args: Any = args, kwargs: Any = kwargs) -> float:
                began = time.perf_counter()
                for _ in range(count):
                    program(*args, **kwargs)
                return time.perf_counter() - began

            one = seconds_of_one(seconds_of, SECONDS / 4)
            count = max(1, round(SECONDS / one))
            made = rounds_in_time(rounds, one * count)
            times = [seconds_of(count) / count for _ in range(made)]
            low, median, high = (float(q) * 1e6 for q in np.quantile(times, (0.25, 0.5, 0.75)))
            shapes = {form.name: list(array.shape) for form, array in zip(program.inputs, given, strict=True)}
            works.append({"inputs": shapes, "microseconds": median, "quartiles": [low, high], "rounds": made})
            report(index + 1, len(golden))
    return {"config": config(), "program": repr(program), "threads": program.threads, "works": works}


def print_bench(result: Mapping[str, Any]) -> None:
    """Print what `bench` returned."""
    print_lines(result["program"])
    rows = []
    for work in result["works"]:
        sizes = ", ".join(f"{name} {tuple(shape)}" for name, shape in work["inputs"].items())
        low, high = work["quartiles"]
        rows.append((sizes, f"{work['microseconds']:.1f} us", f"{low:.1f} to {high:.1f}"))
    print_table(("inputs", "median", "quartiles"), rows)
