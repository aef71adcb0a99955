"""The tests that a model runs: its self-test, and examples from torch, with what would make them agree."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fastrnn.arrays import Array, Floats
from fastrnn.errors import join
from fastrnn.reference import log_softmax_reference, relu, sigmoid, softmax_reference
from fastrnn.saving.golden import ROWS, SEED, STEPS, Comparison, Example, compare, rounded, tolerance
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    from fastrnn.program.sequential import Sequential


# ---------------------------------------------------------------- the seeded pair


def golden_shape(model: Sequential) -> tuple[int, ...]:
    """That of the input of a self-test."""
    shape = (ROWS, STEPS) if model.batch_first else (STEPS, ROWS)
    return shape if model.layers[0].takes_tokens else (*shape, model.features_in or 4)


def golden_input(model: Sequential) -> Array:
    """A seeded input of a model: normal numbers, or tokens."""
    random = np.random.default_rng(SEED)
    shape = golden_shape(model)
    if model.layers[0].takes_tokens:
        return random.integers(model.layers[0].num_tokens, size=shape)
    return random.standard_normal(shape)


def fits_golden(model: Sequential, x: Array | None, y: Array | None) -> bool:
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
Maker: TypeAlias = "Callable[[Iterable[LayerSpec], str | None], Sequential]"


def compare_example(model: Sequential, example: Example, make: Maker) -> Comparison:
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


def undecided(model: Sequential, example: Example, granted: Iterable[str], make: Maker) -> tuple[str, ...]:
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


def _allowed(model: Sequential, output: Floats, example: Example, make: Maker) -> float:
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


def _run(model: Sequential, example: Example) -> Floats | None:
    """The output, or None where the model does not take the input."""
    try:
        output, _ = model(example.x, example.state, lengths=example.lengths)
    except ValueError:
        return None
    return output


def _what_would_agree(model: Sequential, example: Example, make: Maker) -> str:
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


def _with_nonlinearity(model: Sequential, nonlinearity: str, make: Maker) -> Sequential | None:
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
    model: Sequential, example: Example, make: Maker, is_other: bool, last: bool, activation: str
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


def _laid_out(model: Sequential, batch_first: bool, make: Maker) -> Sequential:
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
