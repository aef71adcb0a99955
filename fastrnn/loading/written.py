"""Models of layers that somebody wrote as text."""

from __future__ import annotations

from collections.abc import Sequence

from fastrnn.errors import message
from fastrnn.importers import Source, StateDict
from fastrnn.importers.architecture import module_paths
from fastrnn.importers.expression import read_layers
from fastrnn.layers import Last
from fastrnn.layers.registry import LAYERS
from fastrnn.program.self_test import ACTIVATIONS
from fastrnn.program.sequential import Sequential, build
from fastrnn.saving.model_file import is_saved
from fastrnn.spec import GATES, GRANTED, LayerSpec


def make_written(
    source: Source,
    state_dict: StateDict,
    text: str,
    *,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> tuple[Sequential, list[str]]:
    """Make the model of a state dict whose layers a text gives; see `importers.expression`.

    ``batch_first`` and ``nonlinearity`` are those of recurrent layers for which the text gives none.

    Returns
    -------
    model : Sequential
    unused : list of str
        The paths of the modules that the text does not name.
    """
    if is_saved(state_dict):
        raise ValueError(
            message(source.where, "a state dict beside layers", "a saved model, which has its own")
        )
    defaults = {"batch_first": batch_first, "nonlinearity": nonlinearity}
    specs, paths = read_layers(
        text,
        state_dict,
        {kind: cls.option_names for kind, cls in LAYERS.items()},
        [kind for kind, cls in LAYERS.items() if cls.needs_weights],
        {name: value for name, value in defaults.items() if value is not None},
    )
    model = build(specs, precision, threads, backend)
    model.taken_for_granted = _not_said(specs)
    return model, [path for path in sorted(module_paths(state_dict)) if path not in paths]


def _not_said(specs: Sequence[LayerSpec]) -> tuple[str, ...]:
    """What is taken for granted of layers that somebody wrote down: what they do not say."""
    recurrent = [spec for spec in specs if spec.kind in GATES]
    kinds = {spec.kind for spec in specs}
    is_open = {
        "time_first": any("batch_first" not in spec.options for spec in recurrent),
        "every_step": bool(recurrent) and "Last" not in kinds,
        "no_activations": not kinds & ACTIVATIONS.keys(),
    }
    return tuple(name for name in GRANTED if is_open[name])


def with_last(model: Sequential) -> Sequential:
    """The model with a `Last` after its last recurrent layer."""
    layers = list(model.layers)
    places = [index for index, layer in enumerate(layers) if layer.is_recurrent]
    if not places or any(layer.is_last_step for layer in layers):
        got = "one without" if not places else "one that has Last already"
        raise ValueError(message("--last", "a model with a recurrent layer and no Last", got))
    result = Sequential(*layers[: places[-1] + 1], Last(), *layers[places[-1] + 1 :])
    granted = model.taken_for_granted
    result.taken_for_granted = None if granted is None else tuple(n for n in granted if n != "every_step")
    return result
