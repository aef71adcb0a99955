"""Operators of torch and those of a program, with the same arguments."""

import collections
import sys

import numpy as np
from aten import Recorder, call_operators, difference, torch

from fastrnn.graph import DTYPES, Graph, Input, Node, Value
from fastrnn.program.plans import make_plan
from fastrnn.program.toolbox import make_toolbox

TOOLS = make_toolbox("auto", 1)
# What lies in memory that nobody wrote, training, and operators that write to arguments.
UNLIKE = {
    "item", "empty", "empty_like", "new_empty", "empty_permuted", "empty_strided", "native_batch_norm",
    "_native_batch_norm_legit", "split_with_sizes_copy", "tensor_split",
}  # fmt: skip


def one_node(name, arguments, wanted):
    """A graph of one operator, whose arrays are its inputs, and these."""
    arrays, inputs = [], []

    def value(argument):
        if isinstance(argument, np.ndarray):
            arrays.append(np.array(argument))
            inputs.append(Input(f"x{len(arrays)}", argument.dtype.name, argument.shape))
            return Value(inputs[-1].name)
        return tuple(map(value, argument)) if isinstance(argument, tuple) else argument

    arguments = {key: value(argument) for key, argument in arguments.items()}
    outputs = tuple(f"y{i}" for i in range(len(wanted) if isinstance(wanted, tuple) else 1))
    return Graph(tuple(inputs), (Node(name, arguments, outputs),), outputs, {}), arrays


def run(name, arguments, wanted):
    """What a program of this operator gives."""
    graph, arrays = one_node(name, arguments, wanted)
    results = make_plan(graph, TOOLS, [array.shape for array in arrays], {}).run(arrays)
    return tuple(results) if isinstance(wanted, tuple) else results[0]


class Lowered(Recorder):
    """Checks every operator that torch calls while it is on against a program of it."""

    def __init__(self):
        super().__init__()
        self.refused = set()

    def check(self, name, arguments, wanted):
        parts = wanted if isinstance(wanted, tuple) else (wanted,)
        if name in UNLIKE or not all(
            isinstance(part, np.ndarray) and part.dtype.name in DTYPES for part in parts
        ):
            return
        try:
            problem = difference(run(name, arguments, wanted), wanted)
        except ValueError as error:
            if "shape depends on sizes alone" in str(error):
                self.refused.add(name)
                return
            problem = str(error)
        except Exception as error:  # all of them are wrong here
            problem = f"{type(error).__name__}: {error}"
        self.agreed[name] += problem is None
        if problem is not None:
            self.differences.append(f"{name}: {problem}")


def main():
    """Check every operator in torch's table, or those that are named, and print how many calls agree."""
    recorder = Lowered()
    call_operators(recorder, (torch.float32, torch.float64, torch.int64, torch.bool), 4, sys.argv[1:])
    if recorder.differences:
        counts = collections.Counter(line.split(":")[0] for line in recorder.differences)
        sys.exit("\n".join([str(counts), *recorder.differences[:60]]))
    print(sum(recorder.agreed.values()), *sorted(recorder.refused))


if __name__ == "__main__":
    main()
