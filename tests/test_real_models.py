"""Models that other people trained: their files load, and their outputs equal the reference.

The tolerance is five times torch's own float32 error, from each model's README, plus 2e-6 of the largest
value. `scale` is the pair (torch's error, the largest value).
"""

import numpy as np
import pytest
from helpers import arrays_of

import fastrnn

# folder, file, prefix, layer, name in the reference, scales of y, hn and cn
RECURRENT = (
    ("a3c-bipedal-lstmcell-legacy", "BipedalWalker-v2.dat", "lstm", "LSTM", "lstm",
     ((2.22e-6, 1), (3.87e-7, 1), (1.93e-5, 44.5))),
    ("algzoo-relu-rnn-10", "2nd_argmax_10.pt", "rnn", "RNN", "rnn", ((1.19e-6, 6.23), (1.19e-6, 5.13))),
    ("allennlp-bilstm-legacy", "best.th", "_encoder._module", "LSTM", "encoder",
     ((7.36e-8, 0.449), (4.13e-8, 0.334), (8.26e-8, 0.704))),
    ("allennlp-bilstm-legacy", "best.th", "_transition_function._decoder_cell", "LSTM", "decoder",
     ((7.73e-8, 0.351), (1.03e-7, 0.33), (1.73e-7, 0.853))),
    ("beatnet-lstm", "model_1_weights.pt", "lstm", "LSTM", "lstm",
     ((2.61e-6, 0.999), (9.84e-7, 0.967), (5.73e-6, 19.7))),
    ("ccsmeth-bigru-dataparallel", "model_ccsmeth_5mCpG_aggregate_attbigru_b11.v2p.ckpt", "rnn", "GRU", "rnn",
     ((2.31e-6, 3.33), (6.78e-7, 1))),
    ("cstr-lstm-proj", "lstm.pt", "model", "LSTM", "lstm",
     ((4.34e-7, 2.47), (3.65e-7, 2.29), (4.57e-7, 4.06))),
    ("hydrology-lstm126", "model_epoch009.pt", "lstm", "LSTM", "lstm",
     ((3.16e-6, 1), (1.16e-6, 0.845), (1.25e-3, 671))),
    ("mnist-rnn-tanh", "rnn_model.pth", "rnn", "RNN", "rnn", ((6.12e-6, 1), (2.54e-6, 1))),
    ("silero-vad", "silero_vad_16k.safetensors", "lstm_cell", "LSTM", "lstm_cell",
     ((7.04e-7, 1), (4.62e-7, 0.861), (9.43e-6, 35.5))),
)  # fmt: skip


class Folder:
    """The folder of one model: its weights and its reference."""

    def __init__(self, path, file):
        self.state_dict = fastrnn.load_state_dict(path / file)
        with np.load(path / "reference.npz") as reference:
            self.reference = dict(reference)

    def linear(self, prefix):
        return fastrnn.Linear.from_state_dict(self.state_dict, prefix)

    def check(self, got, name, scale):
        """Compare with the reference, in float64 if there is one."""
        wanted = self.reference.get(f"{name}64", self.reference[name])
        error, largest = scale
        assert got.dtype == np.float32 and got.size == wanted.size
        difference = np.abs(got.reshape(wanted.shape) - wanted).max()
        assert difference <= 5 * error + 2e-6 * largest, f"{name}: {difference:.3g}"

    def state(self, name, shape):
        """The initial state of the reference. That of a cell gets the axis of layers that it lacks."""
        letters = [letter for letter in ("h0", "c0") if f"{name}.{letter}" in self.reference]
        arrays = [self.reference[f"{name}.{letter}"] for letter in letters]
        arrays = [a.reshape(s) for a, s in zip(arrays, shape.values(), strict=True)]
        return tuple(arrays) if len(arrays) == 2 else arrays[0]


@pytest.mark.parametrize("folder, file, prefix, kind, name, scales", RECURRENT)
def test_recurrent_module_reproduces_its_reference(models, folder, file, prefix, kind, name, scales):
    model = Folder(models / folder, file)
    options = {"nonlinearity": "relu"} if folder.startswith("algzoo") else {}
    layer = getattr(fastrnn, kind).from_state_dict(model.state_dict, prefix, **options)
    x = model.reference[f"{name}.x"]
    y, state = layer(x, model.state(name, layer.shape.state_shapes(x.shape[1])))
    for got, letter, scale in zip((y, *arrays_of(state)), ("y", "hn", "cn"), scales, strict=False):
        model.check(got, f"{name}.{letter}", scale)


def test_second_largest_is_found(models):
    """The network was built to find the second largest of ten numbers."""
    folder = Folder(models / "algzoo-relu-rnn-10", "2nd_argmax_10.pt")
    model = fastrnn.Sequential(
        fastrnn.RNN.from_state_dict(folder.state_dict, "rnn", nonlinearity="relu"),
        fastrnn.Last(),
        folder.linear("linear"),
    )
    y, _ = model(folder.reference["rnn.x"])
    folder.check(y, "stack.out", (2.98e-6, 9.69))
    assert (y.argmax(axis=1) == folder.reference["second_largest"]).mean() > 0.98


def test_streamflow_of_a_catchment(models):
    folder = Folder(models / "hydrology-lstm126", "model_epoch009.pt")
    path = models / "hydrology-lstm126" / "model_epoch009.pt"
    y, _ = fastrnn.load(path)(folder.reference["lstm.x"])
    # The scale and centre of QObs(mm/h) in the scaler file beside the weights.
    flow = np.maximum(y * np.float32(0.18175311386585236) + np.float32(0.07877858728170395), 0)
    folder.check(flow, "stack.out", (6.43e-7, 1.17))


def test_digits_are_classified(models):
    folder = Folder(models / "mnist-rnn-tanh", "rnn_model.pth")
    model = fastrnn.Sequential(
        fastrnn.RNN.from_state_dict(folder.state_dict, "rnn", batch_first=True),
        fastrnn.Last(),
        folder.linear("fc"),
    )
    y, _ = model(folder.reference["rnn.x"].swapaxes(0, 1))
    folder.check(y, "stack.out", (3.36e-6, 9.99))
    assert (y.argmax(axis=1) == folder.reference["labels"]).mean() > 0.95


def test_beats_after_the_convolution(models):
    """Streamed in three chunks. The input is the output of a convolution, which fastrnn does not run."""
    folder = Folder(models / "beatnet-lstm", "model_1_weights.pt")
    model = fastrnn.Sequential(
        fastrnn.LSTM.from_state_dict(folder.state_dict, "lstm"), folder.linear("linear"), fastrnn.Softmax()
    )
    stream = model.stream(batch_size=1)
    x = folder.reference["lstm.x"]
    y = np.concatenate([stream.run(x[:100]), stream.run(x[100:101]), stream.run(x[101:])])
    folder.check(y, "stack.out", (2.02e-6, 1))


def test_walker_policy(models):
    folder = Folder(models / "a3c-bipedal-lstmcell-legacy", "BipedalWalker-v2.dat")
    x = folder.reference["stack.in"]
    for name in ("fc1", "fc2", "fc3", "fc4"):
        x = folder.linear(name)(x)
        x = np.where(x > 0, x, np.float32(0.1) * x)
    lstm = fastrnn.LSTM.from_state_dict(folder.state_dict, "lstm")
    stream = lstm.stream(batch_size=1)
    y = np.stack([stream.step(step) for step in x])
    folder.check(folder.linear("critic_linear")(y), "stack.critic_linear", (7.57e-6, 37.1))
    mean = folder.linear("actor_linear")(y)
    folder.check(mean / (1 + np.abs(mean)), "stack.actor_linear", (1.47e-6, 0.883))
    folder.check(folder.linear("actor_linear2")(y), "stack.actor_linear2", (1.54e-6, 4.44))


def test_reactor_with_measured_states(models):
    """For 25 steps, the caller replaces the hidden state by the measured output."""
    folder = Folder(models / "cstr-lstm-proj", "lstm.pt")
    lstm = fastrnn.LSTM.from_state_dict(folder.state_dict, "model")
    u, measured = folder.reference["stack.u"], folder.reference["stack.y"]
    stream = lstm.stream(batch_size=u.shape[1])
    outputs = []
    for t in range(25):
        stream.state = (measured[t][None], stream.state[1])
        outputs.append(stream.step(u[t])[None])
    outputs.append(stream.run(u[25:]))
    folder.check(np.concatenate(outputs), "stack.out", (4.58e-7, 4.31))
    for array, letter, scale in zip(
        stream.state, ("hn", "cn"), ((2.75e-7, 2.37), (6.15e-7, 3.88)), strict=True
    ):
        folder.check(array, f"stack.{letter}", scale)


def test_methylation_by_attention(models):
    folder = Folder(
        models / "ccsmeth-bigru-dataparallel", "model_ccsmeth_5mCpG_aggregate_attbigru_b11.v2p.ckpt"
    )
    gru = fastrnn.GRU.from_state_dict(folder.state_dict, "rnn")
    y, h = gru(folder.reference["rnn.x"], folder.reference["rnn.h0"])
    keys = y.swapaxes(0, 1)
    query = np.concatenate([h[0], h[1]], axis=1)[:, None]
    scores = folder.linear("_att3.va")(
        np.tanh(folder.linear("_att3.Wa")(query) + folder.linear("_att3.Ua")(keys))
    )
    weights = fastrnn.Softmax(dim=1)(scores)
    level = folder.linear("fc1")((weights * keys).sum(axis=1))
    folder.check(level, "stack.out", (2.57e-7, 0.829))


def test_spelling_to_phonemes(models):
    """An npz with its own names; greedy decoding through streams gives the same phonemes."""
    folder = Folder(models / "g2p-gru-seq2seq-npz", "checkpoint20.npz")
    weights = folder.state_dict

    def gru(part):
        names = {"weight_ih": "w_ih", "weight_hh": "w_hh", "bias_ih": "b_ih", "bias_hh": "b_hh"}
        return fastrnn.GRU.from_state_dict({name: weights[f"{part}_{key}"] for name, key in names.items()})

    def embedding(part):
        return fastrnn.Embedding.from_state_dict({"weight": weights[f"{part}_emb"]})

    for name, part, scales in (
        ("enc", "enc", ((1.29e-6, 1), (1.13e-6, 1))),
        ("dec", "dec", ((2.43e-6, 1), (2.43e-6, 1))),
    ):
        layer = gru(part)
        y, h = layer(folder.reference[f"{name}.x"], folder.reference[f"{name}.h0"])
        folder.check(y, f"{name}.y", scales[0])
        folder.check(h, f"{name}.hn", scales[1])
    encoder = fastrnn.Sequential(embedding("enc"), gru("enc"))
    head = fastrnn.Linear.from_state_dict({"weight": weights["fc_w"], "bias": weights["fc_b"]})
    decoder = fastrnn.Sequential(embedding("dec"), gru("dec"), head)
    finals, logits = [], []
    for letters, phonemes in zip(folder.reference["letters"], folder.reference["phonemes"], strict=True):
        _, state = encoder(letters[letters >= 0])
        finals.append(state[0])
        stream = decoder.stream()
        stream.state = state
        token, spoken = 2, []
        while token != 3 and len(spoken) < 20:
            logits.append(stream.step(token))
            token = int(logits[-1].argmax())
            spoken.append(token)
        wanted = phonemes[phonemes >= 0].tolist()
        assert [token for token in spoken if token != 3] == [token for token in wanted if token != 3]
    folder.check(np.stack(finals), "enc_final", (1.54e-6, 1))
    folder.check(np.stack(logits), "logits", (9.19e-6, 29.8))


def test_speech_after_the_convolutions(models):
    folder = Folder(models / "silero-vad", "silero_vad_16k.safetensors")
    lstm = fastrnn.LSTM.from_state_dict(folder.state_dict, "lstm_cell")
    head = fastrnn.Linear.from_state_dict({
        "weight": folder.state_dict["final_conv.weight"][..., 0],
        "bias": folder.state_dict["final_conv.bias"],
    })  # fmt: skip
    stream = fastrnn.Sequential(lstm, fastrnn.ReLU(), head, fastrnn.Sigmoid()).stream(batch_size=1)
    y = np.stack([stream.step(x) for x in folder.reference["lstm_cell.x"]])
    folder.check(y, "stack.out", (3.28e-7, 1))


@pytest.mark.parametrize(
    "file, words",
    (
        ("actuator-lstm-torchscript/anydrive_v3_lstm.pt", "a TorchScript archive"),
        ("neuralseed-gru-json/gru8_ts9_pytorch.json", "a JSON file"),
        ("rtneural-gru-chain-json/gru_torch.json", "a JSON file"),
        ("silero-vad/silero_vad_16k_op15.onnx", "an ONNX model"),
        ("oldest-tar-format-refuse/char-rnn-classification.pt", "a tar archive"),
        ("beatnet-lstm/model-1.pt", r"a whole pickled module or object \(model.BDA\)"),
        ("hydrology-lstm126/config.yml", "a file of no known kind"),
    ),
)
def test_other_formats_are_refused_by_name(models, file, words):
    with pytest.raises(fastrnn.FormatError, match=words):
        fastrnn.load_state_dict(models / file)
