"""Random layers and comparisons for the tests."""

import numpy as np

import fastrnn
from fastrnn.spec import RecurrentSpec

# The cells as tests name them, with their class and its options.
CELLS = {
    "rnn_tanh": ("RNN", {"nonlinearity": "tanh"}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
    "gru": ("GRU", {}),
    "lstm": ("LSTM", {}),
    "lstm_proj": ("LSTM", {}),
}


def random_spec(cell, input_size, hidden_size, num_layers=1, bidirectional=False, bias=True):
    """A RecurrentSpec. The projected LSTM has about half as many outputs as units."""
    kind, options = CELLS[cell]
    proj_size = (hidden_size + 1) // 2 if cell == "lstm_proj" else 0
    return RecurrentSpec(kind, input_size, hidden_size, num_layers, bidirectional, proj_size, bias, **options)


def random_tensors(rng, spec, dtype=np.float64):
    """Weights for a spec at the scale of torch's initial ones, by torch's names."""
    bound = 1 / np.sqrt(spec.hidden_size)
    return {
        name: rng.uniform(-bound, bound, shape).astype(dtype) for name, shape in spec.tensor_shapes().items()
    }


def random_state(rng, spec, batch_size, dtype=np.float64):
    """A state as a layer takes it."""
    shapes = spec.state_shapes(batch_size).values()
    arrays = [rng.uniform(-1, 1, shape).astype(dtype) for shape in shapes]
    return tuple(arrays) if len(arrays) == 2 else arrays[0]


def make_layer(spec, tensors, **options):
    """The layer with this spec and these weights."""
    if spec.kind == "RNN":
        options["nonlinearity"] = spec.nonlinearity
    return getattr(fastrnn, spec.kind).from_state_dict(tensors, **options)


def random_layer(rng, kind="LSTM", input_size=5, hidden_size=7, precision="float64", **options):
    """A layer with random weights."""
    cell = "rnn_tanh" if kind == "RNN" else kind.lower()
    names = ("num_layers", "bidirectional", "bias")
    spec = random_spec(cell, input_size, hidden_size, **{n: options.pop(n) for n in names if n in options})
    return make_layer(spec, random_tensors(rng, spec), precision=precision, **options)


def arrays_of(state):
    """The arrays of a state, in order."""
    if state is None:
        return []
    if isinstance(state, (tuple, list)):
        return [array for part in state for array in arrays_of(part)]
    return [np.asarray(state)]


def assert_close(got, wanted, tolerance):
    """Check that shapes are equal and every number is within an absolute tolerance. A NaN fails."""
    got, wanted = np.asarray(got), np.asarray(wanted)
    assert got.shape == wanted.shape
    error = np.abs(got - wanted).max(initial=0.0)
    assert error <= tolerance, f"largest error {error:.3g}, allowed {tolerance:.3g}"


def assert_states_close(got, wanted, tolerance):
    """Check the arrays of two states in the same way."""
    got, wanted = arrays_of(got), arrays_of(wanted)
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert_close(one, other, tolerance)


# torch.save's two formats.
WAYS = ("zip", "legacy")


def save(torch, content, path, way="zip"):
    """Write content with torch.save in one of its formats, and return the path."""
    torch.save(content, path, **({"_use_new_zipfile_serialization": False} if way == "legacy" else {}))
    return path


def check_layer(torch, module, state_dict, **options):
    """Check that the layer of a state dict gives what torch's module gives in eval()."""
    layer = getattr(fastrnn, type(module).__name__).from_state_dict(state_dict, **options)
    x = torch.randn(7, 2, module.input_size)
    with torch.no_grad():
        wanted = module.eval()(x)[0].numpy()
    assert_close(layer(x.numpy())[0], wanted, 1e-6)
