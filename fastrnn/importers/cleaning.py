"""From a state dict as a file has it to that of the module itself: whole parameters, plain names."""

from fastrnn.arrays import Array
from fastrnn.importers.parametrizations import fold, is_parameter
from fastrnn.importers.state_dict import StateDict
from fastrnn.importers.values import StandIn

# DataParallel and the like put "module." before every key.
WRAPPER = "module."
# What wrappers put before or into a key: torch.compile, FSDP, activation checkpoints, Lightning's Fabric.
INNER_WRAPPERS = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
# Counters: of torch.optim.swa_utils.AveragedModel, and in each module whose operations thop counted.
COUNTERS = ("n_averaged", "total_ops", "total_params")
EMPTY = "it has no numbers: they lie in other files, as with DeepSpeed's ZeRO stage 3"


def clean(where: str, state_dict: StateDict) -> StateDict:
    """The same with whole parameters, by the names of the module itself."""
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
    """Whether it counts something beside the weights."""
    return array.size == 1 and name.endswith(COUNTERS) and name.rpartition(".")[2] in COUNTERS


def _unwrapped(names: list[str]) -> dict[str, str]:
    """Each name without what wrappers put into it; as it was, where two would become one."""
    everything = "\n".join(names)
    has_inner = any(wrapper in everything for wrapper in INNER_WRAPPERS)
    result = {name: _without_inner(name) if has_inner else name for name in names}
    wrappers = min(map(_wrappers_before, result.values()), default=0)
    result = {name: short[wrappers * len(WRAPPER) :] for name, short in result.items()}
    return result if len(set(result.values())) == len(set(names)) else {name: name for name in names}


def _wrappers_before(name: str) -> int:
    """How many times the wrapper stands at the beginning of a name."""
    count = 0
    while name.startswith(WRAPPER, count * len(WRAPPER)):
        count += 1
    return count


def _without_inner(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in INNER_WRAPPERS)
