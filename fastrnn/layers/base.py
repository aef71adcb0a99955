"""What every layer is, and what several share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from numpy.typing import DTypeLike

from fastrnn.arrays import Array, Floats, as_plain
from fastrnn.errors import WeightError, message, quote
from fastrnn.operators.operator import Operator
from fastrnn.operators.signature import Signature, Trait
from fastrnn.spec import LayerSpec
from fastrnn.streaming.pool import StreamPool
from fastrnn.streaming.stream import Stream

if TYPE_CHECKING:
    from typing_extensions import Self


class Layer:
    """What a Sequential is made of.

    Attributes
    ----------
    features_in, features_out : int or None
        The last axis that the layer takes and gives. None in: any; None out: as it came in.
    tokens : int or None
        How many tokens there are, of a layer that takes tokens. None: it takes numbers.
    option_names : tuple of str
        The options of `spec`, all that a saved model may give.
    """

    option_names: ClassVar[tuple[str, ...]] = ()
    features_in: int | None = None
    features_out: int | None = None
    tokens: int | None = None
    has_backend = False
    needs_weights = False
    threads: int | None
    backend: str
    __call__: ClassVar[Callable[..., Any]]

    def spec(self) -> LayerSpec:
        """What the layer is: a LayerSpec, from which `from_spec` makes it again."""
        return LayerSpec(type(self).__name__)

    def runtime(self) -> dict[str, Any]:
        """The options that say how the layer is run, and not what it computes."""
        return {"threads": self.threads, "backend": self.backend} if self.has_backend else {}

    @classmethod
    def from_spec(cls, spec: LayerSpec, **runtime: Any) -> Self:
        """Make the layer that a LayerSpec describes."""
        if spec.tensors or cls.needs_weights:
            make = getattr(cls, "from_state_dict", None)
            if make is None:
                raise WeightError(message(cls.__name__, "no tensors", quote(spec.tensors)))
            return cast("Self", make(spec.tensors, **spec.options, **runtime))
        return cls(**spec.options, **runtime)

    @property
    def signature(self) -> Signature:
        """What the layer takes, gives and keeps."""
        dtype = getattr(self, "dtype", None)
        return Signature(Trait.ROWWISE, self.features_in, self.features_out, self.tokens, dtype)

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
        """What computes the layer in compiled code, at a dtype; None: it has to be called."""
        return None

    def stream(self, batch_size: int | None = None) -> Stream:
        """A Stream of this layer alone; see `fastrnn.Stream` for ``batch_size`` and errors."""
        return Stream([self], batch_size)

    def pool(self, capacity: int = 256) -> StreamPool:
        """A StreamPool of this layer alone; see `fastrnn.StreamPool` for ``capacity`` and errors."""
        return StreamPool([self], capacity)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.spec(), self.runtime())

    def __copy__(self) -> Self:
        """The layer itself, which never changes: copies of models, streams and pools share its weights."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.spec().options.items())
        return f"{type(self).__name__}({options})"


def _restore(cls: type[Layer], spec: LayerSpec, runtime: dict[str, Any]) -> Layer:
    return cls.from_spec(spec, **runtime)


def own(array: Array, dtype: DTypeLike) -> Floats:
    """A read-only contiguous copy, which nobody else can change."""
    array = np.array(array, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


def no_weights(cls: type[Layer]) -> TypeError:
    """The error of a layer that is made as torch makes it, by its sizes."""
    name = cls.__name__
    hint = f"{name}.from_state_dict(state_dict, prefix) or fastrnn.from_torch(module) makes one."
    return TypeError(message(name, "trained weights", "sizes alone", hint))


def time_major(array: Array, batch_first: bool) -> Array:
    """A view (T, B, ...) of (T, B, ...), (B, T, ...) or unbatched (T, ...)."""
    if array.ndim == 2:
        return array[:, None]
    return array.swapaxes(0, 1) if batch_first else array


def shown(precision: str) -> str:
    return "" if precision == "float32" else f", precision={precision!r}"


def apply_rows(function: Operator, x: Floats) -> Floats:
    """What a function makes of the rows of x (..., features)."""
    out = np.empty(x.shape, x.dtype)
    if out.size:
        rows = as_plain(x.reshape(-1, x.shape[-1]))
        function.apply(rows, out.reshape(rows.shape))
    return out
