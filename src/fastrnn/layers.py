"""The layers: torch's names, arguments, shapes and numbers; NumPy arrays in and out.

A layer checks its arguments (errors.py), allocates its result, and calls the engine. It is
immutable once made, so any number of threads and streams may use it.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from fastrnn import reference
from fastrnn._engine import Dense, Recurrent, Spares, Stepper
from fastrnn._pack import pack_dense, pack_recurrent
from fastrnn.backends import pick_backend
from fastrnn.errors import (
    Array,
    Floats,
    State,
    StateLike,
    WeightError,
    check_array,
    check_choice,
    check_flag,
    check_last_axis,
    check_lengths,
    check_number,
    check_out,
    check_positive,
    check_precision,
    check_sequence,
    check_state,
    check_threads,
    check_tokens,
    message,
    quote,
)
from fastrnn.spec import LayerSpec, RecurrentSpec, read_parameters, read_recurrent
from fastrnn.streaming import Stream

if TYPE_CHECKING:
    from typing_extensions import Self

# The state of a kind of layer; what Dropout passes on.
LayerState = TypeVar("LayerState", bound=State)
Anything = TypeVar("Anything")


class Layer:
    """What a Sequential is made of.

    Attributes
    ----------
    features_in, features_out : int or None
        The last axis that the layer takes and gives. None in: any; None out: as it came in.
    num_tokens : int
        For a layer that takes tokens: how many there are.
    option_names : tuple of str
        The options of `spec`, all that a saved model may give.
    """

    option_names: ClassVar[tuple[str, ...]] = ()
    features_in: int | None = None
    features_out: int | None = None
    is_recurrent = False
    has_backend = False
    needs_weights = False
    takes_tokens = False
    is_last_step = False
    num_tokens: int
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
    def from_spec(cls, spec: LayerSpec, **runtime: Any) -> "Self":
        """Make the layer that a LayerSpec describes."""
        if spec.tensors or cls.needs_weights:
            make = getattr(cls, "from_state_dict", None)
            if make is None:
                raise WeightError(message(cls.__name__, "no tensors", quote(spec.tensors)))
            return cast("Self", make(spec.tensors, **spec.options, **runtime))
        return cls(**spec.options, **runtime)

    def stream(self, batch_size: int | None = None) -> Stream:
        """A Stream of this layer alone; see `fastrnn.Stream` for ``batch_size`` and errors."""
        return Stream([self], batch_size)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.spec(), self.runtime())

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.spec().options.items())
        return f"{type(self).__name__}({options})"


def _restore(cls: type[Layer], spec: LayerSpec, runtime: dict[str, Any]) -> Layer:
    return cls.from_spec(spec, **runtime)


def _own(array: Array, dtype: DTypeLike) -> Floats:
    """A read-only contiguous copy, which nobody else can change."""
    array = np.array(array, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


def _no_weights(cls: type[Layer]) -> TypeError:
    """The error of a layer that is made as torch makes it, by its sizes."""
    name = cls.__name__
    hint = f"{name}.from_state_dict(state_dict, prefix) or fastrnn.from_torch(module) makes one."
    return TypeError(message(name, "trained weights", "sizes alone", hint))


# ---------------------------------------------------------------- recurrent layers


class RecurrentLayer(Layer, Generic[LayerState]):
    """What RNN, GRU and LSTM share."""

    is_recurrent = True
    has_backend = True
    needs_weights = True
    option_names: ClassVar[tuple[str, ...]] = ("batch_first", "precision")
    shape: RecurrentSpec
    batch_first: bool
    precision: str
    dtype: np.dtype[np.floating[Any]]
    tensors: dict[str, Floats]
    features_in: int
    features_out: int
    _engine: Recurrent
    _spares: Spares

    def __init__(self, *_: object, **__: object) -> None:
        raise _no_weights(type(self))

    @classmethod
    def _make(
        cls,
        shape: RecurrentSpec,
        tensors: Mapping[str, Array],
        batch_first: bool,
        precision: str,
        threads: int | None,
        backend: str,
    ) -> "Self":
        self = cls.__new__(cls)
        where = cls.__name__
        dtype = check_precision(where, precision)
        self.batch_first = check_flag(where, "batch_first", batch_first)
        self.threads = check_threads(where, threads)
        self.backend = backend
        self.precision = precision
        self.dtype = dtype
        self.shape = shape
        self.tensors = {name: _own(array, dtype) for name, array in tensors.items()}
        self.features_in = shape.input_size
        self.features_out = shape.directions * shape.output_size
        picked = pick_backend(where, backend, dtype)
        cells = [
            pack_recurrent(
                picked.layout,
                shape.cell,
                self.tensors[f"weight_ih{suffix}"],
                self.tensors[f"weight_hh{suffix}"],
                *(self.tensors.get(part + suffix) for part in ("bias_ih", "bias_hh", "weight_hr")),
            )
            for suffix in shape.suffixes()
        ]
        self._engine = Recurrent(cells, shape.directions, picked.table)
        self._spares = Spares()
        return self

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Any],
        prefix: str = "",
        *,
        batch_first: bool = False,
        precision: str = "float32",
        threads: int | None = None,
        backend: str = "auto",
    ) -> "Self":
        """Make the layer from the weights of torch's module of the same name.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            torch's names to arrays or torch tensors; sizes, layers, directions, projection
            and bias are read off its keys and shapes. The keys of a cell (``weight_ih``) make
            a one-layer layer.
        prefix : str
            The path of the module in the state dict, with or without the closing dot. Every
            key below it must belong to the module.
        batch_first : bool
            Inputs and outputs are (B, T, ...) in place of (T, B, ...); states stay as they are.
        precision : {"float32", "float64"}
            The type of weights, inputs, outputs and states.
        threads : int, optional
            How many cores a call may use at most. The ``blas`` backend runs on the calling
            thread; the threads of its BLAS library are its own (``OPENBLAS_NUM_THREADS``).
        backend : {"auto", "simd", "blas"}

        Raises
        ------
        WeightError
            A key is missing, surplus or misshapen, or the weights are another kind of cell's.
        TypeError
            ``state_dict`` is no mapping of names to arrays, or an option is of a wrong kind.
        ValueError
            An option has a wrong value.

        Notes
        -----
        Source: https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
        """
        shape, tensors = read_recurrent(cls.__name__, cls.__name__, state_dict, prefix)
        return cls._make(shape, tensors, batch_first, precision, threads, backend)

    # The sizes by torch's names.
    input_size = property(lambda self: self.shape.input_size)
    hidden_size = property(lambda self: self.shape.hidden_size)
    num_layers = property(lambda self: self.shape.num_layers)
    bidirectional = property(lambda self: self.shape.bidirectional)
    proj_size = property(lambda self: self.shape.proj_size)
    bias = property(lambda self: self.shape.bias)

    def spec(self) -> LayerSpec:
        options = {"batch_first": self.batch_first, "precision": self.precision}
        return LayerSpec(type(self).__name__, options, self.tensors)

    def __call__(
        self,
        x: ArrayLike,
        state: StateLike = None,
        *,
        lengths: ArrayLike | None = None,
        out: Floats | None = None,
    ) -> tuple[Floats, LayerState]:
        """Run the layer over whole sequences.

        Parameters
        ----------
        x : array-like of real numbers, shape (T, B, I)
            (B, T, I) with ``batch_first``; (T, I) is one unbatched sequence. Brought to the
            layer's dtype, float32 or float64 as its ``precision`` says.
        state : array-like or pair of them, optional
            h of shape (L*D, B, P), or (h, c) with c (L*D, B, H) for an LSTM; without B where
            x has none. Zeros if not given.
        lengths : B integers, optional
            The time steps of each row, in any order, from 1 to T. Outputs beyond a row's
            length are 0, states are those behind its own last step, and the reverse direction
            begins there.
        out : ndarray, optional
            C-contiguous, of the output's shape and dtype; written in place and returned. Such
            a call allocates nothing once the layer has seen the shape.

        Returns
        -------
        output : ndarray of the layer's dtype, shape (T, B, D*P)
            (B, T, D*P) with ``batch_first``, (T, D*P) unbatched.
        state : ndarray or pair of them
            Shaped as ``state`` is.

        Raises
        ------
        ValueError
            A shape, a length or ``out`` does not fit.
        TypeError
            An argument does not hold real numbers.
        """
        where = type(self).__name__
        x = check_sequence(where, x, self.dtype, self.input_size, self.batch_first)
        is_batched = x.ndim == 3
        steps = _time_major(x, self.batch_first)
        T, B = steps.shape[:2]
        shapes = self.shape.state_shapes(B if is_batched else None)
        given = [] if state is None else check_state(where, state, shapes)
        if lengths is not None:
            if not is_batched:
                hint = "Leave them out, or give x an axis of rows."
                raise ValueError(message(where, "a batch beside lengths", f"x of shape {x.shape}", hint))
            lengths = check_lengths(where, lengths, T, B)
        shape = (*x.shape[:-1], self.features_out)
        if out is None:
            output = np.empty(shape, self.dtype)
            states: list[Floats] = [np.empty(size, self.dtype) for size in shapes.values()]
        else:
            output = check_out(where, out, shape, self.dtype, (x, *given))
            states = [self._spares.take(size, self.dtype) for size in shapes.values()]
        for index, array in enumerate(states):
            array[...] = given[index] if given else 0
        self.advance(steps, states, _time_major(output, self.batch_first), lengths)
        return output, self.pack_state(states)

    def advance(
        self, x: Array, states: list[Floats], out: Array, lengths: NDArray[np.intp] | None = None
    ) -> None:
        """Run checked arrays: x (T, B, I) into out (T, B, D*P), the states in place."""
        c = states[1] if len(states) == 2 else None
        self._engine.run(x, states[0], c, lengths, out)

    def stepper(self, states: list[Floats], is_batched: bool) -> Stepper:
        """What makes the plain steps of a stream on these states, in place."""
        return Stepper(self._engine, states[0], states[1] if len(states) == 2 else None, is_batched)

    def pack_state(self, states: list[Floats]) -> LayerState:
        """The state as callers see it: (h, c) of an LSTM, h of the others."""
        return cast(LayerState, tuple(states) if len(states) == 2 else states[0])

    def __repr__(self) -> str:
        return self.shape.describe(batch_first=self.batch_first, precision=self.precision)


def _time_major(array: Array, batch_first: bool) -> Array:
    """A view (T, B, ...) of (T, B, ...), (B, T, ...) or unbatched (T, ...)."""
    if array.ndim == 2:
        return array[:, None]
    return array.swapaxes(0, 1) if batch_first else array


class LSTM(RecurrentLayer[tuple[Floats, Floats]]):
    """Long short-term memory: torch's ``nn.LSTM`` or ``nn.LSTMCell``.

    ``output, (h_n, c_n) = lstm(x, (h_0, c_0))``; made by ``LSTM.from_state_dict``.
    x is (T, B, I), output (T, B, D*P), h (L*D, B, P), c (L*D, B, H); float32 or float64.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
    """


class GRU(RecurrentLayer[Floats]):
    """Gated recurrent unit: torch's ``nn.GRU`` or ``nn.GRUCell``.

    ``output, h_n = gru(x, h_0)``; made by ``GRU.from_state_dict``.
    x is (T, B, I), output (T, B, D*H), h (L*D, B, H); float32 or float64.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html
    """


class RNN(RecurrentLayer[Floats]):
    """Elman network: torch's ``nn.RNN`` or ``nn.RNNCell``, with tanh or relu.

    ``output, h_n = rnn(x, h_0)``; made by ``RNN.from_state_dict``.
    x is (T, B, I), output (T, B, D*H), h (L*D, B, H); float32 or float64.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html
    """

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Any],
        prefix: str = "",
        *,
        nonlinearity: str = "tanh",
        batch_first: bool = False,
        precision: str = "float32",
        threads: int | None = None,
        backend: str = "auto",
    ) -> "Self":
        """Make the layer from the weights of torch's RNN or RNNCell.

        Parameters and errors are those of `LSTM.from_state_dict`, and one more:

        Parameters
        ----------
        nonlinearity : {"tanh", "relu"}
            As in torch; a state dict does not say which.

        Raises
        ------
        WeightError
            A key is missing, surplus or misshapen, or the weights are another kind of cell's.
        TypeError, ValueError
            An argument is of a wrong kind or value.
        """
        check_choice("RNN", "nonlinearity", nonlinearity, ("tanh", "relu"))
        shape, tensors = read_recurrent("RNN", "RNN", state_dict, prefix, nonlinearity)
        return cls._make(shape, tensors, batch_first, precision, threads, backend)

    option_names = ("batch_first", "precision", "nonlinearity")
    nonlinearity = property(lambda self: self.shape.nonlinearity)

    def spec(self) -> LayerSpec:
        spec = super().spec()
        options = {**spec.options, "nonlinearity": self.nonlinearity}
        return LayerSpec(spec.kind, options, spec.tensors)


def _shown(precision: str) -> str:
    return "" if precision == "float32" else f", precision={precision!r}"


# ---------------------------------------------------------------- layers with weights


class Linear(Layer):
    """x W^T + b over the last axis: torch's ``nn.Linear``; made by ``Linear.from_state_dict``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Linear.html
    """

    has_backend = True
    needs_weights = True
    option_names = ("precision",)
    in_features: int
    out_features: int
    precision: str
    dtype: np.dtype[np.floating[Any]]
    tensors: dict[str, Floats]
    _engine: Dense

    def __init__(self, *_: object, **__: object) -> None:
        raise _no_weights(type(self))

    @classmethod
    def _make(cls, tensors: Mapping[str, Array], precision: str, threads: int | None, backend: str) -> "Self":
        self = cls.__new__(cls)
        dtype = check_precision("Linear", precision)
        self.precision = precision
        self.dtype = dtype
        self.threads = check_threads("Linear", threads)
        self.backend = backend
        self.tensors = {name: _own(array, dtype) for name, array in tensors.items()}
        self.out_features, self.in_features = self.tensors["weight"].shape
        self.features_out, self.features_in = self.out_features, self.in_features
        picked = pick_backend("Linear", backend, dtype)
        packed = pack_dense(picked.layout, self.tensors["weight"], self.tensors.get("bias"))
        self._engine = Dense(packed, picked.table)
        return self

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Any],
        prefix: str = "",
        *,
        precision: str = "float32",
        threads: int | None = None,
        backend: str = "auto",
    ) -> "Self":
        """Make the layer from the weights of torch's module.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            ``weight`` (out, in), and ``bias`` (out,), which may be missing; no other key below ``prefix``.
        prefix : str
            The path of the module in the state dict.
        precision : {"float32", "float64"}
            The type of weights, inputs and outputs.
        threads : int, optional
        backend : {"auto", "simd", "blas"}
            Both as in `LSTM.from_state_dict`.

        Raises
        ------
        WeightError
            A key is missing, surplus or misshapen.
        TypeError, ValueError
            An argument is of a wrong kind or value.
        """
        tensors = read_parameters("Linear", state_dict, prefix, {"weight": 2, "bias": 1}, optional=("bias",))
        rows, bias = tensors["weight"].shape[0], tensors.get("bias")
        if bias is not None and bias.shape != (rows,):
            raise WeightError(message("Linear", f"bias of shape ({rows},)", f"{bias.shape}"))
        return cls._make(tensors, precision, threads, backend)

    def spec(self) -> LayerSpec:
        return LayerSpec("Linear", {"precision": self.precision}, self.tensors)

    def __call__(self, x: ArrayLike) -> Floats:
        """Apply the layer.

        Parameters
        ----------
        x : array-like of real numbers, shape (..., in)

        Returns
        -------
        ndarray of the layer's dtype, shape (..., out)

        Raises
        ------
        ValueError
            The last axis is not of ``in_features``.
        TypeError
            ``x`` does not hold real numbers.
        """
        x = check_last_axis("Linear", x, self.dtype, self.in_features)
        out = np.empty((*x.shape[:-1], self.out_features), self.dtype)
        if out.size:
            rows = np.require(x.reshape(-1, self.in_features), requirements=("C", "A"))
            self._engine.run(rows, out.reshape(-1, self.out_features))
        return out

    def __repr__(self) -> str:
        bias = "" if "bias" in self.tensors else ", bias=False"
        return f"Linear({self.in_features}, {self.out_features}{bias}{_shown(self.precision)})"


class Embedding(Layer):
    """A row of weights for each token: torch's ``nn.Embedding``; made by ``Embedding.from_state_dict``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Embedding.html
    """

    takes_tokens = True
    needs_weights = True
    option_names = ("precision",)
    num_embeddings: int
    embedding_dim: int
    precision: str
    dtype: np.dtype[np.floating[Any]]
    weight: Floats

    def __init__(self, *_: object, **__: object) -> None:
        raise _no_weights(type(self))

    @classmethod
    def _make(cls, weight: Array, precision: str) -> "Self":
        self = cls.__new__(cls)
        self.precision = precision
        self.dtype = check_precision("Embedding", precision)
        self.weight = _own(weight, self.dtype)
        self.num_embeddings, self.embedding_dim = self.weight.shape
        self.num_tokens, self.features_out = self.weight.shape
        return self

    @classmethod
    def from_state_dict(
        cls, state_dict: Mapping[str, Any], prefix: str = "", *, precision: str = "float32"
    ) -> "Self":
        """Make the layer from the weights of torch's module.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            ``weight`` (V, features); no other key below ``prefix``.
        prefix : str
            The path of the module in the state dict.
        precision : {"float32", "float64"}
            The type of weights and outputs.

        Raises
        ------
        WeightError
            The weight is missing or misshapen, or there is another key.
        TypeError, ValueError
            An argument is of a wrong kind or value.
        """
        tensors = read_parameters("Embedding", state_dict, prefix, {"weight": 2})
        return cls._make(tensors["weight"], precision)

    def spec(self) -> LayerSpec:
        return LayerSpec("Embedding", {"precision": self.precision}, {"weight": self.weight})

    def __call__(self, tokens: ArrayLike) -> Floats:
        """Look the tokens up.

        Parameters
        ----------
        tokens : array-like of integers from 0 to V - 1, shape (...)

        Returns
        -------
        ndarray of the layer's dtype, shape (..., features)

        Raises
        ------
        ValueError
            A token is out of range.
        TypeError
            ``tokens`` does not hold whole numbers.
        """
        rows: Floats = self.weight[check_tokens("Embedding", tokens, self.num_embeddings)]
        return rows

    def __repr__(self) -> str:
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}{_shown(self.precision)})"


class LayerNorm(Layer):
    """Mean 0 and variance 1 over the last axis, then weight and bias: torch's ``nn.LayerNorm``.

    Parameters
    ----------
    normalized_shape : int
        The features of the last axis.
    eps : float
        Added to the variance.
    precision : {"float32", "float64"}
        The type of weights, inputs and outputs.

    Raises
    ------
    TypeError, ValueError
        An argument is of a wrong kind or value.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LayerNorm.html
    """

    option_names = ("normalized_shape", "eps", "precision")

    def __init__(self, normalized_shape: int, eps: float = 1e-5, precision: str = "float32") -> None:
        self.normalized_shape = check_positive("LayerNorm", "normalized_shape", normalized_shape)
        self.features_in = self.features_out = self.normalized_shape
        self.eps = check_number("LayerNorm", "eps", eps)
        self.precision = precision
        self.dtype = check_precision("LayerNorm", precision)
        self.tensors: dict[str, Floats] = {}

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Any],
        prefix: str = "",
        *,
        eps: float = 1e-5,
        precision: str = "float32",
    ) -> "Self":
        """Make the layer from the weights of torch's module.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            ``weight`` (features,), and ``bias`` (features,), which may be missing; no other key
            below ``prefix``.
        prefix : str
            The path of the module in the state dict.
        eps : float
            As in torch; a state dict does not tell it.
        precision : {"float32", "float64"}
            The type of weights, inputs and outputs.

        Raises
        ------
        WeightError
            A key is missing, surplus or misshapen.
        TypeError, ValueError
            An argument is of a wrong kind or value.
        """
        tensors = read_parameters(
            "LayerNorm", state_dict, prefix, {"weight": 1, "bias": 1}, optional=("bias",)
        )
        shapes = {array.shape for array in tensors.values()}
        if len(shapes) > 1:
            raise WeightError(message("LayerNorm", "weight and bias of one shape", f"{shapes}"))
        self = cls(len(tensors["weight"]), eps, precision)
        self.tensors = {name: _own(array, self.dtype) for name, array in tensors.items()}
        return self

    def spec(self) -> LayerSpec:
        options = {"eps": self.eps, "precision": self.precision}
        if not self.tensors:
            options["normalized_shape"] = self.normalized_shape
        return LayerSpec("LayerNorm", options, self.tensors)

    def __call__(self, x: ArrayLike) -> Floats:
        """Apply the layer.

        Parameters
        ----------
        x : array-like of real numbers, shape (..., features)

        Returns
        -------
        ndarray of the layer's dtype, shape (..., features)

        Raises
        ------
        ValueError
            The last axis is not of ``normalized_shape``.
        TypeError
            ``x`` does not hold real numbers.
        """
        x = check_last_axis("LayerNorm", x, self.dtype, self.normalized_shape)
        weight, bias = self.tensors.get("weight"), self.tensors.get("bias")
        return reference.layer_norm_reference(x, weight, bias, self.eps)

    def __repr__(self) -> str:
        return f"LayerNorm({self.normalized_shape}, eps={self.eps}{_shown(self.precision)})"


# ---------------------------------------------------------------- layers without weights


class OneHot(Layer):
    """1 at each token's place, 0 elsewhere: ``torch.nn.functional.one_hot`` as floats.

    Parameters
    ----------
    num_classes : int
        V: the tokens are from 0 to V - 1.
    precision : {"float32", "float64"}
        The type of outputs.

    Raises
    ------
    TypeError, ValueError
        An argument is of a wrong kind or value.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.one_hot.html
    """

    takes_tokens = True
    option_names = ("num_classes", "precision")

    def __init__(self, num_classes: int, precision: str = "float32") -> None:
        self.num_classes = check_positive("OneHot", "num_classes", num_classes)
        self.num_tokens = self.features_out = self.num_classes
        self.precision = precision
        self.dtype = check_precision("OneHot", precision)

    def spec(self) -> LayerSpec:
        options = {"num_classes": self.num_classes, "precision": self.precision}
        return LayerSpec("OneHot", options)

    def __call__(self, tokens: ArrayLike) -> Floats:
        """Tokens (...), integers from 0 to V - 1, to an array (..., V) of the layer's dtype.

        Raises
        ------
        ValueError
            A token is out of range.
        TypeError
            ``tokens`` does not hold whole numbers.
        """
        tokens = check_tokens("OneHot", tokens, self.num_classes)
        out = np.zeros((*tokens.shape, self.num_classes), self.dtype)
        np.put_along_axis(out, tokens[..., None].astype(np.intp), 1, axis=-1)
        return out


def _floats(where: str, x: object) -> Floats:
    """x as an array of floats: its own type where it is one, else float32."""
    x = check_array(where, "x", x)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)


class Dropout(Layer):
    """Nothing: at inference torch's ``nn.Dropout`` passes its input on.

    Parameters
    ----------
    p : float
        Kept, and of no effect. A TypeError or ValueError if it is no finite number.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Dropout.html
    """

    option_names = ("p",)

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_number("Dropout", "p", p)

    def spec(self) -> LayerSpec:
        return LayerSpec("Dropout", {"p": self.p})

    def __call__(self, x: Anything) -> Anything:
        """x as it is, of any shape and type; nothing is checked."""
        return x


class ReLU(Layer):
    """max(x, 0): torch's ``nn.ReLU``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.ReLU.html
    """

    def __call__(self, x: ArrayLike) -> Floats:
        """x of any shape to an array of that shape: float64 of float64, else float32.

        Raises
        ------
        TypeError
            x does not hold real numbers.
        """
        return np.maximum(_floats("ReLU", x), 0)


class Tanh(Layer):
    """The hyperbolic tangent: torch's ``nn.Tanh``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Tanh.html
    """

    def __call__(self, x: ArrayLike) -> Floats:
        """x of any shape to an array of that shape: float64 of float64, else float32.

        Raises
        ------
        TypeError
            x does not hold real numbers.
        """
        return np.tanh(_floats("Tanh", x))


class Sigmoid(Layer):
    """1 / (1 + exp(-x)): torch's ``nn.Sigmoid``.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Sigmoid.html
    """

    def __call__(self, x: ArrayLike) -> Floats:
        """x of any shape to an array of that shape: float64 of float64, else float32.

        Raises
        ------
        TypeError
            x does not hold real numbers.
        """
        return reference.sigmoid(_floats("Sigmoid", x))


class _OverAxis(Layer):
    """What Softmax and LogSoftmax share: the axis."""

    option_names = ("dim",)
    _function: "ClassVar[staticmethod[[Array, int], Array]]"

    def __init__(self, dim: int = -1) -> None:
        if isinstance(dim, bool) or not hasattr(dim, "__index__"):
            raise TypeError(message(type(self).__name__, "dim to be a whole number", repr(dim)))
        self.dim = dim.__index__()

    def spec(self) -> LayerSpec:
        return LayerSpec(type(self).__name__, {"dim": self.dim})

    def __call__(self, x: ArrayLike) -> Floats:
        """x of any shape to an array of that shape: float64 of float64, else float32.

        Raises
        ------
        ValueError
            x has no axis ``dim``.
        TypeError
            x does not hold real numbers.
        """
        where = type(self).__name__
        x = _floats(where, x)
        if not -x.ndim <= self.dim < x.ndim:
            raise ValueError(message(where, f"x with an axis {self.dim}", f"shape {x.shape}"))
        with np.errstate(invalid="ignore"):  # an infinity makes a NaN, as in torch
            return type(self)._function(x, self.dim)


class Softmax(_OverAxis):
    """Exponentials over their sum along axis ``dim``: torch's ``nn.Softmax``.

    Parameters
    ----------
    dim : int
        A TypeError if it is no whole number.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Softmax.html
    """

    _function = staticmethod(reference.softmax_reference)


class LogSoftmax(_OverAxis):
    """The logarithm of the softmax along axis ``dim``: torch's ``nn.LogSoftmax``.

    Parameters
    ----------
    dim : int
        A TypeError if it is no whole number.

    Notes
    -----
    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LogSoftmax.html
    """

    _function = staticmethod(reference.log_softmax_reference)


class Last(Layer):
    """The last valid time step of each row: ``output[:, -1]``, or ``output[b, lengths[b] - 1]``.

    In a Sequential the layout and the lengths are those of the model. Of a bidirectional layer
    it takes both halves at that step, as indexing in torch does. In a stream every step is
    the last so far.

    Source: the indexing of torch's "output", https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
    """

    is_last_step = True

    def __call__(
        self, x: ArrayLike, *, lengths: ArrayLike | None = None, batch_first: bool = False
    ) -> Floats:
        """Take the last time step of each row.

        Parameters
        ----------
        x : array-like of real numbers, shape (T, B, F)
            (B, T, F) with ``batch_first``; (T, F) is one unbatched sequence.
        lengths : B integers, optional
            The time steps of each row, from 1 to T; all T if not given.
        batch_first : bool

        Returns
        -------
        ndarray, shape (B, F)
            (F,) unbatched; float64 of float64, else float32.

        Raises
        ------
        ValueError
            ``x`` has another number of axes or no element, or a length does not fit.
        TypeError
            ``x`` does not hold real numbers, or ``lengths`` no whole ones.
        """
        x = _floats("Last", x)
        if x.ndim not in (2, 3) or 0 in x.shape:
            layout = "(B, T, F)" if batch_first else "(T, B, F)"
            raise ValueError(message("Last", f"x of shape {layout} or, unbatched, (T, F)", f"{x.shape}"))
        steps = _time_major(x, batch_first)
        T, B = steps.shape[:2]
        last = np.full(B, T) if lengths is None else check_lengths("Last", lengths, T, B)
        rows = steps[last - 1, np.arange(B)]
        result: Floats = rows[0] if x.ndim == 2 else rows
        return result
