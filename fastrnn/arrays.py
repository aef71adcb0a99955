"""The types of arrays and states, and arrays in the form that compiled code takes.

Nothing is checked here. The checks of a user's arrays are in `checks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, DTypeLike

# What checks return and layers give: any array, an array of floats, the state of a layer or a model.
Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]]
State: TypeAlias = Floats | tuple["State", ...]
# A state as callers pass it. None means zeros. In quotes: numpy.typing takes long to import.
StateLike: TypeAlias = "ArrayLike | Sequence[StateLike] | None"


def as_plain(array: Array, dtype: DTypeLike | None = None) -> Array:
    """Return the array if it is C-contiguous, aligned and of dtype, else such a copy."""
    array = np.asarray(array, dtype, order="C")
    return array if array.flags.aligned else array.copy()


def flat_state(state: Any) -> list[Array]:
    """Return the arrays of a state in order: h and c of the first recurrent layer, and so on. None has
    none."""
    if state is None:
        return []
    if isinstance(state, (tuple, list)):
        return [array for one in state for array in flat_state(one)]
    return [np.asarray(state)]
