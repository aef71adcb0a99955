"""The format of a saved model: tensors, architecture, self-test and an example from torch in one file.

It is a safetensors file. Narrow weights are BF16 tensors, or I8 tensors with a tensor of float32 scales
beside each, "<name>.scale". The metadata has one entry, "fastrnn", which is JSON: the version, the layers
with their options, the tolerance of the self-test, and what was taken for granted if the model was read from
a state dict. Specifications and arrays are all that is known here. `loading` makes a model of them.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from fastrnn.arrays import Array, flat_state
from fastrnn.checks import check_tolerance
from fastrnn.errors import FormatError, brief, join, message
from fastrnn.importers import StateDict
from fastrnn.importers.parameters import unread_error
from fastrnn.narrow import NarrowWeight
from fastrnn.saving.golden import Example
from fastrnn.saving.whole_files import replacing
from fastrnn.spec import GRANTED, LayerSpec

FILE_VERSION = 1


class SavedModel(NamedTuple):
    """What a file holds.

    Attributes
    ----------
    specs : sequence of LayerSpec
    golden_input, golden_output : ndarray or None
        The self-test: a seeded input, and the reference's output in float64.
    tolerance : float
        How far a model's output may be from golden_output, absolute.
    example : Example or None
        An example from torch. None if the model was never compared with torch.
    taken_for_granted : tuple of str or None
        For a model read from a state dict: what the state dict did not say and no example decided, as names
        in `spec.GRANTED`. None if the model was written out, or compared with torch.
    """

    specs: Sequence[LayerSpec]
    golden_input: Array | None
    golden_output: Array | None
    tolerance: float
    example: Example | None = None
    taken_for_granted: tuple[str, ...] | None = None


def is_saved(state_dict: StateDict) -> bool:
    """Whether a state dict was read from a file that `write_model` wrote."""
    return "fastrnn" in state_dict.metadata


def write_model(path: str, model: SavedModel) -> None:
    """Write a model. The file appears whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    import json  # late: 1 ms that models of a user's own arrays do not need

    tensors: dict[str, Any] = {"golden.input": model.golden_input, "golden.output": model.golden_output}
    for index, spec in enumerate(model.specs):
        for name, weight in spec.tensors.items():
            full = f"layers.{index}.{name}"
            tensors |= stored(full, weight) if isinstance(weight, NarrowWeight) else {full: weight}
    description: dict[str, Any] = {
        "version": FILE_VERSION,
        "tolerance": model.tolerance,
        "layers": [{"kind": spec.kind, "options": dict(spec.options)} for spec in model.specs],
    }
    if model.taken_for_granted is not None:
        description["taken_for_granted"] = list(model.taken_for_granted)
    if model.example is not None:
        tensors |= {f"example.{name}": array for name, array in _example_arrays(model.example).items()}
        description["example_tolerance"] = model.example.tolerance
    write_tensors(path, tensors, json.dumps(description))


def stored(name: str, weight: NarrowWeight) -> dict[str, Array]:
    """Return narrow weights as tensors of a file."""
    if weight.scales is None:
        return {name: weight.data.view(_Bfloat16)}
    return {name: weight.data, f"{name}.scale": weight.scales}


class _Name(NamedTuple):
    """What `safetensors` asks of a dtype."""

    name: str
    byteorder: str = "="


class _Bfloat16(np.ndarray[Any, Any]):
    """The bits of bfloat16 numbers, under the name that `safetensors` writes. NumPy has no such type."""

    dtype = _Name("bfloat16")


def write_tensors(path: str, tensors: dict[str, Any], description: str) -> None:
    """Write tensors and a description to a safetensors file, which appears whole or not at all.

    Raises
    ------
    OSError
        The file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    with replacing(path) as draft:
        try:
            save_file(tensors, draft, {"fastrnn": description})
        except SafetensorError as error:  # not an OSError, even if the disk is full
            raise OSError(message("save", "a file that can be written", str(error))) from error


def read_description(where: str, state_dict: StateDict) -> Any:
    """Return the JSON of a saved file, of which only the version is checked.

    Raises
    ------
    FormatError
        A tensor cannot be read, or the file is of another version.
    KeyError, TypeError, ValueError, RecursionError
        It is no such file, or a damaged one.
    """
    import json

    for name, why in state_dict.unread.items():
        raise FormatError(str(unread_error(where, name, why)))
    description = json.loads(state_dict.metadata["fastrnn"])
    version = description["version"]
    if version != FILE_VERSION:
        hint = "It was written by another release of fastrnn."
        raise FormatError(message(where, f"version {FILE_VERSION}", brief(version), hint))
    return description


def read_model(where: str, state_dict: StateDict, option_names: Mapping[str, Sequence[str]]) -> SavedModel:
    """Read a model from the arrays and metadata of its file.

    Parameters
    ----------
    where : str
        The file's name, for messages.
    state_dict : StateDict
    option_names : mapping of str to sequence of str
        The kinds of layers that exist, and the options of each.

    Raises
    ------
    FormatError
        The file is damaged, or of another version.
    """
    try:
        description = read_description(where, state_dict)
        entries = description["layers"]
        tolerance = check_tolerance(where, description["tolerance"])
        granted = description.get("taken_for_granted")
        if granted is not None and not (isinstance(granted, list) and set(granted) <= GRANTED.keys()):
            raise TypeError(f"taken_for_granted is {brief(granted)}")
        tensors: dict[str, dict[str, Array]] = {
            "golden": {},
            "example": {},
            **{f"layers.{index}": {} for index in range(len(entries))},
        }
        for name, array in state_dict.items():
            path, _, key = name.rpartition(".")
            tensors[path][key] = array
        specs = []
        for index, entry in enumerate(entries):
            kind, options = entry["kind"], entry["options"]
            if kind not in option_names:
                raise FormatError(message(where, "layers of fastrnn", brief(kind)))
            strange = [brief(name) for name in options if name not in option_names[kind]]
            if strange:
                raise FormatError(message(where, f"options of {kind}", join(strange)))
            specs.append(LayerSpec(kind, options, tensors[f"layers.{index}"]))
        example = _read_example(tensors["example"], description.get("example_tolerance"))
    except FormatError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        got = f"{type(error).__name__}: {error}"
        raise FormatError(message(where, "the description of a saved model", got)) from error
    golden = tensors["golden"]
    granted = None if granted is None else tuple(granted)
    return SavedModel(specs, golden.get("input"), golden.get("output"), tolerance, example, granted)


def _example_arrays(example: Example) -> dict[str, Array]:
    arrays = {"input": example.x, "output": example.y}
    if example.lengths is not None:
        arrays["lengths"] = example.lengths
    return arrays | {f"state{index}": array for index, array in enumerate(flat_state(example.state))}


def _read_example(arrays: Mapping[str, Array], tolerance: Any) -> Example | None:
    """Return the example, or None. Its state is a flat tuple of arrays, which `loading.verify` nests."""
    if not arrays:
        return None
    states = [arrays[f"state{index}"] for index in range(len(arrays)) if f"state{index}" in arrays]
    unknown = arrays.keys() - {"input", "output", "lengths", *(f"state{i}" for i in range(len(states)))}
    if unknown:
        raise ValueError(f"an example with {join(sorted(unknown))}")
    if tolerance is not None:
        tolerance = check_tolerance("example", tolerance)
    return Example(arrays["input"], arrays["output"], tuple(states) or None, arrays.get("lengths"), tolerance)
