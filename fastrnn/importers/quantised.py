"""The packed weights of torch's dynamic quantisation, under the names of the layer that was quantised.

A layer from torch.ao.quantization.quantize_dynamic keeps its weights in objects of their own. A pickle holds
the state of these objects as tensors and tuples, so nothing has to run to read it. The weights arrive as
float32, dequantised. torch also quantises activations at run time; that is not repeated here.

Sources: torch/ao/nn/quantized/dynamic/modules, aten/src/ATen/native/quantized/cpu/qlinear.cpp and
aten/src/ATen/native/RNN.cpp (https://github.com/pytorch/pytorch).
"""

import re
from collections.abc import Mapping
from typing import Any

from fastrnn.importers.tensors import TensorView, Unread
from fastrnn.importers.values import Foreign

_STACK = r"(?s)(?P<path>(?:.*\.)?)_all_weight_values\.(?P<index>[0-9]{1,6})\.param"
_LINEAR = r"(?s)(?P<path>(?:.*\.)?)_packed_params\._packed_params"
_CELL = r"(?s)(?P<path>(?:.*\.)?)_packed_weight_(?P<part>ih|hh)"
# Every name that matches one of these patterns contains one of the marks.
_MARKS = ("_packed_", "_all_weight_values")
_TWICE = "packed weights of quantisation beside others of that name"


def is_packed(value: object) -> bool:
    """Whether a value would have been an object with packed weights."""
    return isinstance(value, Foreign) and value.name == "torch.ScriptObject"


def unpack(found: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return a state dict with its packed weights as tensors, under the names of the original layer.

    Entries of a quantised layer that are not weights ("scale", "zero_point" and "dtype") are dropped.
    """
    texts = [name for name in found if isinstance(name, str)]
    everything = "\n".join(texts)
    if not any(mark in everything for mark in _MARKS):
        return dict(found)
    linears = {match["path"] for name in texts if (match := re.fullmatch(_LINEAR, name))}
    idle = {f"{path}{name}" for path in linears for name in ("scale", "zero_point", "_packed_params.dtype")}
    stacks: dict[str, list[tuple[int, Any]]] = {}
    result: dict[Any, Any] = {}
    for name, value in found.items():
        if isinstance(name, str) and (match := re.fullmatch(_STACK, name)):
            stacks.setdefault(match["path"], []).append((int(match["index"]), value))
            if len(stacks[match["path"]]) == 1:
                result[match["path"]] = None  # keeps its position
        elif isinstance(name, str) and (match := re.fullmatch(_LINEAR, name)):
            weight, bias = _linear_parts(value)
            for part, tensor in (("weight", weight), ("bias", bias)):
                if tensor is not None:
                    twice = f"{match['path']}{part}" in found
                    result[f"{match['path']}{part}"] = Unread(_TWICE) if twice else tensor
        elif isinstance(name, str) and (match := re.fullmatch(_CELL, name)):
            weight, bias = _linear_parts(value)
            result[f"{match['path']}weight_{match['part']}"] = weight
            if bias is not None:
                result.setdefault(f"{match['path']}bias_{match['part']}", bias)
        elif name not in idle:
            result.setdefault(name, value)
    ordered: dict[Any, Any] = {}
    for name, value in result.items():
        if name in stacks:
            cells = dict(stacks[name])
            if sorted(cells) == list(range(len(cells))):
                ordered |= _stack(name, [cells[index] for index in range(len(cells))])
            else:
                why = f"packed weights of dynamic quantisation, only of the cells {sorted(cells)[:20]}"
                ordered[f"{name}weight_ih_l0"] = Unread(why)
        else:
            ordered[name] = value
    return ordered


def _stack(path: str, cells: list[Any]) -> dict[str, Any]:
    """Return the tensors of a stack of layers and directions by torch's names."""
    tensors = [_cell_parts(cell) for cell in cells]
    directions = _directions(tensors)
    if directions is None:
        why = "packed weights of dynamic quantisation, which may be two layers or two directions"
        return {f"{path}weight_ih_l0": Unread(why)}
    result: dict[str, Any] = {}
    for index, cell in enumerate(tensors):
        suffix = f"_l{index // directions}{'_reverse' if index % directions else ''}"
        result |= {f"{path}{name}{suffix}": tensor for name, tensor in cell.items()}
    return result


def _cell_parts(value: Any) -> dict[str, Any]:
    """Return weight_ih, weight_hh and the biases of one layer and direction."""
    match value:
        case Foreign(state=(("quantized_dynamic" | "quantized_fp16", *rest), _)):
            # the biases, doubles and integers that are not weights, and the two packed matrices
            match rest:
                case [list(biases), *_, list(packed)] if len(packed) == 2:
                    weights = [_linear_parts(one) for one in packed]
                    inner = [bias for _, bias in weights]
                    biases = biases if len(biases) == 2 else inner
                    names = ("ih", "hh")
                    return {
                        **{
                            f"weight_{name}": weight for name, (weight, _) in zip(names, weights, strict=True)
                        },
                        **{
                            f"bias_{name}": bias
                            for name, bias in zip(names, biases, strict=True)
                            if bias is not None
                        },
                    }
    return {"weight_ih": Unread("packed weights of dynamic quantisation in an unknown form")}


def _linear_parts(value: Any) -> tuple[Any, Any]:
    """Return the weight of a packed matrix, and its bias or None."""
    match value:
        case Foreign(state=((TensorView() as weight, *rest), _)) | (TensorView() as weight, *rest):
            bias = rest[0] if rest else None
            return weight, bias if isinstance(bias, (TensorView, Unread)) else None
    return Unread("packed weights of quantisation in an unknown form"), None


def _directions(cells: list[dict[str, Any]]) -> int | None:
    """Return the number of directions, 1 or 2, that fits the columns; None if both fit."""
    if any(not isinstance(cell.get("weight_ih"), TensorView) for cell in cells) or len(cells) % 2:
        return 1
    matrices = [cell.get(name) for cell in cells for name in ("weight_ih", "weight_hh")]
    if not all(isinstance(matrix, TensorView) and len(matrix.size) == 2 for matrix in matrices):
        return None
    columns = [cell["weight_ih"].size[-1] for cell in cells]
    hidden = cells[0]["weight_hh"].size[-1]
    fits = [
        directions
        for directions in (1, 2)
        if columns[:directions] == columns[:1] * directions
        and columns[directions:] == [directions * hidden] * (len(columns) - directions)
    ]
    return fits[0] if len(fits) == 1 else None
