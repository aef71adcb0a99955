"""The tests of a model: its self-test, and examples from torch.

When an example fails, a search here finds which change of the model would make it agree. `saving.golden` has
the tests as data, the tolerances and the comparison of arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from fastrnn.arrays import Array, Floats
from fastrnn.checks import Precision
from fastrnn.errors import join
from fastrnn.layers import Conv1d
from fastrnn.reference import log_softmax_reference, relu, sigmoid, softmax_reference
from fastrnn.saving.golden import (
    ROWS,
    SEED,
    STEPS,
    Comparison,
    Example,
    compare,
    narrow_storages,
    rounded,
    tolerance,
)
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    from fastrnn.program.sequential import Sequential

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "": lambda y: y,
    "Sigmoid": sigmoid,
    "Tanh": np.tanh,
    "ReLU": relu,
    "Softmax": softmax_reference,
    "LogSoftmax": log_softmax_reference,
}
# Makes a model from specifications at a precision. None: the precision that they name.
Maker: TypeAlias = "Callable[[Iterable[LayerSpec], Precision | None], Sequential]"


# ---------------------------------------------------------------- the self-test


def golden_shape(model: Sequential) -> tuple[int, ...]:
    """Return the shape of the input of a model's self-test."""
    steps = STEPS
    while _steps_out(model, steps) < 1:  # a convolution without padding takes more
        steps *= 2
    shape: tuple[int, ...] = (ROWS, steps) if model.batch_first else (steps, ROWS)
    if any(getattr(layer, "channels_first", False) for layer in model.layers) and not model.signature.states:
        shape = (steps,)  # their third axis is no axis of features
    return shape if model.signature.takes_tokens else (*shape, model.features_in or 4)


def _steps_out(model: Sequential, steps: int) -> int:
    """Return how many steps this many become before what leaves one of them."""
    for layer in model.layers:
        if isinstance(layer, Conv1d) and steps > 0:
            steps = layer.steps_out(steps)
    return steps


def golden_input(model: Sequential) -> Array:
    """Return the seeded input of a model's self-test: normally distributed float64 numbers, or tokens."""
    random = np.random.default_rng(SEED)
    shape = golden_shape(model)
    if model.signature.tokens is not None:
        return random.integers(model.signature.tokens, size=shape)
    return random.standard_normal(shape)


def fits_golden(model: Sequential, x: Array | None, y: Array | None) -> bool:
    """Return whether x and y, as a file has them or None, can be the self-test of a model."""
    if x is None or y is None:
        return False
    example = golden_shape(model)
    leading = example if model.signature.takes_tokens else example[:-1]
    shape = [*leading, model.features_out or example[-1]]
    axis = 1 if model.batch_first and len(leading) > 1 else 0
    shape[axis] = _steps_out(model, shape[axis])
    if model.signature.gives_last:
        del shape[axis]
    return (
        x.shape == example
        and x.dtype == (np.int64 if model.signature.takes_tokens else np.float64)
        and y.shape == tuple(shape)
        and y.dtype == np.float64
    )


# ---------------------------------------------------------------- examples from torch


def compare_example(model: Sequential, example: Example, make: Maker) -> Comparison:
    """Compare a model's output with that of torch's module.

    Parameters
    ----------
    model : Sequential
    example : Example
    make : callable
        Makes variants of the model. They show how far rounding can move the output, and what would agree.

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        The model does not take the input, and would not take it in the other layout either.
    """
    output: Floats | None
    try:
        output, _ = model(example.x, example.state, lengths=example.lengths)
    except ValueError:
        # A state of the other layout does not fit, which is for the hint to say.
        if _run(_laid_out(model, not model.batch_first, make), example) is None:
            raise
        output = None
    if output is None or _squeezed(output) != _squeezed(example.y):
        gives = "does not take this input" if output is None else f"gives an output of shape {output.shape}"
        hint = f"The model {gives}. The example's output is of shape {example.y.shape}."
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
        hint = f"{result['hint']} {_what_would_agree(model, example, make)}".strip()
        result["hint"] = hint or "Was the module in eval() when it made the example?"
    return result


def undecided(model: Sequential, example: Example, granted: Iterable[str], make: Maker) -> tuple[str, ...]:
    """Return those of the assumptions in ``granted`` that an agreeing example does not settle.

    An assumption is not settled if the example also agrees with another choice. An unbatched sequence, for
    instance, agrees with both layouts.
    """
    others = {
        "time_first": (True, "", [""]),
        "every_step": (False, "Last", [""]),
        "no_activations": (False, "", [name for name in ACTIVATIONS if name]),
    }
    return tuple(
        name
        for name in granted
        if any(
            _agrees(model, example, make, other_layout, last, activation)
            for other_layout, last, activations in [others[name]]
            for activation in activations
        )
    )


def _allowed(model: Sequential, output: Floats, example: Example, make: Maker) -> float:
    """Return the largest difference allowed between an output and the example's."""
    if example.tolerance is not None:
        return example.tolerance
    specs = [layer.spec() for layer in model.layers]
    precision = "float64" if output.dtype == example.y.dtype == np.float64 else "float32"
    wide, moved = (_run(make(layers, "float64"), example) for layers in (specs, rounded(specs)))
    assert wide is not None and moved is not None
    return tolerance(wide, moved, precision, bool(narrow_storages(specs)))


def _squeezed(array: Array) -> tuple[int, ...]:
    """Return the shape without axes of size 1: modules often add or remove one at the end."""
    return tuple(n for n in array.shape if n > 1)


def _run(model: Sequential, example: Example) -> Floats | None:
    """Return the output, or None if the model does not take the input."""
    try:
        output, _ = model(example.x, example.state, lengths=example.lengths)
    except ValueError:
        return None
    return output


def _what_would_agree(model: Sequential, example: Example, make: Maker) -> str:
    """Search for a change that makes the example agree, and return a sentence that names it, or "".

    The search tries what no file records: an RNN's nonlinearity, the layout, the last step or the final state
    alone, and an activation at the end.
    """
    has_both = any(getattr(layer, "bidirectional", False) for layer in model.layers)
    rows = ("", "Last", "FinalState") if has_both else ("", "Last")
    for nonlinearity, other_layout, last, activation in product(
        ("", "relu", "tanh"),
        (False, True),
        rows,
        ACTIVATIONS,
    ):
        changed = _with_nonlinearity(model, nonlinearity, make) if nonlinearity else model
        if changed is None or not (nonlinearity or other_layout or last or activation):
            continue
        if _agrees(changed, example, make, other_layout, last, activation):
            words = [f'nonlinearity="{nonlinearity}"'] * bool(nonlinearity)
            words += [f"batch_first={not model.batch_first}"] * other_layout
            words += [f"{name}()" for name in (last, activation) if name]
            return f"It agrees with {join(words)}."
    return ""


def _with_nonlinearity(model: Sequential, nonlinearity: str, make: Maker) -> Sequential | None:
    """Return the model with this nonlinearity in its RNNs, or None if that changes nothing."""
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
    model: Sequential, example: Example, make: Maker, other_layout: bool, last: str, activation: str
) -> bool:
    """Return whether an example agrees with the model after these changes.

    The changes are the other layout, the last step or the final state alone, and an activation at the end.
    """
    batch_first = model.batch_first is not other_layout
    changed = _laid_out(model, batch_first, make) if other_layout else model
    output = _run(changed, example)
    if output is None:
        return False
    output = ACTIVATIONS[activation](_last(last, output, batch_first, example) if last else output)
    if _squeezed(output) != _squeezed(example.y):
        return False
    wanted = example.y.reshape(output.shape)
    share = 0.1 if narrow_storages(layer.spec() for layer in changed.layers) else 1e-3
    near = share * max(1.0, float(np.abs(wanted).max(initial=0.0)))
    if not np.abs(output - wanted).max(initial=0.0) <= max(near, example.tolerance or 0.0):
        return False
    return compare(output, wanted, _allowed(changed, output, example, make))["passed"]


def _laid_out(model: Sequential, batch_first: bool, make: Maker) -> Sequential:
    """Return the model with this layout."""
    specs = []
    for spec in (layer.spec() for layer in model.layers):
        has_layout = "batch_first" in spec.options
        options = {**spec.options, "batch_first": batch_first} if has_layout else spec.options
        specs.append(LayerSpec(spec.kind, options, spec.tensors))
    return make(specs, None)


def _last(kind: str, output: Floats, batch_first: bool, example: Example) -> Floats:
    """Return what Last or FinalState gives of an output."""
    steps: Floats = output.swapaxes(0, 1) if batch_first and output.ndim > 2 else output
    if example.lengths is None or output.ndim < 3:
        last: Floats = steps[-1].copy()
    else:
        last = steps[np.asarray(example.lengths) - 1, np.arange(steps.shape[1])]
    if kind == "FinalState":
        half = steps.shape[-1] // 2
        last[..., half:] = steps[0, ..., half:]
    return last
