"""Conv1d: a convolution over time, causal or not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrnn.arrays import Array, Floats, State, StateLike, as_plain
from fastrnn.checks import (
    check_flag,
    check_lengths,
    check_out,
    check_positive,
    check_precision,
    check_sequence,
    check_state,
    check_threads,
)
from fastrnn.engine.backends import pick_backend
from fastrnn.engine.packing import pack_dense
from fastrnn.errors import WeightError, brief, message
from fastrnn.importers.parameters import read_parameters
from fastrnn.layers.base import ProductLayer, bytes_of, own, own_weight, shown, time_major
from fastrnn.narrow import NarrowWeight
from fastrnn.operators.operator import Operator
from fastrnn.operators.signature import Signature, Trait
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Self

    from fastrnn.operators.convolution import Convolution
    from fastrnn.operators.runner import Runner


class Conv1d(ProductLayer):
    """A convolution over time: torch's ``nn.Conv1d``, with the channels as features.

    ``Conv1d.from_state_dict`` makes one. As in all layers here, x is (T, B, channels), or (B, T, channels)
    with ``batch_first``, in float32 or float64. torch's module has the channels in the middle,
    (B, channels, T): its x and y are ours of ``batch_first`` with the last two axes exchanged. So
    `from_torch`, whose layers are called as the module is, refuses it, and `export` takes it.

    With ``causal`` an output depends on its own step and those before it, as many as ``dilation *
    (kernel_size - 1)``. These are zeros at the beginning, and the layer's state later: streams and pools run
    it. Without ``causal`` the layer needs whole sequences.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.Conv1d.html
    """

    has_backend = True
    option_names = ("stride", "padding", "dilation", "groups", "causal", "batch_first", "precision")
    in_channels: int
    out_channels: int
    kernel_size: int
    stride: int
    padding: int | str
    dilation: int
    groups: int
    causal: bool
    batch_first: bool
    precision: str
    dtype: np.dtype[np.floating[Any]]
    tensors: dict[str, Floats | NarrowWeight]
    _before: int
    _after: int
    _operator: Convolution
    _runner: Runner

    @classmethod
    def from_state_dict(
        cls,
        state_dict: Mapping[str, Any],
        prefix: str = "",
        *,
        stride: int = 1,
        padding: int | str = 0,
        dilation: int = 1,
        groups: int = 1,
        causal: bool = False,
        batch_first: bool = False,
        precision: str = "float32",
        threads: int | None = None,
        backend: str = "auto",
    ) -> Self:
        """Make the layer from the weights of torch's module.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            ``weight`` of shape (out_channels, in_channels / groups, kernel_size), and optionally ``bias`` of
            shape (out_channels,). There may be no other key under ``prefix``.
        prefix : str
            The path of the module in the state dict.
        stride, dilation, groups : int
            As in torch. A state dict does not record them.
        padding : int, "same" or "valid"
            As in torch: zeros before the first step and after the last one.
        causal : bool
            All padding is before the first step, so that there is an output for each step, which depends on
            no later one. A stride or a padding beside it is refused.
        batch_first : bool
            Inputs and outputs have shape (B, T, ...) instead of (T, B, ...).
        precision : {"float32", "float64", "bfloat16", "bfloat16x2", "bfloat16x3", "int8"}
            The dtype of weights, inputs and outputs; or how the weights are stored, as in
            `LSTM.from_state_dict`.
        threads : int, optional
            As in `LSTM.from_state_dict`.
        backend : {"auto", "simd", "blas"}
            As in `LSTM.from_state_dict`.

        Raises
        ------
        WeightError
            A key is missing or unknown, or an array has the wrong shape.
        TypeError, ValueError
            An argument has the wrong type or a wrong value.
        """
        where = "Conv1d"
        tensors = read_parameters(where, state_dict, prefix, {"weight": 3, "bias": 1}, optional=("bias",))
        self = cls.__new__(cls)
        self.out_channels, columns, self.kernel_size = tensors["weight"].shape
        self.stride = check_positive(where, "stride", stride)
        self.dilation = check_positive(where, "dilation", dilation)
        self.groups = check_positive(where, "groups", groups)
        self.causal = check_flag(where, "causal", causal)
        self.batch_first = check_flag(where, "batch_first", batch_first)
        self.threads = check_threads(where, threads)
        self.backend = backend
        self.precision = precision
        self.dtype = check_precision(where, precision)
        self.padding = padding
        self._before, self._after = self._margins(padding)
        if self.out_channels % self.groups:
            got = f"{self.out_channels} in {self.groups} groups"
            raise WeightError(message(where, "output channels that divide into the groups", got))
        if "bias" in tensors and tensors["bias"].shape != (self.out_channels,):
            raise WeightError(
                message(where, f"bias of shape ({self.out_channels},)", f"{tensors['bias'].shape}")
            )
        self.in_channels = columns * self.groups
        self.features_in, self.features_out = self.in_channels, self.out_channels
        self.tensors = {"weight": own_weight(where, "weight", tensors["weight"], self.dtype, precision)}
        if "bias" in tensors:
            self.tensors["bias"] = own(tensors["bias"], self.dtype)
        self._pack()
        return self

    def _margins(self, padding: object) -> tuple[int, int]:
        """Return how many steps of padding are before the first step and after the last one."""
        reach = self.dilation * (self.kernel_size - 1)
        if self.causal:
            if self.stride != 1 or padding != 0:
                got = f"stride={self.stride}, padding={padding!r}"
                raise ValueError(message("Conv1d", "no stride and no padding beside causal", got))
            return reach, 0
        if padding == "same":
            if self.stride != 1:
                raise ValueError(message("Conv1d", 'a stride of 1 beside padding="same"', f"{self.stride}"))
            return reach // 2, reach - reach // 2
        if padding == "valid":
            return 0, 0
        if isinstance(padding, (bool, str)) or not hasattr(padding, "__index__"):
            raise TypeError(
                message("Conv1d", 'padding to be a whole number, "same" or "valid"', brief(padding))
            )
        number: int = padding.__index__()
        if number < 0:
            raise ValueError(message("Conv1d", "padding to be at least 0", brief(number)))
        return number, number

    def _pack(self) -> None:
        # Late: few models have one.
        from fastrnn.operators.convolution import Convolution
        from fastrnn.operators.runner import Runner

        storages = {"input": self.precision}
        picked = pick_backend("Conv1d", self.backend, self.dtype, self.threads, storages)
        bias = self.tensors.get("bias", np.zeros(self.out_channels, self.dtype))
        packed = [
            pack_dense(picked.products[0], weight, own(vector, self.dtype))
            for weight, vector in zip(self._rows(), np.split(np.asarray(bias), self.groups), strict=True)
        ]
        self.packed_bytes = bytes_of(packed)
        self._operator = Convolution(
            packed, self.kernel_size, self.stride, self.dilation, self._before, self.causal, picked.threads
        )
        self._runner = Runner([self._operator])

    def _rows(self) -> list[Floats | NarrowWeight]:
        """Return the weights of each group as a projection: (out, channels / groups, taps) becomes
        (out / groups, taps * channels / groups)."""

        part = self.out_channels // self.groups

        def arrange(array: Array) -> Array:
            return array.swapaxes(1, 2).reshape(part, -1)

        weight = self.tensors["weight"]
        groups = [slice(first, first + part) for first in range(0, self.out_channels, part)]
        if isinstance(weight, NarrowWeight):
            return [weight.part(rows, arrange) for rows in groups]
        return [own(arrange(weight[rows]), self.dtype) for rows in groups]

    @property
    def margins(self) -> tuple[int, int]:
        """How many steps of zeros are before the first step and after the last one."""
        return self._before, self._after

    @property
    def is_stateful(self) -> bool:
        """Whether steps before a chunk of time count."""
        return self.causal and self._before > 0

    @property
    def signature(self) -> Signature:
        states = {"steps": (1, self._before * self.in_channels)} if self.is_stateful else {}
        trait = Trait.STEPWISE if states else Trait.WHOLE
        if self.kernel_size == self.stride == 1 and self._before == 0:
            trait = Trait.ROWWISE
        return Signature(trait, self.features_in, self.features_out, dtype=self.dtype, states=states)

    def spec(self) -> LayerSpec:
        options = {name: getattr(self, name) for name in self.option_names}
        return LayerSpec("Conv1d", options, self.tensors)

    def operator(self, dtype: np.dtype[Any]) -> Operator | None:
        return None if self.signature.trait is Trait.WHOLE else self._operator

    def steps_out(self, steps: int) -> int:
        """Return how many steps this many give; below 1: they are too few."""
        reach = self.dilation * (self.kernel_size - 1)
        return (steps + self._before + self._after - reach - 1) // self.stride + 1

    def __call__(
        self,
        x: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        input: ArrayLike | None = None,
    ) -> Floats:
        """Run the layer over whole sequences.

        Parameters
        ----------
        x : array-like of real numbers, shape (T, B, channels)
            (B, T, channels) with ``batch_first``; (T, channels) is one unbatched sequence. Converted to the
            layer's dtype.
        lengths : B integers, optional
            The number of time steps of each row, from 1 to T. What lies beyond counts as zeros, and outputs
            there are 0. The layer has to give as many steps as it takes.
        input
            Another name of x: torch's.

        Returns
        -------
        ndarray of the layer's dtype, shape (T', B, out_channels)
            (B, T', out_channels) with ``batch_first``, (T', out_channels) unbatched.

        Raises
        ------
        ValueError
            A shape or a length does not fit, or there are too few steps.
        TypeError
            An argument does not hold numbers.
        """
        return self.run(x if input is None else input, None, None, lengths, self.batch_first)[0]

    def with_state(self, x: Any, state: StateLike, lengths: Any) -> tuple[Floats, State]:
        return self.run(x, state, None, lengths, self.batch_first)

    def run(
        self, x: Any, state: StateLike, out: Floats | None, lengths: Any, batch_first: bool
    ) -> tuple[Floats, State]:
        """Check and convert the arguments, then run the layer in the given layout."""
        where = "Conv1d"
        x = check_sequence(where, x, self.dtype, self.in_channels, batch_first)
        T, B = time_major(x, batch_first).shape[:2]
        steps = self.steps_out(T)
        if steps < 1:
            least = self.dilation * (self.kernel_size - 1) + 1 - self._before - self._after
            raise ValueError(message(where, f"at least {least} time steps", f"{T}"))
        if lengths is not None:
            if x.ndim == 2 or steps != T:
                expected = "a batch beside lengths"
                if x.ndim == 3:
                    expected = "no lengths beside a padding or stride that changes the number of steps"
                raise ValueError(message(where, expected, f"x of shape {x.shape}"))
            lengths = check_lengths(where, lengths, T, B)
        if not self.causal and self.signature.trait is Trait.WHOLE:
            return self._run_whole(x, lengths, batch_first), ()
        arrays: list[Array] = []
        if state is not None:
            shapes = self.signature.state_shapes(B if x.ndim == 3 else None)
            arrays = [as_plain(array, self.dtype) for array in check_state(where, state, shapes)]
        if out is not None:
            shape = (*x.shape[:-1], self.out_channels)
            out = check_out(where, out, shape, self.dtype, (x, *arrays))
        result = self._runner.call(as_plain(x), arrays[0] if arrays else None, out, lengths, batch_first)
        assert result is not None
        y, after = result
        return y if out is None else out, after

    def _run_whole(self, x: Floats, lengths: Array | None, batch_first: bool) -> Floats:
        rows = as_plain(time_major(x, batch_first).swapaxes(0, 1))
        y = np.empty((rows.shape[0], self.steps_out(rows.shape[1]), self.out_channels), self.dtype)
        self._operator.call(rows, y, lengths)
        if x.ndim == 2:
            first: Floats = y[0]
            return first
        return y if batch_first else np.ascontiguousarray(y.swapaxes(0, 1))

    def pack_state(self, states: list[Floats]) -> State:
        """Return the state as callers see it: the steps before, (1, B, steps * channels)."""
        return states[0]

    def __repr__(self) -> str:
        options = {
            "stride": 1, "padding": 0, "dilation": 1, "groups": 1, "causal": False, "batch_first": False,
        }  # fmt: skip
        parts = [str(self.in_channels), str(self.out_channels), str(self.kernel_size)]
        parts += [f"{n}={getattr(self, n)!r}" for n, usual in options.items() if getattr(self, n) != usual]
        bias = "" if "bias" in self.tensors else ", bias=False"
        return f"Conv1d({', '.join(parts)}{bias}{shown(self.precision)})"
