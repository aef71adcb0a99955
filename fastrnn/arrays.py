"""The types of arrays and states, and arrays as compiled code takes them."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

# What checks return and layers give: any array, one of floats, the state of a layer or a model.
Array: TypeAlias = NDArray[Any]
Floats: TypeAlias = NDArray[np.floating[Any]]
State: TypeAlias = Floats | tuple["State", ...]
# A state as callers give it; None is zeros.
StateLike: TypeAlias = ArrayLike | Sequence["StateLike"] | None


def as_plain(array: Array, dtype: DTypeLike | None = None) -> Array:
    """The array, or a copy that is C-contiguous, aligned and of dtype, as compiled code takes it."""
    array = np.asarray(array, dtype, order="C")
    return array if array.flags.aligned else array.copy()
