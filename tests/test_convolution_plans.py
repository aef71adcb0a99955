"""Plans of convolutions: those of padded arrays and of patches read the arrays themselves."""

import numpy as np
import pytest
from graphs import make_program
from helpers import assert_close

from fastrnn.graph import Size, Value
from fastrnn.program.evaluate import evaluate
from fastrnn.program.planner import Planner
from fastrnn.program.window_steps import ConvolutionStep


def program_of(rng, channels, weight, *nodes):
    """x (B, channels, H, W) through nodes (operator, arguments, output). The last one is a convolution."""
    constants = {"w": rng.normal(size=weight).astype(np.float32)}
    inputs = {"x": ("float32", ("B", channels, "H", "W"))}
    return make_program(
        inputs, [(name, given, (output,)) for name, given, output in nodes], ("y",), constants
    )


def check(program, x, copies):
    """Compare with the definitions; and count the steps besides the convolution."""
    graph = program.graph
    wanted = evaluate(graph, {"x": x}, graph.outputs)[0]
    for _ in range(2):
        assert_close(program(x), wanted, 1e-5)
    planner = Planner(program._planned, program._tools, [x.shape], [x.strides], {})
    planner.run()
    kinds = [isinstance(item.step, ConvolutionStep) for item in planner.items]
    assert sum(kinds) == 1 and len(kinds) - 1 == copies


def padded(pad):
    return "constant_pad_nd", {"self": Value("x"), "pad": pad, "value": 0.0}, "p"


@pytest.mark.parametrize("groups", (1, 2, 4))
@pytest.mark.parametrize("pad", ((0, 0, 2, 0), (1, 2, 3, 0), (5, 0, 0, 6), (-1, 2, 0, 1)))
def test_zeros_around_an_array_are_the_padding_of_its_convolution(rng, groups, pad):
    given = {
        "input": Value("p"), "weight": Value("w"), "padding": (0, 1), "dilation": (1, 2), "groups": groups,
    }  # fmt: skip
    program = program_of(rng, 4, (8, 4 // groups, 3, 3), padded(pad), ("conv2d", given, "y"))
    check(program, rng.normal(size=(2, 4, 5, 6)).astype(np.float32), copies=1)  # channels last


@pytest.mark.parametrize(("pad", "copies"), (((0, 0, 2, 0), 1), ((1, 1, 1, 1), 1), ((0, 0, 3, 0), None)))
@pytest.mark.parametrize("stride", (1, 2))
def test_zeros_before_a_transposed_convolution_take_off_its_padding(rng, pad, copies, stride):
    given = {"input": Value("p"), "weight": Value("w"), "padding": (2, 1), "stride": stride}
    program = program_of(rng, 3, (3, 4, 5, 3), padded(pad), ("conv_transpose2d", given, "y"))
    x = rng.normal(size=(2, 3, 5, 6)).astype(np.float32)
    assert_close(program(x), evaluate(program.graph, {"x": x}, ("y",))[0], 1e-5)
    if copies is not None and stride == 1:
        check(program, x, copies)


@pytest.mark.parametrize("operator", ("conv2d", "conv_transpose2d"))
def test_a_product_of_patches_is_a_convolution(rng, operator):
    patches = {"kernel_size": (2, 3), "dilation": (2, 1), "padding": (1, 2), "stride": (1, 2)}
    shape = (Size("dim", "x", 0), 24, -1, 4)
    program = program_of(
        rng,
        4,
        (5, 24, 1, 1) if operator == "conv2d" else (24, 5, 1, 1),
        ("im2col", {"self": Value("x"), **patches}, "u"),
        ("reshape", {"self": Value("u"), "shape": shape}, "p"),
        (operator, {"input": Value("p"), "weight": Value("w")}, "y"),
    )
    check(program, rng.normal(size=(2, 4, 5, 6)).astype(np.float32), copies=1)


def test_what_is_read_elsewhere_is_there(rng):
    """The padded array is a result too."""
    given = {"input": Value("p"), "weight": Value("w")}
    program = make_program(
        {"x": ("float32", ("B", 2, "H", "W"))},
        [
            ("constant_pad_nd", {"self": Value("x"), "pad": (1, 1), "value": 0}, ("p",)),
            ("conv2d", given, ("y",)),
        ],
        ("p", "y"),
        {"w": rng.normal(size=(3, 2, 1, 3)).astype(np.float32)},
    )
    x = rng.normal(size=(1, 2, 3, 4)).astype(np.float32)
    p, y = program(x)
    np.testing.assert_array_equal(p, np.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1))))
    assert_close(y, evaluate(program.graph, {"x": x}, ("y",))[0], 1e-5)
