"""A case as an ONNX model, for the engines that read one: an LSTM, GRU or RNN node a layer.

Inputs x (T, B, I) and, for a step, the states h0 and c0 of each layer (D, B, H); outputs y and the
states after it, hn and cn. Gate orders and attributes: https://onnx.ai/onnx/operators/onnx__LSTM.html
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# torch's gates in the order of ONNX: i, f, g, o to i, o, f, c; r, z, n to z, r, h.
ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


def state_names(case):
    """The names of the states of each layer: h, and c of an LSTM."""
    letters = "hc" if case.kind == "LSTM" else "h"
    return [f"{letter}{layer}" for layer in range(case.num_layers) for letter in letters]


def build_model(case):
    """The bytes of the model."""
    spec, tensors = case.spec(), case.tensors()
    T, B, H, D = case.T, case.B, case.hidden_size, spec.directions
    element = TensorProto.FLOAT
    has_states = case.mode == "step"
    nodes, constants = [], []

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def gathered(part, layer):
        """The tensors of a layer's directions, gates in ONNX's order: (D, G*H, ...)."""
        suffixes = spec.suffixes()[layer * D : (layer + 1) * D]
        arrays = []
        for suffix in suffixes:
            gates = np.split(tensors[f"{part}{suffix}"], len(ORDER[case.kind]))
            arrays.append(np.concatenate([gates[gate] for gate in ORDER[case.kind]]))
        return np.stack(arrays)

    x = "x"
    for layer in range(case.num_layers):
        biases = np.concatenate([gathered("bias_ih", layer), gathered("bias_hh", layer)], axis=1)
        inputs = [
            x,
            constant(f"W{layer}", gathered("weight_ih", layer)),
            constant(f"R{layer}", gathered("weight_hh", layer)),
            constant(f"B{layer}", biases),
        ]
        states = [name for name in state_names(case) if name[1:] == str(layer)]
        if has_states:
            inputs += ["", *(f"{name}_in" for name in states)]
        options = {"linear_before_reset": 1} if case.kind == "GRU" else {}
        nodes.append(
            helper.make_node(
                case.kind,
                inputs,
                [f"Y{layer}", *(f"{name}_out" for name in states)],
                hidden_size=H,
                direction="bidirectional" if D == 2 else "forward",
                **options,
            )
        )
        # (T, D, B, H) to (T, B, D*H).
        x = "y" if layer == case.num_layers - 1 else f"x{layer + 1}"
        turned = f"Y{layer}"
        if D == 2:
            turned = f"turned{layer}"
            nodes.append(helper.make_node("Transpose", [f"Y{layer}"], [turned], perm=[0, 2, 1, 3]))
        shape = constant(f"shape{layer}", np.array([T, B, D * H], np.int64))
        nodes.append(helper.make_node("Reshape", [turned, shape], [x]))

    def value(name, *shape):
        return helper.make_tensor_value_info(name, element, shape)

    states = state_names(case)
    graph = helper.make_graph(
        nodes,
        "case",
        [value("x", T, B, case.input_size)]
        + [value(f"{name}_in", D, B, H) for name in (states if has_states else [])],
        [value("y", T, B, D * H)] + [value(f"{name}_out", D, B, H) for name in states],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()
