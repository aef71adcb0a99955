"""From a state dict as a file has it to that of the module itself: whole parameters, names without wrappers.

How parameters in parts become whole is in `parametrizations`. No file is read here.
"""

from fastrnn.arrays import Array
from fastrnn.importers.parametrizations import fold, is_parameter
from fastrnn.importers.state_dict import StandIn, StateDict

# DataParallel and the like put "module." before every key.
WRAPPER = "module."
# What torch.compile, FSDP, activation checkpointing and Lightning's Fabric put before or into a key.
INNER_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
# Counters of torch.optim.swa_utils.AveragedModel, and of thop, which puts them into every module.
COUNTERS = ("n_averaged", "total_ops", "total_params")
EMPTY = "it has no numbers: they are in other files, as with DeepSpeed's ZeRO stage 3"


def clean(where: str, state_dict: StateDict) -> StateDict:
    """Return the state dict with whole parameters and the names of the module itself."""
    counters = {name: array for name, array in state_dict.items() if _is_counter(name, array)}
    if len(counters) == len(state_dict):
        counters = {}
    folded = fold(where, {name: array for name, array in state_dict.items() if name not in counters})
    empty = {name: EMPTY for name, array in folded.tensors.items() if array.size == 0 and is_parameter(name)}
    refused = empty | folded.refused
    unread = {**state_dict.unread, **refused}
    names = _unwrapped([*folded.tensors, *unread])
    stand_ins = {name: StandIn("torch.Tensor", reason=why) for name, why in refused.items()}
    return StateDict(
        {names[name]: array for name, array in folded.tensors.items() if name not in unread},
        state_dict.file_format,
        state_dict.key,
        state_dict.left_out | counters | stand_ins,
        state_dict.metadata,
        unread={names[name]: why for name, why in unread.items()},
        folded={names[name]: form for name, form in folded.forms.items()},
        others=state_dict.others,
    )


def _is_counter(name: str, array: Array) -> bool:
    """Whether a tensor is a counter, not a weight."""
    return array.size == 1 and name.endswith(COUNTERS) and name.rpartition(".")[2] in COUNTERS


def _unwrapped(names: list[str]) -> dict[str, str]:
    """Map each name to itself without wrappers. If two would become the same, all stay as they are."""
    everything = "\n".join(names)
    has_inner = any(wrapper in everything for wrapper in INNER_WRAPPERS)
    result = {name: _without_inner(name) if has_inner else name for name in names}
    wrappers = min(map(_wrappers_before, result.values()), default=0)
    result = {name: short[wrappers * len(WRAPPER) :] for name, short in result.items()}
    return result if len(set(result.values())) == len(set(names)) else {name: name for name in names}


def _wrappers_before(name: str) -> int:
    """Count how often a name begins with the wrapper."""
    count = 0
    while name.startswith(WRAPPER, count * len(WRAPPER)):
        count += 1
    return count


def _without_inner(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in INNER_WRAPPERS)
