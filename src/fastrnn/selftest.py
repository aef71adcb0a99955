"""The tests that a model carries: a seeded input beside the reference's output, and examples from torch.

A self-test compares the engine with this package's own reference: it shows that a machine computes what the
weights say, and not that the layers are those of the torch module. An example does: its input and output came
from that module.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

from fastrnn.errors import Array, Floats, State, join
from fastrnn.reference import log_softmax_reference, relu, sequential_reference, sigmoid, softmax_reference
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    import fastrnn

SEED = 20240229
STEPS = 12
ROWS = 2
# How far an output may be from the one that is wanted: SHARE of the largest value, plus ROUNDINGS times the
# change of the output when every weight is rounded to a neighbouring number.
SHARE = {"float32": 1e-5, "float64": 1e-11}
ROUNDINGS = 32


class Comparison(TypedDict):
    """What a test gives: the errors are absolute, `values` is how many were compared.

    `hint`: a change that would make the output agree; "" if it agrees, or none was found.
    """

    passed: bool
    largest_error: float
    tolerance: float
    values: int
    hint: str


@dataclass(frozen=True)
class Example:
    """An input and the output that torch's module gave for it.

    Attributes
    ----------
    x, y : ndarray
        As ``model(x, state, lengths=lengths)`` takes and gives them.
    state : state, optional
        The initial one.
    lengths : ndarray of int, optional
    tolerance : float, optional
        How far outputs may be from y, as an absolute number; as far as rounding takes them if not given.
    """

    x: Array
    y: Array
    state: Any = None
    lengths: Array | None = None
    tolerance: float | None = None


# ---------------------------------------------------------------- the seeded pair


def golden_shape(model: "fastrnn.Sequential") -> tuple[int, ...]:
    """That of the input of a self-test."""
    shape = (ROWS, STEPS) if model.batch_first else (STEPS, ROWS)
    return shape if model.layers[0].takes_tokens else (*shape, model.features_in or 4)


def golden_input(model: "fastrnn.Sequential") -> Array:
    """A seeded input of a model: normal numbers, or tokens."""
    random = np.random.default_rng(SEED)
    shape = golden_shape(model)
    if model.layers[0].takes_tokens:
        return random.integers(model.layers[0].num_tokens, size=shape)
    return random.standard_normal(shape)


def golden_output(
    specs: Sequence[LayerSpec], x: Array, batch_first: bool, precision: str
) -> tuple[NDArray[np.float64], float]:
    """The reference's output for an input, and how far a model's may be from it."""
    wanted = np.ascontiguousarray(sequential_reference(specs, x, batch_first))
    with np.errstate(over="ignore", invalid="ignore"):
        moved = sequential_reference(rounded(specs), x, batch_first)
    return wanted, tolerance(wanted, moved, precision)


def fits_golden(model: "fastrnn.Sequential", x: Array | None, y: Array | None) -> bool:
    """Whether two arrays of a file (or None) can be a self-test of a model."""
    if x is None or y is None:
        return False
    example = golden_shape(model)
    shape = [*example[:2], model.features_out or example[-1]]
    if any(layer.is_last_step for layer in model.layers):
        del shape[1 if model.batch_first else 0]
    return (
        x.shape == example
        and x.dtype == (np.int64 if model.layers[0].takes_tokens else np.float64)
        and y.shape == tuple(shape)
        and y.dtype == np.float64
    )


def rounded(specs: Iterable[LayerSpec]) -> list[LayerSpec]:
    """The layers with every weight rounded to a number beside it, up or down."""
    random = np.random.default_rng(SEED)
    return [
        LayerSpec(
            spec.kind,
            spec.options,
            {
                name: array * (1 + np.finfo(array.dtype).eps * random.choice((-0.5, 0.5), array.shape))
                for name, array in spec.tensors.items()
            },
        )
        for spec in specs
    ]


def tolerance(wanted: Array, moved: Array, precision: str) -> float:
    """How far an output may be from the one that is wanted; `moved` is that of weights rounded otherwise."""
    with np.errstate(over="ignore", invalid="ignore"):
        movement = np.abs(moved - wanted)
    finite = np.isfinite(wanted) & np.isfinite(movement)
    scale = np.abs(wanted[finite]).max(initial=1.0)
    return float(SHARE[precision] * scale + ROUNDINGS * movement[finite].max(initial=0.0))


def compare(output: Floats, wanted: Array, tolerance: float) -> Comparison:
    """Compare an output with the one that is wanted, of the same shape."""
    with np.errstate(over="ignore"):
        wanted = wanted.astype(output.dtype).astype(np.float64)
    finite = np.isfinite(wanted)
    same = np.array_equal(output[~finite], wanted[~finite], equal_nan=True)
    error = np.abs(output[finite] - wanted[finite]).max(initial=0.0)
    return {
        "passed": bool(same and error <= tolerance),
        "largest_error": float(error),
        "tolerance": tolerance,
        "values": int(wanted.size),
        "hint": "",
    }


# ---------------------------------------------------------------- examples from torch


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "": lambda y: y,
    "Sigmoid": sigmoid,
    "Tanh": np.tanh,
    "ReLU": relu,
    "Softmax": softmax_reference,
    "LogSoftmax": log_softmax_reference,
}


# From the specifications of a model and a precision (None: as they say) to a model.
Maker: TypeAlias = "Callable[[Iterable[LayerSpec], str | None], fastrnn.Sequential]"


def compare_example(model: "fastrnn.Sequential", example: Example, make: Maker) -> Comparison:
    """Compare what a model gives with what torch's module gave.

    Parameters
    ----------
    model : Sequential
    example : Example
    make : callable
        Makes the models that tell how much of a difference rounding may make, and what would agree.
    """
    output = _run(model, example)
    if output is None or _squeezed(output) != _squeezed(example.y):
        gives = "does not take this input" if output is None else f"gives an output of shape {output.shape}"
        hint = f"The model {gives}; the example's is of shape {example.y.shape}."
        failed: Comparison = {
            "passed": False,
            "largest_error": float("inf"),
            "tolerance": example.tolerance or 0.0,
            "values": int(example.y.size),
            "hint": f"{hint} {_what_would_agree(model, example, make)}".strip(),
        }
        return failed
    result = compare(output, example.y.reshape(output.shape), _allowed(model, output, example, make))
    if not result["passed"]:
        result["hint"] = _what_would_agree(model, example, make)
    return result


def undecided(
    model: "fastrnn.Sequential", example: Example, granted: Iterable[str], make: Maker
) -> tuple[str, ...]:
    """What of that which was taken for granted an example that agrees does not decide: other choices agree
    with it too, as both layouts do with a sequence without rows."""
    others = {
        "time_first": (True, False, [""]),
        "every_step": (False, True, [""]),
        "no_activations": (False, False, [name for name in ACTIVATIONS if name]),
    }
    return tuple(
        name
        for name in granted
        if any(
            _agrees(model, example, make, is_other, last, activation)
            for is_other, last, activations in [others[name]]
            for activation in activations
        )
    )


def _allowed(model: "fastrnn.Sequential", output: Floats, example: Example, make: Maker) -> float:
    """How far an output may be from the example's."""
    if example.tolerance is not None:
        return example.tolerance
    specs = [layer.spec() for layer in model.layers]
    precision = "float64" if output.dtype == example.y.dtype == np.float64 else "float32"
    wide, moved = (_run(make(parts, "float64"), example) for parts in (specs, rounded(specs)))
    assert wide is not None and moved is not None
    return tolerance(wide, moved, precision)


def _squeezed(array: Array) -> tuple[int, ...]:
    """The shape without axes of one, which torch's modules often take away or add at the end."""
    return tuple(n for n in array.shape if n > 1)


def _run(model: "fastrnn.Sequential", example: Example) -> Floats | None:
    """The output, or None where the model does not take the input."""
    try:
        output, _ = model(example.x, example.state, lengths=example.lengths)
    except ValueError:
        return None
    return output


def _what_would_agree(model: "fastrnn.Sequential", example: Example, make: Maker) -> str:
    """Try what no file tells: an RNN's nonlinearity, the layout, the last step, an activation at the end."""
    for word, is_other, last, name in product(
        ("", "relu", "tanh"), (False, True), (False, True), ACTIVATIONS
    ):
        changed = _with_nonlinearity(model, word, make) if word else model
        if changed is None or not (word or is_other or last or name):
            continue
        if _agrees(changed, example, make, is_other, last, name):
            words = [f'nonlinearity="{word}"'] * bool(word)
            words += [f"batch_first={not model.batch_first}"] * is_other
            return f"It agrees with {join(words + ['Last()'] * last + [f'{name}()'] * bool(name))}."
    return ""


def _with_nonlinearity(
    model: "fastrnn.Sequential", nonlinearity: str, make: Maker
) -> "fastrnn.Sequential | None":
    """The model with another nonlinearity in its RNNs; None where that changes nothing."""
    specs = [layer.spec() for layer in model.layers]
    changed = [
        LayerSpec(spec.kind, {**spec.options, "nonlinearity": nonlinearity}, spec.tensors)
        if spec.options.get("nonlinearity", nonlinearity) != nonlinearity
        else spec
        for spec in specs
    ]
    is_same = all(one is other for one, other in zip(changed, specs, strict=True))
    return None if is_same else make(changed, None)


def _agrees(
    model: "fastrnn.Sequential", example: Example, make: Maker, is_other: bool, last: bool, activation: str
) -> bool:
    """Whether an example agrees with the model in its other layout, with its last step alone, or with an
    activation at the end."""
    batch_first = model.batch_first is not is_other
    changed = _laid_out(model, batch_first, make) if is_other else model
    output = _run(changed, example)
    if output is None:
        return False
    output = ACTIVATIONS[activation](_last(output, batch_first, example) if last else output)
    if _squeezed(output) != _squeezed(example.y):
        return False
    wanted = example.y.reshape(output.shape)
    near = 1e-3 * max(1.0, float(np.abs(wanted).max(initial=0.0)))
    if not np.abs(output - wanted).max(initial=0.0) <= max(near, example.tolerance or 0.0):
        return False
    return compare(output, wanted, _allowed(changed, output, example, make))["passed"]


def _laid_out(model: "fastrnn.Sequential", batch_first: bool, make: Maker) -> "fastrnn.Sequential":
    """The model with its other layout."""
    specs = []
    for spec in (layer.spec() for layer in model.layers):
        has_layout = "batch_first" in spec.options
        options = {**spec.options, "batch_first": batch_first} if has_layout else spec.options
        specs.append(LayerSpec(spec.kind, options, spec.tensors))
    return make(specs, None)


def _last(output: Floats, batch_first: bool, example: Example) -> Floats:
    """The last valid step of each row."""
    steps: Floats = output.swapaxes(0, 1) if batch_first and output.ndim > 2 else output
    if example.lengths is None or output.ndim < 3:
        last: Floats = steps[-1]
    else:
        last = steps[np.asarray(example.lengths) - 1, np.arange(steps.shape[1])]
    return last


def state_arrays(state: State | None) -> list[Array]:
    """The arrays of a state in order: h, c of the first recurrent layer, and so on."""
    if state is None:
        return []
    if isinstance(state, (tuple, list)):
        return [array for part in state for array in state_arrays(part)]
    return [np.asarray(state)]
