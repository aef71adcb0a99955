"""The state dict in what a file holds: found, freed of wrappers, and what was left out."""

import numpy as np

from fastrnn.errors import FormatError, brief, message, quote
from fastrnn.importers.pickle_reader import Name, Odd, StandIn
from fastrnn.importers.tensors import TensorView
from fastrnn.spec import is_recurrent_key

# Where training scripts put a model's state dict.
USUAL_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params",
)  # fmt: skip
# DistributedDataParallel and torch.compile put these before every key.
WRAPPERS = ("module.", "_orig_mod.")
MAX_DEPTH = 3


class StateDict(dict):
    """torch's names to ndarrays, and beside them what the file held besides.

    Attributes
    ----------
    file_format : str
        What kind of file it was.
    key : str
        Where in the file the state dict lay; "" at the top.
    left_out : dict of str to str
        Each thing that is not among the arrays, and what it is.
    metadata : dict of str to str
        The texts of a safetensors file.
    """

    def __init__(self, arrays, file_format, key="", left_out=None, metadata=None):
        super().__init__(arrays)
        self.file_format = file_format
        self.key = key
        self.left_out = left_out or {}
        self.metadata = metadata or {}


def find_state_dict(root, where, file_format, key=None, metadata=None):
    """Find the state dict in an object of dicts, and make its arrays.

    Raises
    ------
    FormatError
        There is none, or there are several and no `key` picks one.
    """
    if key is not None:
        path, found = key, _at(root, where, key)
        if not _is_state_dict(found):
            _raise_none(found, where, f'a state_dict at "{key}"')
    else:
        path, found = _choose(root, where)
    left_out = {}
    tensors = {}
    for name, value in found.items():
        if isinstance(name, str) and isinstance(value, (TensorView, np.ndarray)):
            tensors[name] = value
        else:
            left_out[_join(path, name)] = describe(value)
    _describe_rest(root, path, left_out)
    arrays = {
        name: value.array(where, brief(name)) if isinstance(value, TensorView) else value
        for name, value in _unwrap(tensors).items()
    }
    return StateDict(arrays, file_format, path, left_out, metadata)


def describe(value):
    """What a value of a file is, in a few words."""
    if isinstance(value, TensorView):
        return f"tensor {brief(value.size) if len(value.size) > 8 else value.size}"
    if isinstance(value, StandIn):
        return f"{value.name} (not read)"
    if isinstance(value, (dict, list, tuple)):
        return f"{type(value).__name__} of {len(value)}"
    if isinstance(value, Name):
        return value.text
    return brief(value)


def _join(path, name):
    name = describe(name.value) if isinstance(name, Odd) else str(name)
    return f"{path}.{name}" if path else name


def _is_state_dict(value):
    return isinstance(value, dict) and any(
        isinstance(name, str) and isinstance(item, (TensorView, np.ndarray)) for name, item in value.items()
    )


def _at(root, where, key):
    """What lies at a key, or at a path of keys with dots between them."""
    if isinstance(root, dict) and key in root:
        return root[key]
    found = root
    for part in key.split("."):
        if not isinstance(found, dict) or part not in found:
            keys = list(found) if isinstance(found, dict) else []
            names = [name for name in keys if isinstance(name, str)][:20]
            got = f"only {quote(names)}" if names else "none"
            raise FormatError(message(where, f'the key "{key}"', got))
        found = found[part]
    return found


def _candidates(root):
    """Every dict of tensors down to a small depth: paths to dicts. Optimizers are passed over."""
    found = {}
    level = [("", root)]
    for _ in range(MAX_DEPTH):
        below = []
        for path, value in level:
            if not isinstance(value, dict) or "param_groups" in value:
                continue
            if _is_state_dict(value):
                found[path] = value
            below += [
                (_join(path, name), item)
                for name, item in value.items()
                if isinstance(name, str) and isinstance(item, dict)
            ]
        level = below[:1000]
    return found


def _choose(root, where):
    """The one state dict that a file is about: its path and itself."""
    found = _candidates(root)
    if not found:
        _raise_none(root, where, "a state_dict")
    usual = [path for path in found if path.rpartition(".")[2] in USUAL_KEYS]
    recurrent = [
        path
        for path, value in found.items()
        if any(isinstance(name, str) and is_recurrent_key(name) for name in value)
    ]
    chosen = usual or recurrent or list(found)
    if len(chosen) == 1:
        return chosen[0], found[chosen[0]]
    names = [path or "(top)" for path in chosen]
    hint = f'Pick one with key="{chosen[-1]}".'
    raise FormatError(message(where, "one state_dict", f"{len(names)}: {quote(names[:20])}", hint))


def _raise_none(found, where, expected):
    module = _first_stand_in(found)
    if module is not None:
        hint = (
            "Such a file needs the code of its class, and runs it. Where you trust it and have "
            "that code, save its weights once: torch.save(torch.load(path, weights_only=False)"
            '.state_dict(), "weights.pt") (take the module out of a dict first), and load that file.'
        )
        got = f"a whole pickled module or object ({module.name})"
        raise FormatError(message(where, expected, got, hint))
    raise FormatError(message(where, expected, describe(found)))


def _first_stand_in(found):
    if isinstance(found, StandIn):
        return found
    values = found.values() if isinstance(found, dict) else found if isinstance(found, (list, tuple)) else ()
    stand_ins = [value for value in values if isinstance(value, StandIn)]
    with_state = [value for value in stand_ins if isinstance(value.state, dict) and "_modules" in value.state]
    return (with_state or stand_ins or [None])[0]


def _describe_rest(root, path, left_out):
    """Describe what lies beside the chosen dict, on every level above it."""
    while path:
        parent, _, last = path.rpartition(".")
        value = root
        for part in parent.split(".") if parent else []:
            value = value[part] if isinstance(value, dict) and part in value else {}
        if isinstance(value, dict):
            for name, item in value.items():
                if name != last and name != path:
                    left_out.setdefault(_join(parent, name), describe(item))
        path = parent


def _unwrap(tensors):
    for wrapper in WRAPPERS * 2:
        if tensors and all(name.startswith(wrapper) for name in tensors):
            tensors = {name.removeprefix(wrapper): value for name, value in tensors.items()}
    return tensors
