"""The recurrent layers: RNN, GRU and LSTM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, cast

import numpy as np

from fastrnn.arrays import Array, Floats, State, StateLike, as_plain
from fastrnn.checks import (
    MATRICES,
    PRECISIONS,
    Precision,
    check_choice,
    check_flag,
    check_lengths,
    check_out,
    check_precisions,
    check_sequence,
    check_state,
    check_threads,
    shortest_precision,
)
from fastrnn.engine.backends import pick_backend
from fastrnn.engine.packing import pack_recurrent
from fastrnn.errors import brief, message
from fastrnn.importers.parameters import INITIAL, read_initial, read_recurrent
from fastrnn.layers.base import ProductLayer, bytes_of, own_weight, time_major
from fastrnn.narrow import NarrowWeight
from fastrnn.operators.recurrent import Recurrent
from fastrnn.operators.runner import Runner
from fastrnn.operators.signature import Signature, Trait
from fastrnn.spec import GATES, LayerSpec, RecurrentSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from typing_extensions import Self

# The type of a layer's state: h, or (h, c) for an LSTM.
LayerState = TypeVar("LayerState", bound=State)


class RecurrentLayer(ProductLayer, Generic[LayerState]):
    """The base class of RNN, GRU and LSTM."""

    has_backend = True
    option_names: ClassVar[tuple[str, ...]] = ("batch_first", "precision")
    shape: RecurrentSpec
    batch_first: bool
    precision: Precision
    dtype: np.dtype[np.floating[Any]]
    tensors: dict[str, Floats | NarrowWeight]
    features_in: int
    features_out: int
    # What states begin as, (L*D, columns) each, if that was learned. Else nothing: zeros.
    initial: tuple[Floats, ...]
    _operator: Recurrent
    _runner: Runner

    @classmethod
    def _make(
        cls,
        shape: RecurrentSpec,
        tensors: Mapping[str, Array | NarrowWeight],
        batch_first: bool,
        precision: Precision,
        threads: int | None,
        backend: str,
    ) -> Self:
        self = cls.__new__(cls)
        where = cls.__name__
        precisions = check_precisions(where, precision)
        if not shape.proj_size:
            del precisions["projection"]
        dtype = np.dtype(PRECISIONS[precisions["input"]])
        self.batch_first = check_flag(where, "batch_first", batch_first)
        self.threads = check_threads(where, threads)
        self.backend = backend
        self.precision = shortest_precision(precisions)
        self.dtype = dtype
        self.shape = shape
        self.tensors = {
            name: own_weight(where, name, array, dtype, precisions.get(_matrix_of(name), ""))
            for name, array in tensors.items()
        }
        self.features_in = shape.input_size
        self.features_out = shape.directions * shape.output_size
        picked = pick_backend(where, backend, dtype, self.threads, precisions)
        cells = [
            pack_recurrent(
                picked.products,
                shape.cell,
                self.tensors[f"weight_ih{suffix}"],
                self.tensors[f"weight_hh{suffix}"],
                *(self.tensors.get(name + suffix) for name in ("bias_ih", "bias_hh", "weight_hr")),
            )
            for suffix in shape.suffixes()
        ]
        self.packed_bytes = bytes_of(cells)
        self.initial = tuple(
            np.asarray(self.tensors[name]) for name in INITIAL[shape.kind] if name in self.tensors
        )
        self._use(Recurrent(cells, shape.directions, picked.threads, initial=self.initial))
        return self

    def _use(self, operator: Recurrent) -> None:
        self._operator = operator
        self._runner = Runner([operator])

    def _divide(self, division: str, threads: int) -> None:
        """Use this division and this many threads for every call that allows it.

        Only tests and measurements need it. Calls normally choose their own division.
        """
        self._use(self._operator.divided(division, threads))

    @classmethod
    def precision_in(cls, precision: Precision) -> Precision:
        """Return what the layer computes in as a part of a model of this precision: that itself."""
        return precision

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Any],
        prefix: str = "",
        *,
        batch_first: bool = False,
        initial_state: StateLike = None,
        precision: Precision = "float32",
        threads: int | None = None,
        backend: str = "auto",
    ) -> Self:
        """Make the layer from the weights of torch's module of the same name.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            Arrays or torch tensors by torch's names. The keys and shapes give the sizes, the number of
            layers and directions, the projection and the bias. The keys of a cell module
            (``weight_ih``) make one layer in one direction.
        prefix : str
            The path of the module in the state dict, with or without the dot at the end. Every
            key under it must belong to the module.
        batch_first : bool
            Inputs and outputs have shape (B, T, ...) instead of (T, B, ...). States do not change.
        initial_state : array-like or pair of them, optional
            A learned initial state, where calls, streams and pools begin instead of zeros: h of shape
            (L*D, P), or (h, c) of an LSTM, with or without an axis of one row. It is saved with the layer.
            Arrays named ``h_0`` and ``c_0`` under ``prefix`` are taken for one too.
        precision : str or mapping of str to str
            "float32" and "float64": the dtype of weights, inputs, outputs and states.

            "bfloat16": weights, and what they are multiplied with, are rounded to 8 significant bits.
            "int8": weights are whole numbers from -127 to 127 with a scale for each output row. What they
            are multiplied with is rounded in the same way, with a scale for each row of the batch. Sums,
            gates, biases, inputs, outputs and states are float32 in both.

            "bfloat16x2" and "bfloat16x3": products of float32 numbers as sums of two or three bfloat16 ones,
            for processors that multiply those many times as fast (AMX). Results err about 30 times as much as
            float32's, and no more than float32's. Weights are kept in float32. Elsewhere they are slower.

            A mapping has the precision of each matrix: "input" (``weight_ih``), "recurrent" (``weight_hh``)
            and "projection" (``weight_hr``). What it does not name is "float32". None of them may be
            "float64".
        threads : int, optional
            The most cores that a call may use. None: as many of the process's cores as make the call
            faster. A small call stays on one core. The result has the same bits for any number of threads
            (with the ``blas`` backend it is the same up to rounding). The environment variable
            ``FASTRNN_NUM_THREADS`` is an upper limit.
        backend : {"auto", "simd", "blas"}
            What computes the layer: "simd" is fastrnn's own kernels, "blas" is SciPy's BLAS. "auto" takes
            "simd" where it is built.

        Raises
        ------
        WeightError
            A key is missing or unknown, an array has the wrong shape, or the weights belong to another
            kind of cell.
        TypeError
            ``state_dict`` is not a mapping of names to arrays, or an option has the wrong type.
        ValueError
            An option has a wrong value, or the backend is not built here.

        Notes
        -----
        Source: https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
        """
        kind = next(base.__name__ for base in cls.__mro__ if base.__name__ in GATES)
        shape, tensors = read_recurrent(cls.__name__, kind, state_dict, prefix)
        tensors |= _initial(cls.__name__, shape, initial_state)
        return cls._make(shape, tensors, batch_first, precision, threads, backend)

    # The sizes, under torch's names.
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
            (B, T, I) with ``batch_first``; (T, I) is one unbatched sequence. Converted to the
            layer's dtype: float32 or float64, set by its ``precision``.
        state : array-like or pair of them, optional
            The initial state: h of shape (L*D, B, P). For an LSTM the pair (h, c), where c has shape
            (L*D, B, H). Without the B axis if x is unbatched. If not given: zeros, or what was learned.
        lengths : B integers, optional
            The number of time steps of each row, from 1 to T, in any order. Outputs after a row's last
            step are 0. Its final state is the one after its own last step, and the reverse direction
            starts at that step. All T if not given.
        out : ndarray, optional
            An array for the output: C-contiguous, of its shape and dtype, and apart from x and the
            state. It is returned. Such a call allocates nothing once the layer has seen the shape,
            except new arrays for the states on a free-threaded Python.

        Returns
        -------
        output : ndarray of the layer's dtype, shape (T, B, D*P)
            (B, T, D*P) with ``batch_first``, (T, D*P) unbatched. ``out`` if given.
        state : ndarray or pair of them
            The final state, of the layer's dtype. Its shapes are those of the argument ``state``.

        Raises
        ------
        ValueError
            A shape, a length or ``out`` does not fit.
        TypeError
            An argument does not hold real numbers, the lengths are not whole numbers, or ``out`` is not
            an ndarray.
        """
        plain = self._runner.call(x, state, out, lengths, self.batch_first)
        if plain is None:
            return self.run(x, state, out, lengths, self.batch_first)
        return plain

    def run(
        self, x: ArrayLike, state: StateLike, out: Floats | None, lengths: ArrayLike | None, batch_first: bool
    ) -> tuple[Floats, LayerState]:
        """Check and convert the arguments, then run the layer in the given layout."""
        plain = self._check(x, state, out, lengths, batch_first)
        result = self._runner.call(*plain, batch_first)
        assert result is not None
        y, after = result
        return y if out is None else out, after

    def _check(
        self, x: ArrayLike, state: StateLike, out: Floats | None, lengths: ArrayLike | None, batch_first: bool
    ) -> tuple[Array, State | None, Array | None, NDArray[np.intp] | None]:
        """Check the arguments of a call, and return them as plain arrays."""
        where = type(self).__name__
        x = check_sequence(where, x, self.dtype, self.input_size, batch_first)
        is_batched = x.ndim == 3
        T, B = time_major(x, batch_first).shape[:2]
        arrays: list[Array] = []
        if state is not None:
            arrays = check_state(where, state, self.signature.state_shapes(B if is_batched else None))
        if lengths is not None:
            if not is_batched:
                hint = "Leave them out, or give x an axis of rows."
                raise ValueError(message(where, "a batch beside lengths", f"x of shape {x.shape}", hint))
            lengths = check_lengths(where, lengths, T, B).copy()  # nobody else changes it from now on
        if out is not None:
            out = check_out(where, out, (*x.shape[:-1], self.features_out), self.dtype, (x, *arrays))
        plain = [as_plain(array, self.dtype) for array in arrays]
        return x, self.pack_state(plain) if plain else None, out, lengths

    @property
    def signature(self) -> Signature:
        shapes = self.shape.state_shapes(None)
        return Signature(
            Trait.WHOLE if self.bidirectional else Trait.STEPWISE,
            self.features_in,
            self.features_out,
            dtype=self.dtype,
            states={name: (layers, columns) for name, (layers, columns) in shapes.items()},
        )

    def operator(self, dtype: np.dtype[Any]) -> Recurrent:
        return self._operator

    def pack_state(self, states: list[Floats]) -> LayerState:
        """Return the state as callers see it: (h, c) for an LSTM, h for the others."""
        return cast(LayerState, tuple(states) if len(states) == 2 else states[0])

    def __repr__(self) -> str:
        text = self.shape.describe(batch_first=self.batch_first, precision=self.precision)
        return f"{text[:-1]}, initial_state=...)" if self.initial else text


def _matrix_of(name: str) -> str:
    """Return which of `MATRICES` a tensor is, "" if it is none of them."""
    prefixes = ("weight_ih", "weight_hh", "weight_hr")
    matrices = zip(MATRICES, prefixes, strict=True)
    return next((matrix for matrix, prefix in matrices if name.startswith(prefix)), "")


def _initial(where: str, shape: RecurrentSpec, state: StateLike) -> dict[str, Array]:
    """Return a learned initial state as the tensors of a layer."""
    if state is None:
        return {}
    names = INITIAL[shape.kind]
    parts = (state,) if len(names) == 1 else state
    if not isinstance(parts, (tuple, list)) or len(parts) != len(names):
        raise ValueError(message(where, f"initial_state to be a pair ({', '.join(names)})", brief(state)))
    return read_initial(where, shape, dict(zip(names, parts, strict=True)))


class LSTM(RecurrentLayer[tuple[Floats, Floats]]):
    """Long short-term memory: torch's ``nn.LSTM`` or ``nn.LSTMCell``.

    ``output, (h_n, c_n) = lstm(x, (h_0, c_0))``. ``LSTM.from_state_dict`` makes one.
    The shapes are: x (T, B, I), output (T, B, D*P), h (L*D, B, P) and c (L*D, B, H). P is H without a
    projection. All are float32, or all
    float64.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html
    """


class GRU(RecurrentLayer[Floats]):
    """Gated recurrent unit: torch's ``nn.GRU`` or ``nn.GRUCell``.

    ``output, h_n = gru(x, h_0)``. ``GRU.from_state_dict`` makes one.
    The shapes are: x (T, B, I), output (T, B, D*H) and h (L*D, B, H). All are float32, or all
    float64.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html
    """


class RNN(RecurrentLayer[Floats]):
    """Elman network: torch's ``nn.RNN`` or ``nn.RNNCell``, with tanh or relu.

    ``output, h_n = rnn(x, h_0)``. ``RNN.from_state_dict`` makes one.
    The shapes are: x (T, B, I), output (T, B, D*H) and h (L*D, B, H). All are float32, or all
    float64.

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
        initial_state: StateLike = None,
        precision: Precision = "float32",
        threads: int | None = None,
        backend: str = "auto",
    ) -> Self:
        """Make the layer from the weights of torch's RNN or RNNCell.

        It takes the parameters of `LSTM.from_state_dict` and this one:

        Parameters
        ----------
        nonlinearity : {"tanh", "relu"}
            As in torch. A state dict does not record it.

        Raises
        ------
        WeightError
            A key is missing or unknown, an array has the wrong shape, or the weights belong to another
            kind of cell.
        TypeError, ValueError
            An argument has the wrong type or a wrong value.

        Notes
        -----
        Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html
        """
        check_choice("RNN", "nonlinearity", nonlinearity, ("tanh", "relu"))
        shape, tensors = read_recurrent("RNN", "RNN", state_dict, prefix, nonlinearity)
        tensors |= _initial("RNN", shape, initial_state)
        return cls._make(shape, tensors, batch_first, precision, threads, backend)

    option_names = ("batch_first", "precision", "nonlinearity")
    nonlinearity = property(lambda self: self.shape.nonlinearity)

    def spec(self) -> LayerSpec:
        spec = super().spec()
        options = {**spec.options, "nonlinearity": self.nonlinearity}
        return LayerSpec(spec.kind, options, spec.tensors)
