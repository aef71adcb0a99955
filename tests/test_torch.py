"""The recurrent layers give torch's numbers: over the whole product of options, and by property."""

import numpy as np
import pytest
from helpers import CELLS, assert_close, assert_states_close, random_spec
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn.engine import backends

torch = pytest.importorskip("torch")
torch.set_num_threads(1)
rnn_utils = torch.nn.utils.rnn

HIDDEN_SIZES = (1, 3, 8, 17, 40, 64, 128, 300)
BATCH_SIZES = (None, 1, 2, 5, 33)
FLOAT64 = 1e-12
FLOAT32 = 2e-6  # against torch in float64, on weights and inputs that float32 holds exactly
T = 6
BACKENDS = ("simd", "blas") if backends.ISAS else ("blas",)


def make_module(spec, seed):
    """torch's module of a spec, in float64 with weights that float32 holds exactly."""
    torch.manual_seed(seed)
    options = {"nonlinearity": spec.nonlinearity} if spec.kind == "RNN" else {}
    if spec.kind == "LSTM":
        options["proj_size"] = spec.proj_size
    module = getattr(torch.nn, spec.kind)(
        spec.input_size,
        spec.hidden_size,
        num_layers=spec.num_layers,
        bias=spec.bias,
        bidirectional=spec.bidirectional,
        **options,
    )
    return module.double().eval()


def make_layers(spec, module, **options):
    """Our layers of the same weights, of every backend and precision, with their tolerances."""
    if spec.kind == "RNN":
        options["nonlinearity"] = spec.nonlinearity
    make = getattr(fastrnn, spec.kind).from_state_dict
    return [
        (make(module.state_dict(), precision=precision, backend=backend, **options), tolerance)
        for precision, tolerance in (("float64", FLOAT64), ("float32", FLOAT32))
        for backend in BACKENDS
    ]


def run_torch(module, x, state, lengths):
    """torch's output, 0 beyond each length, and its state."""
    with torch.inference_mode():
        if lengths is None:
            return module(x, state)
        packed = rnn_utils.pack_padded_sequence(x, lengths, enforce_sorted=False)
        output, state = module(packed, state)
        output, _ = rnn_utils.pad_packed_sequence(output, total_length=len(x))
        return output, state


def random_case(spec, generator, steps, batch_size, has_state):
    """An input (T, B, I) and a state for torch."""

    def draw(*shape):
        return torch.randn(*shape, generator=generator).double()

    x = draw(steps, *(() if batch_size is None else (batch_size,)), spec.input_size)
    if not has_state:
        return x, None
    state = tuple(draw(*shape) for shape in spec.state_shapes(batch_size).values())
    return x, state if len(state) == 2 else state[0]


def random_lengths(generator, steps, batch_size):
    return torch.randint(1, steps + 1, (batch_size,), generator=generator).tolist()


@pytest.mark.parametrize("hidden_size", HIDDEN_SIZES)
@pytest.mark.parametrize("bias", (True, False))
@pytest.mark.parametrize("bidirectional", (False, True))
@pytest.mark.parametrize("num_layers", (1, 2, 3))
@pytest.mark.parametrize("cell", CELLS)
def test_layer_equals_torch(cell, num_layers, bidirectional, bias, hidden_size):
    if cell == "lstm_proj" and hidden_size == 1:
        pytest.skip("torch wants proj_size below hidden_size")
    spec = random_spec(cell, 5, hidden_size, num_layers, bidirectional, bias)
    module = make_module(spec, seed=hidden_size)
    generator = torch.Generator().manual_seed(num_layers)
    layers = {flag: make_layers(spec, module, batch_first=flag) for flag in (False, True)}
    for batch_size in BATCH_SIZES:
        for has_state in (False, True):
            for has_lengths in (False, True) if batch_size is not None else (False,):
                x, state = random_case(spec, generator, T, batch_size, has_state)
                lengths = random_lengths(generator, T, batch_size) if has_lengths else None
                wanted, wanted_state = run_torch(module, x, state, lengths)
                for batch_first in (False, True) if batch_size is not None else (False,):
                    for layer, tolerance in layers[batch_first]:
                        given = x.transpose(0, 1) if batch_first else x
                        output, after = layer(given, state, lengths=lengths)
                        output = output.swapaxes(0, 1) if batch_first else output
                        assert_close(output, wanted, tolerance)
                        assert_states_close(after, wanted_state, tolerance)


@settings(max_examples=150)
@given(data=st.data())
def test_any_layer_equals_torch(data):
    """The same by property: sizes off the beaten track, longer sequences, given buffers."""
    draw = data.draw
    cell = draw(st.sampled_from(sorted(CELLS)))
    smallest = 2 if cell == "lstm_proj" else 1
    spec = random_spec(
        cell,
        input_size=draw(st.integers(1, 40)),
        hidden_size=draw(st.integers(smallest, 70)),
        num_layers=draw(st.integers(1, 3)),
        bidirectional=draw(st.booleans()),
        bias=draw(st.booleans()),
    )
    module = make_module(spec, draw(st.integers(0, 2**31)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch_size = draw(st.one_of(st.none(), st.integers(1, 40)))
    steps = draw(st.integers(1, 80))
    x, state = random_case(spec, generator, steps, batch_size, draw(st.booleans()))
    has_lengths = batch_size is not None and draw(st.booleans())
    lengths = random_lengths(generator, steps, batch_size) if has_lengths else None
    batch_first = draw(st.booleans())
    wanted, wanted_state = run_torch(module, x, state, lengths)
    for layer, tolerance in make_layers(spec, module, batch_first=batch_first):
        swap = batch_first and batch_size is not None
        given = x.transpose(0, 1) if swap else x
        out = np.full((*given.shape[:-1], layer.features_out), np.nan, layer.dtype)
        output, after = layer(given, state, lengths=lengths, out=out)
        assert output is out
        # Activations of relu grow with depth: the tolerance is for values of about 1.
        after_wanted = wanted_state if isinstance(wanted_state, tuple) else (wanted_state,)
        scale = max(1.0, *(float(tensor.abs().max()) for tensor in (wanted, *after_wanted)))
        assert_close(output.swapaxes(0, 1) if swap else output, wanted, tolerance * scale)
        assert_states_close(after, wanted_state, tolerance * scale)
