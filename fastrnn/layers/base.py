"""The base class of all layers, and helpers that several layers share."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from fastrnn.arrays import Array, Floats, State, StateLike, as_plain
from fastrnn.checks import Precision
from fastrnn.errors import WeightError, message, quote
from fastrnn.narrow import STORAGES, NarrowWeight, narrowed
from fastrnn.operators.operator import Operator
from fastrnn.operators.signature import Signature, Trait
from fastrnn.spec import LayerSpec
from fastrnn.streaming.pool import StreamPool
from fastrnn.streaming.stream import Stream

if TYPE_CHECKING:
    from numpy.typing import DTypeLike
    from typing_extensions import Self

    from fastrnn.engine.packing import PackedCell


# The dtypes of layers that compute in their input's.
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


class Layer:
    """The base class of all layers. A `Sequential` is made of layers.

    Attributes
    ----------
    features_in : int or None
        The size of the last axis of the input. None: any size, or the layer takes tokens.
    features_out : int or None
        The size of the last axis of the output. None: that of the input.
    tokens : int or None
        The number of tokens, V: the layer takes integers from 0 to V - 1. None: it takes real numbers.
    option_names : tuple of str
        The names of all options that `spec` may have. A saved model may have no others.
    packed_bytes : int
        What the copy of the weights takes that is laid out for the kernels.
    """

    option_names: ClassVar[tuple[str, ...]] = ()
    features_in: int | None = None
    features_out: int | None = None
    tokens: int | None = None
    packed_bytes = 0
    has_backend = False
    needs_weights = False
    threads: int | None
    backend: str
    __call__: ClassVar[Callable[..., Any]]

    def spec(self) -> LayerSpec:
        """Return the layer's specification, from which `from_spec` makes it again."""
        return LayerSpec(type(self).__name__)

    def runtime(self) -> dict[str, Any]:
        """Return the options that change how the layer runs but not what it computes."""
        return {"threads": self.threads, "backend": self.backend} if self.has_backend else {}

    @classmethod
    def from_spec(cls, spec: LayerSpec, **runtime: Any) -> Self:
        """Make the layer that a specification describes.

        Raises
        ------
        WeightError
            The specification has tensors, and the layer has no weights.
        """
        if spec.tensors or cls.needs_weights:
            make = getattr(cls, "from_state_dict", None)
            if make is None:
                raise WeightError(message(cls.__name__, "no tensors", quote(spec.tensors)))
            return cast("Self", make(spec.tensors, **spec.options, **runtime))
        return cls(**spec.options, **runtime)

    @classmethod
    def precision_in(cls, precision: Precision) -> Precision:
        """Return what the layer computes in as a part of a model of this precision.

        Here that is float32 or float64: the layer has no products.
        """
        return "float64" if precision == "float64" else "float32"

    @property
    def signature(self) -> Signature:
        """What the layer takes, returns and keeps as state."""
        dtype = getattr(self, "dtype", None)
        return Signature(Trait.ROWWISE, self.features_in, self.features_out, self.tokens, dtype)

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
        """Return the operator that computes the layer at a dtype. None: only a call of the layer does."""
        return None

    def with_state(self, x: Any, state: StateLike, lengths: Any) -> tuple[Array, State]:
        """Call a layer that has a state, and return its output and its state."""
        result: tuple[Array, State] = self(x, state, lengths=lengths)
        return result

    def stream(self, batch_size: int | None = None) -> Stream:
        """Return a `Stream` of this layer alone.

        ``batch_size`` and errors are those of `fastrnn.Stream`.
        """
        return Stream([self], batch_size)

    def pool(self, capacity: int = 256) -> StreamPool:
        """Return a `StreamPool` of this layer alone.

        ``capacity`` and errors are those of `fastrnn.StreamPool`.
        """
        return StreamPool([self], capacity)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.spec(), self.runtime())

    def __copy__(self) -> Self:
        """Return the layer itself: it never changes, so copies of models, streams and pools share it."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.spec().options.items())
        return f"{type(self).__name__}({options})"


def _restore(cls: type[Layer], spec: LayerSpec, runtime: dict[str, Any]) -> Layer:
    return cls.from_spec(spec, **runtime)


class ProductLayer(Layer):
    """The base class of the layers whose weights may be narrow: those with products, and Embedding."""

    needs_weights = True
    precision: Precision

    def __init__(self, *sizes: object, **options: object) -> None:
        raise no_weights(type(self))

    @classmethod
    def precision_in(cls, precision: Precision) -> Precision:
        """Return what the layer computes in as a part of a model of this precision.

        One that names matrices is for recurrent layers.
        """
        return precision if isinstance(precision, str) else "float32"


def own(array: Array | NarrowWeight, dtype: DTypeLike) -> Floats:
    """Return a read-only, C-contiguous copy at a dtype, so that nobody can change the weights later."""
    array = np.array(array, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


def own_weight(
    where: str, name: str, weight: Array | NarrowWeight, dtype: DTypeLike, precision: str
) -> Floats | NarrowWeight:
    """Return the weights of a product as they are stored at a precision, so that nobody can change them."""
    return narrowed(where, name, weight, precision) if precision in STORAGES else own(weight, dtype)


def bytes_of(cells: Iterable[PackedCell]) -> int:
    """Return what packed weights take in memory."""
    return sum(0 if cell.memory is None else cell.memory.nbytes for cell in cells)


def no_weights(cls: type[Layer]) -> TypeError:
    """Return the error for a layer that is called with sizes, as in torch, instead of weights."""
    name = cls.__name__
    hint = f"{name}.from_state_dict(state_dict, prefix) or fastrnn.from_torch(module) makes one."
    return TypeError(message(name, "trained weights", "sizes alone", hint))


def time_major(array: Array, batch_first: bool) -> Array:
    """Return a (T, B, ...) view of an array of shape (T, B, ...), (B, T, ...) or, unbatched, (T, F)."""
    if array.ndim == 2:
        return array[:, None]
    return array.swapaxes(0, 1) if batch_first else array


def shown(precision: Precision | None) -> str:
    return "" if precision in (None, "float32") else f", precision={precision!r}"


def apply_rows(function: Operator, x: Floats) -> Floats:
    """Apply an operator to each row of x, shape (..., features), and return a new array of that shape."""
    out = np.empty(x.shape, x.dtype)
    if out.size:
        rows = as_plain(x.reshape(-1, x.shape[-1]))
        function.apply(rows, out.reshape(rows.shape))
    return out
