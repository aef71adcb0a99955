"""The format of a saved program: a graph, its constants, golden pairs and an example in one file.

It is a safetensors file, as that of a model of layers (`model_file`). The JSON in its metadata has the kind
"program" and the graph. Complex arrays are kept as real ones with a last axis of 2. Narrow weights are stored
as those of a model, and the JSON has their names and the precision.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn.arrays import Array
from fastrnn.checks import Precision, check_tolerance
from fastrnn.errors import FormatError, brief, brief_error, message
from fastrnn.graph import DTYPES, ProgramSpec
from fastrnn.importers import StateDict
from fastrnn.narrow import NarrowWeight
from fastrnn.saving.graph_file import describe_spec, read_spec
from fastrnn.saving.model_file import FILE_VERSION, read_description, stored, write_tensors

KIND = "program"
# Bytes of the description. Readers of safetensors files limit the header, of which it is a part.
MOST_DESCRIPTION = 12 * 2**20


class GoldenPair(NamedTuple):
    """Inputs of a program, and what it has to give.

    Attributes
    ----------
    inputs : tuple of ndarray
        Those that callers give, in order.
    outputs : tuple of ndarray
        The results in order. In a self-test the next states come after them.
    tolerances : tuple of float
        How far each output may be from these, absolute.
    """

    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    tolerances: tuple[float, ...]


class SavedProgram(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    spec : ProgramSpec
    golden : tuple of GoldenPair
        The self-test: outputs of the operators' definitions.
    example : GoldenPair or None
        Arguments, and what torch's module gave for them.
    precision : str, dict of str to str, or None
        That of a program with narrow weights. Of others it may be anything.
    """

    spec: ProgramSpec
    golden: tuple[GoldenPair, ...]
    example: GoldenPair | None = None
    precision: Precision | None = None


def is_program(state_dict: StateDict) -> bool:
    """Whether a state dict was read from a file that holds a program. The file may be damaged."""
    import json

    try:
        description = json.loads(state_dict.metadata["fastrnn"])
        return isinstance(description, dict) and description.get("kind") == KIND
    except (KeyError, ValueError, RecursionError):
        return False


def write_program(path: str, program: SavedProgram, operators: Collection[str]) -> None:
    """Write a program. The file appears whole or not at all.

    Raises
    ------
    ValueError
        No file can hold the program: an operator is missing, or a name is no text that can be printed.
    OSError
        The file cannot be written.
    """
    import json

    tensors, tied, narrow = _constants(program.spec.graph.constants)
    pairs = {f"golden.{index}": pair for index, pair in enumerate(program.golden)}
    if program.example is not None:
        pairs["example"] = program.example
    for name, pair in pairs.items():
        tensors |= {f"{name}.input.{i}": array for i, array in enumerate(pair.inputs)}
        tensors |= {f"{name}.output.{i}": array for i, array in enumerate(pair.outputs)}
    description = {
        "version": FILE_VERSION,
        "kind": KIND,
        **describe_spec(program.spec),
        "tied": tied,
        "complex": [name for name, array in tensors.items() if np.iscomplexobj(array)],
        "golden": [list(pair.tolerances) for pair in program.golden],
        "example": None if program.example is None else list(program.example.tolerances),
    }
    if narrow:
        description |= {"precision": program.precision, "narrow": narrow}
    text = json.dumps(description, separators=(",", ":"))
    if len(text) > MOST_DESCRIPTION:
        raise ValueError(message("save", f"a graph of at most {MOST_DESCRIPTION} characters", f"{len(text)}"))
    read_spec(json.loads(text), program.spec.graph.constants, operators)
    made: dict[str, Any] = {}
    for name, array in tensors.items():
        made |= stored(name, array) if isinstance(array, NarrowWeight) else {name: _real(array)}
    write_tensors(path, made, text)


def _constants(
    constants: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """The constants as tensors of a file, each once, the names of those that equal an earlier one, and the
    storages of narrow ones."""
    import hashlib  # late, as json: few processes write files

    tensors: dict[str, Any] = {}
    tied: dict[str, str] = {}
    narrow: dict[str, str] = {}
    first: dict[Any, str] = {}
    for name, array in constants.items():
        if isinstance(array, NarrowWeight):
            kind, parts = array.storage, [array.data] + ([] if array.scales is None else [array.scales])
        else:
            array = np.asarray(array, order="C")
            kind, parts = array.dtype.name, [array]
        digest = hashlib.sha256(b"".join(part.tobytes() for part in parts)).digest()
        kept = first.setdefault((digest, kind, len(parts), array.shape), name)
        if kept != name:
            tied[name] = kept
            continue
        tensors[f"constants.{name}"] = array
        if isinstance(array, NarrowWeight):
            narrow[name] = array.storage
    return tensors, tied, narrow


def _real(array: Array) -> Array:
    """An array as safetensors holds it."""
    array = np.asarray(array, order="C")
    if array.dtype.kind != "c":
        return array
    return array.reshape(*array.shape, 1).view(array.real.dtype)


def _complex(array: Array) -> Array:
    """The complex array that `_real` was given."""
    if array.ndim == 0 or array.shape[-1] != 2 or array.dtype.name not in ("float32", "float64"):
        raise ValueError(f"complex numbers as {array.dtype} of shape {array.shape}")
    return array.view("complex64" if array.dtype.itemsize == 4 else "complex128")[..., 0]


def read_program(where: str, state_dict: StateDict, operators: Collection[str]) -> SavedProgram:
    """Read a program from the arrays and metadata of its file.

    Parameters
    ----------
    where : str
        The file's name, for messages.
    state_dict : StateDict
    operators : collection of str
        Those that there are.

    Raises
    ------
    FormatError
        The file is damaged, or of another version.
    """
    try:
        return _read(where, state_dict, read_description(where, state_dict), operators)
    except FormatError as error:
        text = str(error)
        raise error if text.startswith(where) else FormatError(f"{where}: {text}") from error
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError, OverflowError) as error:
        got = brief_error(error)
        raise FormatError(message(where, "the description of a saved program", got)) from error


def _read(
    where: str, state_dict: StateDict, description: Mapping[str, Any], operators: Collection[str]
) -> SavedProgram:
    tensors = dict(state_dict)
    for name in description["complex"]:
        tensors[name] = _complex(tensors[name])
    constants: dict[str, Any] = _take_narrow(where, tensors, description.get("narrow", {}))
    for name in list(tensors):
        if name.startswith("constants."):
            array = constants[name.removeprefix("constants.")] = tensors.pop(name)
            kind = array.storage if isinstance(array, NarrowWeight) else array.dtype.name
            if kind not in DTYPES:
                raise FormatError(message(where, "constants of a type that programs have", kind))
    for name, kept in description["tied"].items():
        if name in constants:
            raise FormatError(message(where, "one constant of each name", f"{brief(name)} twice"))
        constants[name] = constants[kept]
    spec = read_spec(description, constants, operators)
    graph = spec.graph
    count = len(graph.inputs) - len(graph.hidden)
    wanted = len(graph.outputs) + len(graph.states)
    golden = tuple(
        _take_pair(f"golden.{index}", tensors, tolerances, count, wanted)
        for index, tolerances in enumerate(description["golden"])
    )
    example = None
    if description["example"] is not None:
        example = _take_pair("example", tensors, description["example"], count, len(graph.outputs))
    if tensors:
        raise FormatError(message(where, "tensors of a program alone", brief(next(iter(tensors)))))
    return SavedProgram(spec, golden, example, description.get("precision"))


def _take_narrow(where: str, tensors: dict[str, Any], storages: Mapping[str, Any]) -> dict[str, Any]:
    """Take the narrow weights, whose storages are given, out of the tensors."""
    taken: dict[str, Any] = {}
    for name, storage in storages.items():
        weight = tensors.pop(f"constants.{name}")
        if storage == "int8":
            scales = tensors.pop(f"constants.{name}.scale")
            try:
                weight = NarrowWeight(storage, weight, scales)
            except ValueError as error:
                expected = f"int8 weights and scales that fit in {brief(name)}"
                raise FormatError(message(where, expected, f"others ({error})")) from error
        if not isinstance(weight, NarrowWeight) or weight.storage != storage:
            raise FormatError(message(where, f"weights in {brief(storage)} in {brief(name)}", "others"))
        taken[name] = weight
    return taken


def _take_pair(
    name: str, tensors: dict[str, Array], tolerances: Sequence[Any], inputs: int, outputs: int
) -> GoldenPair:
    """Take a pair out of the tensors."""
    if len(tolerances) != outputs:
        raise ValueError(f"{len(tolerances)} tolerances of {outputs} outputs")
    return GoldenPair(
        tuple(tensors.pop(f"{name}.input.{i}") for i in range(inputs)),
        tuple(tensors.pop(f"{name}.output.{i}") for i in range(outputs)),
        tuple(_tolerances(tolerances)),
    )


def _tolerances(numbers: Iterable[Any]) -> Iterable[float]:
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            raise TypeError(f"a tolerance is {brief(number)}")
        yield check_tolerance("program", number)
