"""Layers as an ONNX model, for the engines that read one.

Inputs are x, as the layers take it, and for a live sequence the states before it: s0_in, s1_in, ... (D, B,
P). Outputs are y and the states after it: s0_out, s1_out, ... The states are h, and c of an LSTM, of one
recurrent layer after the other. Shapes are fixed, which suits the engines best.

Operators and their gate orders: https://onnx.ai/onnx/operators/
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fastrnn.arrays import Array
from fastrnn.benchmark.work import Work, recurrent_shape
from fastrnn.errors import join
from fastrnn.spec import GATES, LayerSpec, RecurrentSpec

OPSET = 17
# torch's gates in the order of ONNX. LSTM: i, f, g, o to i, o, f, c. GRU: r, z, n to z, r, h.
ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


class NoOnnx(ValueError):
    """The work needs something that ONNX or an engine for it lacks."""


def state_shapes(work: Work) -> dict[str, tuple[int, ...]]:
    """The shapes (D, B, H) of the states, by name without _in and _out."""
    shapes: dict[str, tuple[int, ...]] = {}
    for spec in work.specs:
        if spec.kind in GATES:
            shape = recurrent_shape(spec)
            size = (shape.directions, work.B, shape.hidden_size)
            for _ in range(shape.num_layers * len(shape.state_shapes(work.B))):
                shapes[f"s{len(shapes)}"] = size
    return shapes


def build_model(work: Work) -> bytes:
    """The serialised model.

    Raises
    ------
    NoOnnx
        The work has a projection, a Last after rows of different lengths, or another precision than float32.
    """
    missing = [
        what
        for what, is_there in (
            ("proj_size", any(s.kind in GATES and recurrent_shape(s).proj_size for s in work.specs)),
            ("lengths", work.lengths is not None and any(s.kind == "Last" for s in work.specs)),
            (join(sorted(work.precisions)), not work.precisions <= {"float32"}),
        )
        if is_there
    ]
    if missing:
        raise NoOnnx(f"no {join(missing)}")
    model = _Builder(work).build()
    onnx.checker.check_model(model)
    serialised: bytes = model.SerializeToString()
    return serialised


class _Builder:
    """The graph while it grows: nodes, constants, and the name of the last layer's output."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.states = state_shapes(work)
        self.next_states = iter(self.states)
        self.y = "x"

    def build(self) -> Any:
        x = self.work.x()
        for spec in self.work.specs:
            if spec.kind in GATES:
                self.add_recurrent(spec)
            else:
                self.add_plain(spec)
        if self.y == "x":  # nothing but dropouts
            self.add("Identity", ["x"])
        self.nodes[-1].output[0] = "y"
        before = self.states if self.work.keeps_state else {}
        graph = helper.make_graph(
            self.nodes,
            "model",
            [_value("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)]
            + [_value(f"{name}_in", TensorProto.FLOAT, shape) for name, shape in before.items()],
            [_value("y", TensorProto.FLOAT, None)]
            + [_value(f"{name}_out", TensorProto.FLOAT, shape) for name, shape in self.states.items()],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
        return onnx.shape_inference.infer_shapes(model)

    def add(self, operator: str, inputs: list[str], **attributes: Any) -> None:
        """Add a node. Its output becomes the current one."""
        self.y = f"{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [self.y], **attributes))

    def constant(self, array: Any) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def add_plain(self, spec: LayerSpec) -> None:
        kind, tensors = spec.kind, spec.tensors
        if kind == "Embedding":
            self.add("Gather", [self.constant(tensors["weight"]), self.y])
        elif kind == "OneHot":
            depth = self.constant(np.array(spec.options["num_classes"]))
            self.add("OneHot", [self.y, depth, self.constant(np.array([0, 1], np.float32))])
        elif kind == "Linear":
            self.add("MatMul", [self.y, self.constant(tensors["weight"].T)])
            if "bias" in tensors:
                self.add("Add", [self.y, self.constant(tensors["bias"])])
        elif kind == "LayerNorm":
            ones = np.ones(spec.options.get("normalized_shape", 0), np.float32)
            inputs = [self.y, self.constant(tensors.get("weight", ones))]
            inputs += [self.constant(tensors["bias"])] if "bias" in tensors else []
            self.add("LayerNormalization", inputs, epsilon=spec.options["eps"])
        elif kind == "Last":
            last = self.constant(np.array(-1))
            self.add("Gather", [self.y, last], axis=1 if self.work.batch_first else 0)
        elif kind in ("Softmax", "LogSoftmax"):
            self.add(kind, [self.y], axis=spec.options["dim"])
        elif kind != "Dropout":
            self.add({"ReLU": "Relu"}.get(kind, kind), [self.y])

    def add_recurrent(self, spec: LayerSpec) -> None:
        """Add a node for each layer of the stack. Between them, time is the first axis."""
        shape = recurrent_shape(spec)
        T, B, D, H = self.work.T, self.work.B, shape.directions, shape.hidden_size
        if self.work.batch_first:
            self.add("Transpose", [self.y], perm=[1, 0, 2])
        for layer in range(shape.num_layers):
            names = [next(self.next_states) for _ in shape.state_shapes(B)]
            inputs = [self.y, *map(self.constant, _matrices(spec, shape, layer))]
            if self.work.lengths is not None:
                inputs.append(self.constant(np.array(self.work.lengths, np.int32)))
            if self.work.keeps_state:
                inputs += ["", *(f"{name}_in" for name in names)]
            self.y = f"Y{len(self.nodes)}"
            self.nodes.append(
                helper.make_node(
                    shape.kind,
                    inputs,
                    [self.y, *(f"{name}_out" for name in names)],
                    hidden_size=H,
                    direction="bidirectional" if D == 2 else "forward",
                    **_attributes(shape),
                )
            )
            is_last = spec is self.work.specs[-1] and layer == shape.num_layers - 1
            if is_last and D == 1 and not self.work.batch_first:
                return  # (T, 1, B, H): the same numbers in the same order
            # (T, D, B, H) to (T, B, D*H).
            if D == 2:
                self.add("Transpose", [self.y], perm=[0, 2, 1, 3])
            self.add("Reshape", [self.y, self.constant(np.array([T, B, D * H]))])
        if self.work.batch_first:
            self.add("Transpose", [self.y], perm=[1, 0, 2])


def _matrices(spec: LayerSpec, shape: RecurrentSpec, layer: int) -> Iterator[Array]:
    """W, R and B of a node: the tensors of a layer's directions (D, ...), with gates in ONNX's order."""

    def gathered(name: str) -> Array:
        D = shape.directions
        arrays = []
        for suffix in shape.suffixes()[layer * D : (layer + 1) * D]:
            if not shape.bias and name.startswith("bias"):
                arrays.append(np.zeros(GATES[shape.kind] * shape.hidden_size, np.float32))
                continue
            gates = np.split(spec.tensors[f"{name}{suffix}"], GATES[shape.kind])
            arrays.append(np.concatenate([gates[gate] for gate in ORDER[shape.kind]]))
        return np.stack(arrays)

    yield gathered("weight_ih")
    yield gathered("weight_hh")
    yield np.concatenate([gathered("bias_ih"), gathered("bias_hh")], axis=1)


def _attributes(shape: RecurrentSpec) -> dict[str, Any]:
    if shape.kind == "GRU":
        return {"linear_before_reset": 1}  # as in torch: the reset gate comes after the recurrent product
    if shape.nonlinearity == "relu":
        return {"activations": ["Relu"] * shape.directions}
    return {}


def _value(name: str, element: int, shape: tuple[int, ...] | None) -> Any:
    return helper.make_tensor_value_info(name, element, shape)
