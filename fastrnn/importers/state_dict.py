"""What `load_state_dict` returns: arrays by torch's names, and what is known of the file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

from fastrnn.arrays import Array
from fastrnn.importers.left_out import FrozenDict, LeftOut
from fastrnn.importers.parameters import unread_error


class StateDict(dict[str, Array]):
    """A dict of ndarrays by torch's names. Its attributes say what else the file holds.

    Asking for a tensor that is in the file but was not read, by ``[name]`` or ``get``, is a WeightError that
    says why.

    Attributes
    ----------
    file_format : str
        The format of the file: "torch zip", "torch legacy", "safetensors" or "npz", with the number
        of files if there are several.
    key : str
        The path of the state dict in the file; "" at the top.
    left_out : mapping of str to object
        Everything else by its path in the file. Plain values (numbers, texts, lists, dicts, sets, dates,
        NumPy arrays, tensors as arrays) are nested as in the file and read-only. Anything else is a
        `StandIn`. Each is read when it is first asked for.
    unread : dict of str to str
        The tensors that were not read, and why. ``left_out`` has a `StandIn` for each.
    folded : dict of str to str
        The parameters that training kept in parts, and the form, such as "weight norm".
    others : tuple of str
        The paths of other weights in the file: state dicts with other names or shapes, whole modules, and
        dicts and lists that hold a matrix.
    metadata : dict of str to str
        The metadata of a safetensors file.
    """

    def __init__(
        self,
        arrays: Mapping[str, Array],
        file_format: str,
        key: str = "",
        left_out: Mapping[str, Any] | None = None,
        metadata: dict[str, str] | None = None,
        *,
        unread: Mapping[str, str] | None = None,
        folded: Mapping[str, str] | None = None,
        others: tuple[str, ...] = (),
    ) -> None:
        super().__init__(arrays)
        self.file_format = file_format
        self.key = key
        self.left_out = left_out if isinstance(left_out, LeftOut) else LeftOut(left_out or {})
        self.unread = FrozenDict(unread or {})
        self.folded = FrozenDict(folded or {})
        self.others = others
        self.metadata = metadata or {}

    def __missing__(self, name: object) -> NoReturn:
        if isinstance(name, str) and name in self.unread:
            raise unread_error("state_dict", name, self.unread[name])
        raise KeyError(name)

    def get(self, name: Any, default: Any = None) -> Any:
        """Return the array of a name, or the default if the file has no tensor of that name."""
        return self[name] if name in self or name in self.unread else default
