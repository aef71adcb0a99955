"""The recurrent cells: RNNCell, GRUCell and LSTMCell, one step of one layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from fastrnn.arrays import Floats, StateLike, as_plain
from fastrnn.checks import Precision, check_array, check_choice, check_state
from fastrnn.errors import WeightError, message
from fastrnn.importers.parameters import read_recurrent
from fastrnn.layers.recurrent import LayerState, RecurrentLayer
from fastrnn.spec import LayerSpec

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from typing_extensions import Self


class RecurrentCell(RecurrentLayer[LayerState]):
    """The base class of RNNCell, GRUCell and LSTMCell.

    Its streams and pools run steps with the state inside, as those of other layers do. A Sequential takes no
    cell, since it runs whole sequences.
    """

    option_names: ClassVar[tuple[str, ...]] = ("precision",)
    kind: ClassVar[str]

    @classmethod
    def from_state_dict(  # type: ignore[override]  # one step has no layout
        cls,
        state_dict: Mapping[str, Any],
        prefix: str = "",
        *,
        precision: Precision = "float32",
        threads: int | None = None,
        backend: str = "auto",
    ) -> Self:
        """Make the cell from the weights of torch's module of the same name.

        Parameters
        ----------
        state_dict : mapping of str to array-like
            Arrays or torch tensors by torch's names. The keys of a layer (``weight_ih_l0``) are taken too, if
            it is one layer in one direction.
        prefix : str
            The path of the module in the state dict.
        precision : str or mapping of str to str
            As in `LSTM.from_state_dict`.
        threads : int, optional
            As in `LSTM.from_state_dict`.
        backend : {"auto", "simd", "blas"}
            As in `LSTM.from_state_dict`.

        Raises
        ------
        WeightError
            A key is missing or unknown, an array has the wrong shape, or the weights are those of another
            kind of cell, or of several.
        TypeError, ValueError
            An argument has the wrong type or a wrong value.

        Notes
        -----
        Source: https://docs.pytorch.org/docs/stable/nn.html#recurrent-layers
        """
        return cls._read(state_dict, prefix, "tanh", precision, threads, backend)

    @classmethod
    def _read(
        cls,
        state_dict: Mapping[str, Any],
        prefix: str,
        nonlinearity: str,
        precision: Precision,
        threads: int | None,
        backend: str,
    ) -> Self:
        shape, tensors = read_recurrent(cls.__name__, cls.kind, state_dict, prefix, nonlinearity)
        if shape.num_layers * shape.directions > 1 or shape.proj_size or "h_0" in tensors:
            hint = f"fastrnn.{cls.kind} takes them."
            raise WeightError(message(cls.__name__, "the weights of one cell", shape.describe(), hint))
        return cls._make(shape, tensors, False, precision, threads, backend)

    def spec(self) -> LayerSpec:
        return LayerSpec(type(self).__name__, {"precision": self.precision}, self.tensors)

    def __call__(self, input: ArrayLike, hx: StateLike = None) -> LayerState:  # type: ignore[override]
        """Make one step.

        Parameters
        ----------
        input : array-like of real numbers, shape (B, I) or (I,)
            Converted to the cell's dtype.
        hx : array-like or pair of them, optional
            The state before: h of shape (B, H) or (H,). For an LSTMCell the pair (h, c), both of that shape.
            Zeros if not given.

        Returns
        -------
        ndarray or pair of them
            The state after the step, in the form of ``hx``.

        Raises
        ------
        ValueError
            A shape does not fit.
        TypeError
            An argument does not hold real numbers.
        """
        where = type(self).__name__
        x = check_array(where, "input", input, self.dtype)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            expected = f"input of shape (B, {self.input_size}) or ({self.input_size},)"
            hint = f"fastrnn.{self.kind} takes whole sequences." if x.ndim == 3 else ""
            raise ValueError(message(where, expected, f"{x.shape}", hint))
        shapes = {name: (*x.shape[:-1], columns) for name, (_, columns) in self.signature.states.items()}
        states: list[Floats] | None = None
        if hx is not None:
            states = [as_plain(array, self.dtype)[None] for array in check_state(where, hx, shapes)]
        if not x.size:
            return self.pack_state([np.zeros(shape, self.dtype) for shape in shapes.values()])
        state = None if states is None else self.pack_state(states)
        result = self._runner.call(as_plain(x)[None], state)
        assert result is not None
        after: Any = result[1]
        return cast(LayerState, (after[0][0], after[1][0]) if len(shapes) == 2 else after[0])

    def __repr__(self) -> str:
        return self.shape._replace(kind=type(self).__name__).describe(precision=self.precision)


class LSTMCell(RecurrentCell[tuple[Floats, Floats]]):
    """One step of an LSTM: torch's ``nn.LSTMCell``.

    ``h, c = cell(input, (h, c))``. ``LSTMCell.from_state_dict`` makes one. The input is (B, I) or (I,), h and
    c are (B, H) or (H,), in float32 or float64.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTMCell.html
    """

    kind = "LSTM"


class GRUCell(RecurrentCell[Floats]):
    """One step of a GRU: torch's ``nn.GRUCell``.

    ``h = cell(input, h)``. ``GRUCell.from_state_dict`` makes one. The input is (B, I) or (I,), h is (B, H) or
    (H,), in float32 or float64.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.GRUCell.html
    """

    kind = "GRU"


class RNNCell(RecurrentCell[Floats]):
    """One step of an Elman network: torch's ``nn.RNNCell``, with tanh or relu.

    ``h = cell(input, h)``. ``RNNCell.from_state_dict`` makes one. The input is (B, I) or (I,), h is (B, H) or
    (H,), in float32 or float64.

    Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNNCell.html
    """

    kind = "RNN"
    option_names = ("precision", "nonlinearity")
    nonlinearity = property(lambda self: self.shape.nonlinearity)

    @classmethod
    def from_state_dict(  # type: ignore[override]
        cls,
        state_dict: Mapping[str, Any],
        prefix: str = "",
        *,
        nonlinearity: str = "tanh",
        precision: Precision = "float32",
        threads: int | None = None,
        backend: str = "auto",
    ) -> Self:
        """Make the cell from the weights of torch's RNNCell.

        It takes the parameters of `LSTMCell.from_state_dict` and this one:

        Parameters
        ----------
        nonlinearity : {"tanh", "relu"}
            As in torch. A state dict does not record it.

        Raises
        ------
        WeightError, TypeError, ValueError
            As in `LSTMCell.from_state_dict`.

        Notes
        -----
        Source: https://docs.pytorch.org/docs/stable/generated/torch.nn.RNNCell.html
        """
        check_choice("RNNCell", "nonlinearity", nonlinearity, ("tanh", "relu"))
        return cls._read(state_dict, prefix, nonlinearity, precision, threads, backend)

    def spec(self) -> LayerSpec:
        spec = super().spec()
        return spec._replace(options={**spec.options, "nonlinearity": self.nonlinearity})
