"""Models that other people trained, whole: exported, saved and loaded, they equal their references.

Outputs are compared with the float64 reference. The tolerance is that of `test_real_models`, with the errors
of torch in float32 as each model's README has them.
"""

import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import real_models_to_export as real  # noqa: E402  (after importorskip)
from helpers import arrays_of  # noqa: E402

import fastrnn  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*torch.jit:DeprecationWarning", "ignore:LSTM with projections:UserWarning"
)

LINE = re.compile(r"^- `(\S+)`: (\S+) \(largest value (\S+)\)$", re.M)


class Reference:
    """What the folder of a model has: its arrays, and how large torch's own errors are."""

    def __init__(self, folder):
        with np.load(folder / "reference.npz") as arrays:
            self.arrays = dict(arrays)
        text = (folder / "README.md").read_text(encoding="utf-8")
        self.scales = {name: (float(error), float(largest)) for name, error, largest in LINE.findall(text)}

    def __getitem__(self, name):
        return self.arrays[name]

    def check(self, got, name):
        wanted = self.arrays[f"{name}64"]
        error, largest = self.scales[name]
        assert got.dtype == np.float32 and got.size == wanted.size
        difference = np.abs(got.reshape(wanted.shape) - wanted).max()
        assert difference <= 5 * error + 2e-6 * largest, f"{name}: {difference:.3g}"


@dataclass(frozen=True)
class Model:
    """A model that takes whole recordings.

    Attributes
    ----------
    args : callable
        The arguments from the reference, as arrays nested as the module takes them.
    results : tuple of str
        What the reference calls the results, in order.
    dynamic, state
        As in `fastrnn.export`.
    axis : int or None
        The axis of the first argument and of the results that is time, if the model can run chunk by chunk.
    example : int
        How many steps the arguments of the export have, if these are not the whole recording.
    """

    folder: str
    file: str
    read: Any
    make: Any
    args: Any
    results: tuple[str, ...]
    dynamic: Any
    state: tuple[tuple[int, int], ...] = ()
    axis: int | None = None
    example: int | None = None


MODELS = {
    "walker": Model(
        "a3c-bipedal-lstmcell-legacy", "BipedalWalker-v2.dat", real.read_torch, real.Walker,
        lambda r: (r["stack.in"],), ("stack.critic_linear", "stack.actor_linear", "stack.actor_linear2"),
        ({0: "T", 1: "B"},), axis=0, example=20,
    ),
    "actuator": Model(
        "actuator-lstm-torchscript", "anydrive_v3_lstm.pt", real.read_script, real.Actuator,
        lambda r: (r["stack.in"], (r["lstm.h0"], r["lstm.c0"])), ("stack.out", "lstm.hn", "lstm.cn"),
        ({0: "T", 1: "B"}, ({1: "B"}, {1: "B"})), ((1, 1), (2, 2)), axis=0, example=40,
    ),
    "second_largest": Model(
        "algzoo-relu-rnn-10", "2nd_argmax_10.pt", real.read_torch, real.SecondLargest,
        lambda r: (r["rnn.x"],), ("stack.out",), ({0: "T", 1: "B"},),
    ),
    "parser": Model(
        "allennlp-bilstm-legacy", "best.th", real.read_torch, real.Parser,
        lambda r: (r["encoder.x"], (r["encoder.h0"], r["encoder.c0"]),
                   r["decoder.x"], (r["decoder.h0"], r["decoder.c0"])),
        tuple(f"{part}.{name}" for part in ("encoder", "decoder") for name in ("y", "hn", "cn")),
        ({0: "T", 1: "B"}, ({1: "B"}, {1: "B"}), {0: "S", 1: "N"}, ({1: "N"}, {1: "N"})),
    ),
    "beats": Model(
        "beatnet-lstm", "model_1_weights.pt", real.read_torch, real.Beats,
        lambda r: (r["stack.in"][None],), ("stack.out",), ({1: "T"},), axis=1, example=40,
    ),
    "methylation": Model(
        "ccsmeth-bigru-dataparallel", "model_ccsmeth_5mCpG_aggregate_attbigru_b11.v2p.ckpt",
        real.read_torch, real.Methylation, lambda r: (r["rnn.x"].swapaxes(0, 1), r["rnn.h0"]), ("stack.out",),
        ({0: "B", 1: "T"}, {1: "B"}),
    ),
    "reactor": Model(
        "cstr-lstm-proj", "lstm.pt", real.read_torch, real.Reactor, lambda r: (r["stack.u"], r["stack.y"]),
        ("stack.out", "stack.hn", "stack.cn"), ({0: "T", 1: "B"}, {0: "T", 1: "B"}),
    ),
    "streamflow": Model(
        "hydrology-lstm126", "model_epoch009.pt", real.read_torch, real.Streamflow,
        lambda r: (r["forcing"][:, None],), ("stack.out",), ({0: "T", 1: "B"},), axis=0, example=40,
    ),
    "digits": Model(
        "mnist-rnn-tanh", "rnn_model.pth", real.read_torch, real.Digits, lambda r: (r["digits"],),
        ("stack.out",), ({0: "B"},),
    ),
    "pedal8": Model(
        "neuralseed-gru-json", "gru8_ts9_pytorch.json", real.read_json, lambda: real.Pedal(8),
        lambda r: (r["stack.in"],), ("gru8.stack.out",), ({0: "T", 1: "B"},), axis=0, example=500,
    ),
    "pedal7": Model(
        "neuralseed-gru-json", "ts9_gru7_gain10_loss003_TEST.json", real.read_json, lambda: real.Pedal(7),
        lambda r: (r["stack.in"],), ("gru7.stack.out",), ({0: "T", 1: "B"},), axis=0, example=500,
    ),
    "two_grus": Model(
        "rtneural-gru-chain-json", "gru_torch.json", real.read_json, real.TwoGrus,
        lambda r: (r["gru.x"],), ("stack.out",), ({0: "T", 1: "B"},), axis=0, example=40,
    ),
    "speech": Model(
        "silero-vad", "silero_vad_16k.safetensors", real.read_safetensors, real.Speech,
        lambda r: (np.append(r["stack.in"][0, :64], r["stack.in"][:, 64:])[None],), ("stack.out",),
        ({0: "B", 1: "N"},), axis=1, example=64 + 7 * 512,
    ),
}  # fmt: skip
EXPORTED = {}


def tensors(value):
    if isinstance(value, (tuple, list)):
        return tuple(map(tensors, value))
    return torch.from_numpy(np.ascontiguousarray(value))


def results_of(value):
    """The arrays of nested results, in order."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        return [array for part in value for array in results_of(part)]
    return [value]


def saved(module, args, path, **options):
    """The program of a module, from a file."""
    fastrnn.export(module, tensors(args), path=path, **options)
    return fastrnn.load(path)


def exported(models, name, folder):
    """The program of a model and its file, made once."""
    if name not in EXPORTED:
        model = MODELS[name]
        place = models / model.folder
        args = model.args(Reference(place))
        if model.example is not None:
            args = (args[0].take(range(model.example), model.axis), *args[1:])
        module = real.loaded(model.make(), model.read(place / model.file))
        path = folder.mktemp("exported") / f"{name}.safetensors"
        EXPORTED[name] = saved(module, args, path, dynamic=model.dynamic, state=model.state), path
    return EXPORTED[name]


@pytest.mark.parametrize("name", MODELS)
def test_exported_model_reproduces_its_reference(models, tmp_path_factory, name):
    model, (program, _) = MODELS[name], exported(models, name, tmp_path_factory)
    reference = Reference(models / model.folder)
    for got, result in zip(results_of(program(*model.args(reference))), model.results, strict=True):
        reference.check(got, result)
    assert program.verify()["passed"]


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.axis is not None])
def test_exported_model_runs_chunk_by_chunk(models, tmp_path_factory, name):
    model, (program, _) = MODELS[name], exported(models, name, tmp_path_factory)
    reference = Reference(models / model.folder)
    (x, *states), axis = model.args(reference), model.axis
    stream = program.stream()
    cuts = np.array([1, 2, 9, 90]) * max(1, x.shape[axis] // 200)
    chunks = [results_of(stream.run(chunk)) for chunk in np.split(x, cuts, axis)]
    whole = results_of(program(x, *states))
    for index, results in enumerate(zip(*chunks, strict=True)):
        got = np.concatenate(results, axis)
        np.testing.assert_array_equal(got, whole[index])
        reference.check(got, model.results[index])


def test_exported_models_need_no_torch(models, tmp_path_factory, tmp_path):
    """In a process in which torch cannot be imported: the same bits."""
    for name, model in MODELS.items():
        program, path = exported(models, name, tmp_path_factory)
        (tmp_path / name).symlink_to(path)
        arrays = [np.ascontiguousarray(a) for a in arrays_of(model.args(Reference(models / model.folder)))]
        np.savez(tmp_path / f"{name}.in.npz", *arrays)
        np.savez(tmp_path / f"{name}.wanted.npz", *program.run([*arrays, *program._hidden]))
    script = """
import sys
sys.modules["torch"] = None
import numpy as np, fastrnn
for name in sys.argv[1:]:
    program = fastrnn.load(name)
    with np.load(f"{name}.in.npz") as given, np.load(f"{name}.wanted.npz") as wanted:
        results = program.run([*given.values(), *program._hidden])
        for got, other in zip(results, wanted.values(), strict=True):
            np.testing.assert_array_equal(got, other)
"""
    subprocess.run([sys.executable, "-c", script, *MODELS], cwd=tmp_path, check=True)


# ---------------------------------------------------------------- one step per call


def test_policy_step_by_step(models, tmp_path):
    folder = models / "a3c-bipedal-lstmcell-legacy"
    reference = Reference(folder)
    module = real.loaded(real.WalkerStep(), real.read_torch(folder / "BipedalWalker-v2.dat"))
    x, state = reference["stack.in"], (reference["lstm.h0"], reference["lstm.c0"])
    axes = {0: "B"}
    program = saved(
        module, (x[0], state), tmp_path / "walker", dynamic=(axes, (axes, axes)), state=((1, 3), (2, 4))
    )
    stream = program.stream()
    steps = [stream.step(observation) for observation in x]
    for observation, wanted in zip(x, steps, strict=True):
        *heads, state = program(observation, state)
        for got, other in zip(heads, wanted, strict=True):
            np.testing.assert_array_equal(got, other)
    names = ("stack.critic_linear", "stack.actor_linear", "stack.actor_linear2")
    for results, name in zip(zip(*steps, strict=True), names, strict=True):
        reference.check(np.stack(results), name)
    for array, carried, name in zip(state, stream.state.values(), ("lstm.hn", "lstm.cn"), strict=True):
        np.testing.assert_array_equal(array, carried)
        reference.check(array, name)


def test_reactor_with_measured_states(models, tmp_path):
    """For 25 steps, the caller replaces the hidden state of the stream by the measured output."""
    folder = models / "cstr-lstm-proj"
    reference = Reference(folder)
    module = real.loaded(real.ReactorStep(), real.read_torch(folder / "lstm.pt"))
    u, measured, rows = reference["stack.u"], reference["stack.y"], {1: "B"}
    zeros = np.zeros((1, 64, 2), "float32"), np.zeros((1, 64, 16), "float32")
    program = saved(
        module, (u[:30], zeros), tmp_path / "reactor",
        dynamic=({0: "T", 1: "B"}, (rows, rows)), state=((1, 1), (2, 2)),
    )  # fmt: skip
    stream, outputs = program.stream(64), []
    h, c = stream.state
    for t in range(25):
        stream.state = {h: measured[t][None], c: stream.state[c]}
        outputs.append(stream.run(u[t : t + 1]))
    reference.check(np.concatenate([*outputs, stream.run(u[25:])]), "stack.out")
    reference.check(stream.state[h], "stack.hn")
    reference.check(stream.state[c], "stack.cn")
    for got, name in zip(results_of(program(reference["lstm.x"], zeros)), ("y", "hn", "cn"), strict=True):
        reference.check(got, f"lstm.{name}")


def test_speech_window_by_window(models, tmp_path):
    folder = models / "silero-vad"
    reference = Reference(folder)
    weights = real.read_safetensors(folder / "silero_vad_16k.safetensors")
    windows = reference["stack.in"][:, None]
    program = saved(
        real.loaded(real.SpeechStep(), weights), (windows[0], np.zeros((2, 1, 128), "float32")),
        tmp_path / "speech", dynamic=({0: "B"}, {1: "B"}), state=((1, 1),),
    )  # fmt: skip
    stream = program.stream()
    reference.check(np.stack([stream.step(window) for window in windows]), "stack.out")
    (state,) = stream.state.values()
    for array, name in zip(state, ("lstm_cell.hn", "lstm_cell.cn"), strict=True):
        reference.check(array, name)


def test_spelling_to_phonemes(models, tmp_path):
    """An encoder and a step of a decoder. The loop that chooses is the caller's."""
    folder = models / "g2p-gru-seq2seq-npz"
    reference = Reference(folder)
    weights = real.read_speller(folder / "checkpoint20.npz")
    words = [row[row >= 0] for row in reference["letters"]]
    encoder = saved(
        real.loaded(real.Letters(), weights, strict=False), (words[0][:, None],), tmp_path / "encoder",
        dynamic=({0: "T", 1: "B"},),
    )  # fmt: skip
    decoder = saved(
        real.loaded(real.PhonemeStep(), weights, strict=False),
        (np.array([2]), reference["enc_final"][:1]), tmp_path / "decoder",
        dynamic=({0: "B"}, {0: "B"}), state=((1, 1),),
    )  # fmt: skip
    finals, logits = [], []
    for word, phonemes in zip(words, reference["phonemes"], strict=True):
        finals.append(encoder(word[:, None]))
        stream = decoder.stream(1)
        stream.state = dict.fromkeys(stream.state, finals[-1])
        token, spoken = 2, []
        while token != 3 and len(spoken) < 20:
            logits.append(stream.step([token]))
            token = int(logits[-1].argmax())
            spoken.append(token)
        assert [p for p in spoken if p != 3] == [p for p in phonemes if p not in (-1, 3)]
    reference.check(np.concatenate(finals), "enc_final")
    reference.check(np.concatenate(logits), "logits")
