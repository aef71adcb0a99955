"""Models from a state dict and layers written as text. How the text is read is in `importers.expression`."""

from __future__ import annotations

from collections.abc import Sequence

from fastrnn.checks import Precision
from fastrnn.errors import message
from fastrnn.importers import Source, StateDict
from fastrnn.importers.architecture import module_paths
from fastrnn.importers.expression import read_layers
from fastrnn.layers import Last
from fastrnn.layers.activations import Activation
from fastrnn.layers.over_time import OverTime
from fastrnn.layers.registry import LAYERS
from fastrnn.program.sequential import Sequential, build
from fastrnn.saving.model_file import is_saved
from fastrnn.spec import GATES, GRANTED, LayerSpec


def make_from_expression(
    source: Source,
    state_dict: StateDict,
    text: str,
    *,
    batch_first: bool | None = None,
    nonlinearity: str | None = None,
    precision: Precision | None = None,
    threads: int | None = None,
    backend: str = "auto",
) -> tuple[Sequential, list[str]]:
    """Make the model of a state dict from a text that gives its layers.

    Parameters
    ----------
    source : Source
        Where the state dict was read from, for messages.
    state_dict : StateDict
    text : str
        The layers, in one of the forms of `importers.expression`.
    batch_first, nonlinearity : optional
        For recurrent layers for which the text does not give them.
    precision, threads, backend : optional
        As in `load`.

    Returns
    -------
    model : Sequential
    unused : list of str
        The paths of the modules that the text does not name.

    Raises
    ------
    ValueError
        The text gives no layers that fit the state dict, or the state dict is a saved model.
    WeightError
        The tensors of a module do not make its layer, or one could not be read.
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
    model.taken_for_granted = _left_open(specs)
    return model, [path for path in sorted(module_paths(state_dict)) if path not in paths]


def _left_open(specs: Sequence[LayerSpec]) -> tuple[str, ...]:
    """Return what the written layers leave open, as names in `spec.GRANTED`."""
    recurrent = [spec for spec in specs if spec.kind in GATES]
    kinds = {spec.kind for spec in specs}
    is_open = {
        "time_first": any(
            "batch_first" in LAYERS[spec.kind].option_names and "batch_first" not in spec.options
            for spec in specs
        ),
        "every_step": bool(recurrent) and not any(issubclass(LAYERS[kind], OverTime) for kind in kinds),
        "no_activations": not any(issubclass(LAYERS[kind], Activation) for kind in kinds),
    }
    return tuple(name for name in GRANTED if is_open[name])


def with_last(model: Sequential) -> Sequential:
    """Return the model with a `Last` after its last recurrent layer."""
    layers = list(model.layers)
    indices = [index for index, layer in enumerate(layers) if layer.signature.states]
    if not indices or model.signature.gives_last:
        got = "one without" if not indices else "one that has Last already"
        raise ValueError(message("--last", "a model with a recurrent layer and no Last", got))
    result = Sequential(*layers[: indices[-1] + 1], Last(), *layers[indices[-1] + 1 :])
    granted = model.taken_for_granted
    result.taken_for_granted = None if granted is None else tuple(n for n in granted if n != "every_step")
    return result
