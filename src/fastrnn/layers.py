"""The layers: torch's names, arguments, shapes and numbers; NumPy arrays in and out.

A layer checks its arguments (errors.py), allocates its result, and calls the engine. It is
immutable once made, so any number of threads and streams may use it.
"""

import numpy as np

from fastrnn import reference
from fastrnn._engine import Dense, Recurrent, Spares
from fastrnn._pack import pack_dense, pack_recurrent
from fastrnn.backends import pick_backend
from fastrnn.errors import (
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
from fastrnn.spec import LayerSpec, read_parameters, read_recurrent
from fastrnn.streaming import Stream


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

    option_names = ()
    features_in = None
    features_out = None
    is_recurrent = False
    has_backend = False
    needs_weights = False
    takes_tokens = False
    is_last_step = False

    def spec(self):
        """What the layer is: a LayerSpec, from which `from_spec` makes it again."""
        return LayerSpec(type(self).__name__)

    def runtime(self):
        """The options that say how the layer is run, and not what it computes."""
        return {"threads": self.threads, "backend": self.backend} if self.has_backend else {}

    @classmethod
    def from_spec(cls, spec, **runtime):
        """Make the layer that a LayerSpec describes."""
        if spec.tensors or cls.needs_weights:
            if not hasattr(cls, "from_state_dict"):
                raise WeightError(message(cls.__name__, "no tensors", quote(spec.tensors)))
            return cls.from_state_dict(spec.tensors, **spec.options, **runtime)
        return cls(**spec.options, **runtime)

    def stream(self, batch_size=None):
        """A Stream of this layer alone; see `fastrnn.Stream`."""
        return Stream([self], batch_size)

    def __reduce__(self):
        return _restore, (type(self), self.spec(), self.runtime())

    def __repr__(self):
        options = ", ".join(f"{name}={value!r}" for name, value in self.spec().options.items())
        return f"{type(self).__name__}({options})"


def _restore(cls, spec, runtime):
    return cls.from_spec(spec, **runtime)


def _own(array, dtype):
    """A read-only contiguous copy, which nobody else can change."""
    array = np.array(array, dtype=dtype, order="C")
    array.flags.writeable = False
    return array


def _no_weights(cls):
    """The error of a layer that is made as torch makes it, by its sizes."""
    name = cls.__name__
    hint = f"{name}.from_state_dict(state_dict, prefix) or fastrnn.from_torch(module) makes one."
    return TypeError(message(name, "trained weights", "sizes alone", hint))


# ---------------------------------------------------------------- recurrent layers


class RecurrentLayer(Layer):
    """What RNN, GRU and LSTM share."""

    is_recurrent = True
    has_backend = True
    needs_weights = True
    option_names = ("batch_first", "precision")

    def __init__(self, *_, **__):
        raise _no_weights(type(self))

    @classmethod
    def _make(cls, shape, tensors, batch_first, precision, threads, backend):
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
        table = pick_backend(where, backend, dtype)
        parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
        cells = [
            pack_recurrent(shape.cell, *(self.tensors.get(part + suffix) for part in parts))
            for suffix in shape.suffixes()
        ]
        self._engine = Recurrent(cells, shape.directions, table)
        self._spares = Spares()
        return self

    @classmethod
    def from_state_dict(
        cls,
        state_dict,
        prefix="",
        *,
        batch_first=False,
        precision="float32",
        threads=None,
        backend="auto",
    ):
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
        backend : {"auto", "blas"}

        Raises
        ------
        WeightError
            A key is missing, surplus or misshapen, or the weights are another kind of cell's.

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

    def spec(self):
        options = {"batch_first": self.batch_first, "precision": self.precision}
        return LayerSpec(type(self).__name__, options, self.tensors)

    def __call__(self, x, state=None, *, lengths=None, out=None):
        """Run the layer over whole sequences.

        Parameters
        ----------
        x : array-like of real numbers, shape (T, B, I)
            (B, T, I) with ``batch_first``; (T, I) is one unbatched sequence.
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
        output : ndarray, shape (T, B, D*P)
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
            states = [np.empty(size, self.dtype) for size in shapes.values()]
        else:
            output = check_out(where, out, shape, self.dtype, (x, *given))
            states = [self._spares.take(size, self.dtype) for size in shapes.values()]
        for index, array in enumerate(states):
            array[...] = given[index] if given else 0
        self.advance(steps, states, _time_major(output, self.batch_first), lengths)
        return output, self.pack_state(states)

    def advance(self, x, states, out, lengths=None):
        """Run checked arrays: x (T, B, I) into out (T, B, D*P), the states in place."""
        c = states[1] if len(states) == 2 else None
        self._engine.run(x, states[0], c, lengths, out)

    def pack_state(self, states):
        """The state as callers see it: (h, c) of an LSTM, h of the others."""
        return tuple(states) if len(states) == 2 else states[0]

    def __repr__(self):
        return self.shape.describe(batch_first=self.batch_first, precision=self.precision)


def _time_major(array, batch_first):
    """A view (T, B, ...) of (T, B, ...), (B, T, ...) or unbatched (T, ...)."""
    if array.ndim == 2:
        return array[:, None]
    return array.swapaxes(0, 1) if batch_first else array


class LSTM(RecurrentLayer):
    """Long short-term memory: torch's ``nn.LSTM`` or ``nn.LSTMCell``.

    ``output, (h_n, c_n) = lstm(x, (h_0, c_0))``; made by ``LSTM.from_state_dict``.
    """


class GRU(RecurrentLayer):
    """Gated recurrent unit: torch's ``nn.GRU`` or ``nn.GRUCell``.

    ``output, h_n = gru(x, h_0)``; made by ``GRU.from_state_dict``.
    """


class RNN(RecurrentLayer):
    """Elman network: torch's ``nn.RNN`` or ``nn.RNNCell``, with tanh or relu.

    ``output, h_n = rnn(x, h_0)``; made by ``RNN.from_state_dict``.
    """

    @classmethod
    def from_state_dict(
        cls,
        state_dict,
        prefix="",
        *,
        nonlinearity="tanh",
        batch_first=False,
        precision="float32",
        threads=None,
        backend="auto",
    ):
        """Make the layer as `RecurrentLayer.from_state_dict` does.

        ``nonlinearity`` is "tanh" or "relu", as in torch; a state dict does not say which.
        """
        check_choice("RNN", "nonlinearity", nonlinearity, ("tanh", "relu"))
        shape, tensors = read_recurrent("RNN", "RNN", state_dict, prefix, nonlinearity)
        return cls._make(shape, tensors, batch_first, precision, threads, backend)

    option_names = ("batch_first", "precision", "nonlinearity")
    nonlinearity = property(lambda self: self.shape.nonlinearity)

    def spec(self):
        spec = super().spec()
        options = {**spec.options, "nonlinearity": self.nonlinearity}
        return LayerSpec(spec.kind, options, spec.tensors)


def _shown(precision):
    return "" if precision == "float32" else f", precision={precision!r}"


# ---------------------------------------------------------------- layers with weights


class Linear(Layer):
    """x W^T + b over the last axis: torch's ``nn.Linear``."""

    has_backend = True
    needs_weights = True
    option_names = ("precision",)

    def __init__(self, *_, **__):
        raise _no_weights(type(self))

    @classmethod
    def _make(cls, tensors, precision, threads, backend):
        self = cls.__new__(cls)
        dtype = check_precision("Linear", precision)
        self.precision = precision
        self.dtype = dtype
        self.threads = check_threads("Linear", threads)
        self.backend = backend
        self.tensors = {name: _own(array, dtype) for name, array in tensors.items()}
        self.out_features, self.in_features = self.tensors["weight"].shape
        self.features_out, self.features_in = self.out_features, self.in_features
        packed = pack_dense(self.tensors["weight"], self.tensors.get("bias"))
        self._engine = Dense(packed, pick_backend("Linear", backend, dtype))
        return self

    @classmethod
    def from_state_dict(cls, state_dict, prefix="", *, precision="float32", threads=None, backend="auto"):
        """Make the layer from ``weight`` (out, in) and ``bias`` (out,), which may be missing."""
        tensors = read_parameters("Linear", state_dict, prefix, {"weight": 2, "bias": 1}, optional=("bias",))
        rows, bias = tensors["weight"].shape[0], tensors.get("bias")
        if bias is not None and bias.shape != (rows,):
            raise WeightError(message("Linear", f"bias of shape ({rows},)", f"{bias.shape}"))
        return cls._make(tensors, precision, threads, backend)

    def spec(self):
        return LayerSpec("Linear", {"precision": self.precision}, self.tensors)

    def __call__(self, x):
        """x (..., in) to an array (..., out)."""
        x = check_last_axis("Linear", x, self.dtype, self.in_features)
        out = np.empty((*x.shape[:-1], self.out_features), self.dtype)
        if out.size:
            rows = np.require(x.reshape(-1, self.in_features), requirements=("C", "A"))
            self._engine.run(rows, out.reshape(-1, self.out_features))
        return out

    def __repr__(self):
        bias = "" if "bias" in self.tensors else ", bias=False"
        return f"Linear({self.in_features}, {self.out_features}{bias}{_shown(self.precision)})"


class Embedding(Layer):
    """A row of weights for each token: torch's ``nn.Embedding``."""

    takes_tokens = True
    needs_weights = True
    option_names = ("precision",)

    def __init__(self, *_, **__):
        raise _no_weights(type(self))

    @classmethod
    def _make(cls, weight, precision):
        self = cls.__new__(cls)
        self.precision = precision
        self.dtype = check_precision("Embedding", precision)
        self.weight = _own(weight, self.dtype)
        self.num_embeddings, self.embedding_dim = self.weight.shape
        self.num_tokens, self.features_out = self.weight.shape
        return self

    @classmethod
    def from_state_dict(cls, state_dict, prefix="", *, precision="float32"):
        """Make the layer from ``weight`` (V, features)."""
        tensors = read_parameters("Embedding", state_dict, prefix, {"weight": 2})
        return cls._make(tensors["weight"], precision)

    def spec(self):
        return LayerSpec("Embedding", {"precision": self.precision}, {"weight": self.weight})

    def __call__(self, tokens):
        """Tokens of any shape, integers from 0 to V - 1, to an array (..., features)."""
        return self.weight[check_tokens("Embedding", tokens, self.num_embeddings)]

    def __repr__(self):
        return f"Embedding({self.num_embeddings}, {self.embedding_dim}{_shown(self.precision)})"


class LayerNorm(Layer):
    """Mean 0 and variance 1 over the last axis, then weight and bias: torch's ``nn.LayerNorm``.

    Parameters
    ----------
    normalized_shape : int
        The features of the last axis.
    eps : float
        Added to the variance.
    """

    option_names = ("normalized_shape", "eps", "precision")

    def __init__(self, normalized_shape, eps=1e-5, precision="float32"):
        self.normalized_shape = check_positive("LayerNorm", "normalized_shape", normalized_shape)
        self.features_in = self.features_out = self.normalized_shape
        self.eps = check_number("LayerNorm", "eps", eps)
        self.precision = precision
        self.dtype = check_precision("LayerNorm", precision)
        self.tensors = {}

    @classmethod
    def from_state_dict(cls, state_dict, prefix="", *, eps=1e-5, precision="float32"):
        """Make the layer from ``weight`` and ``bias`` (features,); bias may be missing."""
        tensors = read_parameters(
            "LayerNorm", state_dict, prefix, {"weight": 1, "bias": 1}, optional=("bias",)
        )
        shapes = {array.shape for array in tensors.values()}
        if len(shapes) > 1:
            raise WeightError(message("LayerNorm", "weight and bias of one shape", f"{shapes}"))
        self = cls(len(tensors["weight"]), eps, precision)
        self.tensors = {name: _own(array, self.dtype) for name, array in tensors.items()}
        return self

    def spec(self):
        options = {"eps": self.eps, "precision": self.precision}
        if not self.tensors:
            options["normalized_shape"] = self.normalized_shape
        return LayerSpec("LayerNorm", options, self.tensors)

    def __call__(self, x):
        """x (..., features) to an array of the same shape."""
        x = check_last_axis("LayerNorm", x, self.dtype, self.normalized_shape)
        weight, bias = self.tensors.get("weight"), self.tensors.get("bias")
        return reference.layer_norm_reference(x, weight, bias, self.eps)

    def __repr__(self):
        return f"LayerNorm({self.normalized_shape}, eps={self.eps}{_shown(self.precision)})"


# ---------------------------------------------------------------- layers without weights


class OneHot(Layer):
    """1 at each token's place, 0 elsewhere: ``torch.nn.functional.one_hot`` as floats."""

    takes_tokens = True
    option_names = ("num_classes", "precision")

    def __init__(self, num_classes, precision="float32"):
        self.num_classes = check_positive("OneHot", "num_classes", num_classes)
        self.num_tokens = self.features_out = self.num_classes
        self.precision = precision
        self.dtype = check_precision("OneHot", precision)

    def spec(self):
        options = {"num_classes": self.num_classes, "precision": self.precision}
        return LayerSpec("OneHot", options)

    def __call__(self, tokens):
        """Tokens of any shape, integers from 0 to num_classes - 1, to (..., num_classes)."""
        tokens = check_tokens("OneHot", tokens, self.num_classes)
        out = np.zeros((*tokens.shape, self.num_classes), self.dtype)
        np.put_along_axis(out, tokens[..., None].astype(np.intp), 1, axis=-1)
        return out


def _floats(where, x):
    """x as an array of floats: its own type where it is one, else float32."""
    x = check_array(where, "x", x)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float32)


class Dropout(Layer):
    """Nothing: at inference torch's ``nn.Dropout`` passes its input on."""

    option_names = ("p",)

    def __init__(self, p=0.5):
        self.p = check_number("Dropout", "p", p)

    def spec(self):
        return LayerSpec("Dropout", {"p": self.p})

    def __call__(self, x):
        """x as it is."""
        return x


class ReLU(Layer):
    """max(x, 0): torch's ``nn.ReLU``."""

    def __call__(self, x):
        """x of any shape to an array of the same shape."""
        return np.maximum(_floats("ReLU", x), 0)


class Tanh(Layer):
    """The hyperbolic tangent: torch's ``nn.Tanh``."""

    def __call__(self, x):
        """x of any shape to an array of the same shape."""
        return np.tanh(_floats("Tanh", x))


class Sigmoid(Layer):
    """1 / (1 + exp(-x)): torch's ``nn.Sigmoid``."""

    def __call__(self, x):
        """x of any shape to an array of the same shape."""
        return reference.sigmoid(_floats("Sigmoid", x))


class _OverAxis(Layer):
    """What Softmax and LogSoftmax share: the axis."""

    option_names = ("dim",)
    _function = None

    def __init__(self, dim=-1):
        if isinstance(dim, bool) or not hasattr(dim, "__index__"):
            raise TypeError(message(type(self).__name__, "dim to be a whole number", repr(dim)))
        self.dim = dim.__index__()

    def spec(self):
        return LayerSpec(type(self).__name__, {"dim": self.dim})

    def __call__(self, x):
        """x of any shape to an array of the same shape."""
        where = type(self).__name__
        x = _floats(where, x)
        if not -x.ndim <= self.dim < x.ndim:
            raise ValueError(message(where, f"x with an axis {self.dim}", f"shape {x.shape}"))
        with np.errstate(invalid="ignore"):  # an infinity makes a NaN, as in torch
            return type(self)._function(x, self.dim)


class Softmax(_OverAxis):
    """Exponentials over their sum along axis ``dim``: torch's ``nn.Softmax``."""

    _function = staticmethod(reference.softmax_reference)


class LogSoftmax(_OverAxis):
    """The logarithm of the softmax along axis ``dim``: torch's ``nn.LogSoftmax``."""

    _function = staticmethod(reference.log_softmax_reference)


class Last(Layer):
    """The last valid time step of each row: ``output[:, -1]``, or ``output[b, lengths[b] - 1]``.

    In a Sequential the layout and the lengths are those of the model. Of a bidirectional layer
    it takes both halves at that step, as indexing in torch does. In a stream every step is
    the last so far.
    """

    is_last_step = True

    def __call__(self, x, *, lengths=None, batch_first=False):
        """x (T, B, F) to (B, F), or (B, T, F) with batch_first; unbatched (T, F) to (F,)."""
        x = _floats("Last", x)
        if x.ndim not in (2, 3) or 0 in x.shape:
            layout = "(B, T, F)" if batch_first else "(T, B, F)"
            raise ValueError(message("Last", f"x of shape {layout} or, unbatched, (T, F)", f"{x.shape}"))
        steps = _time_major(x, batch_first)
        T, B = steps.shape[:2]
        last = np.full(B, T) if lengths is None else check_lengths("Last", lengths, T, B)
        rows = steps[last - 1, np.arange(B)]
        return rows[0] if x.ndim == 2 else rows
