"""`with_heads`: a model of layers that gives several outputs, as a program."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from fastrnn.errors import brief, message
from fastrnn.graph import Graph, Input, ProgramSpec
from fastrnn.layers import Layer
from fastrnn.layers.registry import specs_of
from fastrnn.operators.signature import Trait
from fastrnn.program.layer_nodes import B, Flow, T, Writer
from fastrnn.program.narrowing import refuse_splits
from fastrnn.program.program import Program
from fastrnn.program.sequential import Sequential

WHERE = "with_heads"


def with_heads(body: Layer | Sequential, /, **heads: Layer | Sequential) -> Program:
    """Return a program of a body and several heads, each of which takes what the body gives.

    ``outputs, state = program(x, state)``. The outputs are a dict with a result for each head, by its name.
    Each is what a `Sequential` of the body and this head gives. ``program.stream()`` and ``program.pool()``
    run it step by step if all its layers do so, and give the outputs alone.

    Parameters
    ----------
    body : Layer or Sequential
        What all heads share. It runs once.
    **heads : Layer or Sequential
        The heads by name, in the order of the results.

    Returns
    -------
    Program
        It takes ``x`` of shape (T, B, I), or (B, T, I) if the layers have ``batch_first``. Tokens are int64
        and have no I axis. A body with a `BatchNorm1d` of ``channels_first`` takes (B, I). T and B may be
        any in each call. There is no form without the axis of rows, and there are no ``lengths``: rows of
        several lengths need a call each.

        ``state`` has the form that a Sequential takes and returns: the layer's state if one layer has one,
        else a tuple with that of each layer that has one, those of the body first and then those of the
        heads in order, or None. The h of a recurrent layer has shape (L*D, B, P), the c of an LSTM (L*D, B,
        H). If it is None or left out, the program begins with zeros, or what was learned.

        Its precision, threads and backend are those of the layers. Loading a saved program with other ones
        changes them.

    Raises
    ------
    ValueError
        There is no head, or a layer does not fit the one before it, as in a Sequential. Or layers differ in
        ``batch_first``, ``threads`` or ``backend``, or a `BatchNorm1d` of ``channels_first`` gets time steps.
    TypeError
        An argument is not a layer of fastrnn, or a layer is of a subclass, of which no graph is known.

    Examples
    --------
    >>> program = fastrnn.with_heads(
    ...     fastrnn.LSTM.from_state_dict(sd, "lstm"),
    ...     policy=fastrnn.Linear.from_state_dict(sd, "policy"),
    ...     value=fastrnn.Linear.from_state_dict(sd, "value"),
    ... )
    >>> outputs, state = program(x)
    >>> outputs["policy"], outputs["value"]
    >>> outputs = program.stream().step(observation)
    """
    if not heads:
        raise ValueError(message(WHERE, "at least one head", "none", "with_heads(body, name=head)."))
    shared = _layers("body", body)
    parts = {name: _layers(name, head) for name, head in heads.items()}
    layers = [*shared, *(layer for part in parts.values() for layer in part)]
    models = [_model(name, *shared, *part) for name, part in (("body", ()), *parts.items())]
    features = list(dict.fromkeys(m.features_in for m in models if m.features_in is not None))
    if len(features) > 1:
        got = " and ".join(map(str, features))
        raise ValueError(message(WHERE, "heads that take the same number of features", got))
    specs_of(WHERE, layers)
    for layer in layers:
        precision = getattr(layer, "precision", None) or "float32"
        refuse_splits(WHERE, [precision] if isinstance(precision, str) else precision.values())
    batch_first = _shared("batch_first", layers, False)
    writer = Writer(batch_first)
    x = _input(layers, features[0] if features else "I", batch_first)
    given = writer.write("body", shared, Flow(x.name, x.dtype, T in x.shape))
    outputs = [writer.write(f"heads.{name}", part, given).name for name, part in parts.items()]
    spec = _spec(writer, x, dict(zip(heads, outputs, strict=True)))
    threads, backend = _shared("threads", layers, None), _shared("backend", layers, "auto")
    return Program(spec, threads=threads, backend=backend)


def _layers(name: str, model: Any) -> tuple[Layer, ...]:
    """The layers of the body or a head."""
    if isinstance(model, Sequential):
        return model.layers
    if isinstance(model, Layer):
        return (model,)
    raise TypeError(message(WHERE, f"{name} to be a layer or a Sequential of fastrnn", brief(model)))


def _model(name: str, *layers: Layer) -> Sequential:
    """The body with a head, or alone: layers that fit."""
    try:
        return Sequential(*layers)
    except ValueError as error:
        raise ValueError(f"{WHERE}: {name}: {error}") from error


def _shared(option: str, layers: Sequence[Layer], usual: Any) -> Any:
    """The one value of an option that some layers have."""
    values = list(dict.fromkeys(getattr(layer, option) for layer in layers if hasattr(layer, option)))
    if len(values) > 1:
        got = " and ".join(map(repr, values))
        raise ValueError(message(WHERE, f"one {option} for all layers", got))
    return values[0] if values else usual


def _input(layers: Sequence[Layer], features: int | str, batch_first: bool) -> Input:
    """What the program takes. layers: those of the body first."""
    signatures = [layer.signature for layer in layers]
    axes: tuple[str, ...] = (B, T) if batch_first else (T, B)
    looks_along_time = any(own.trait not in (Trait.ROWWISE, Trait.IDENTITY) for own in signatures)
    if any(getattr(layer, "channels_first", False) for layer in layers) and not looks_along_time:
        axes = (B,)
    if signatures[0].takes_tokens:
        return Input("x", "int64", axes)
    dtype = next((own.dtype.name for own in signatures if own.dtype is not None), "float32")
    return Input("x", dtype, (*axes, features))


def _spec(writer: Writer, x: Input, heads: Mapping[str, str]) -> ProgramSpec:
    """The graph with ``(x, state)`` as arguments and ``(outputs, state)`` as results. heads: their values."""
    forms = [form for own in writer.states for form, _ in own]
    links = [link for own in writer.states for _, link in own]
    outputs = (*heads.values(), *(link.output for link in links))
    graph = Graph((x, *forms), tuple(writer.nodes), outputs, writer.constants, tuple(links))
    results = {"dict": {name: {"array": number} for number, name in enumerate(heads)}}
    arguments = {"tuple": [{"array": 0}, _nested(writer, 1)]}
    return ProgramSpec(
        graph,
        {"tuple": [arguments, {"dict": {}}]},
        {"tuple": [results, _nested(writer, len(heads))]},
        ("x", "state"),
    )


def _nested(writer: Writer, first: int) -> Any:
    """How the arrays of states are nested: as a Sequential's. first: the number of the first one."""
    numbers = itertools.count(first)
    parts = []
    for own in writer.states:
        arrays = [{"array": next(numbers)} for _ in own]
        parts.append(arrays[0] if len(arrays) == 1 else {"tuple": arrays})
    if not parts:
        return {"constant": None}
    return parts[0] if len(parts) == 1 else {"tuple": parts}
