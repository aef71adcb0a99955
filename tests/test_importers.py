"""Good files come out right, files of other kinds are refused by name, and live modules become layers."""

import importlib
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
from pickles import tensor_pickle, zip_of
from safetensors.numpy import save_file

import fastrnn


@pytest.fixture
def files(golden):
    return golden / "files"


@pytest.fixture
def expected(files):
    with np.load(files / "expected_lstm.npz") as file:
        return dict(file)


def assert_same(state_dict, expected):
    assert list(state_dict) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(state_dict[name], array)
        assert state_dict[name].dtype == array.dtype


# ---------------------------------------------------------------- good files


@pytest.mark.parametrize("name", ("lstm_zip.pt", "lstm_legacy.pt", "parallel.pt", "expected_lstm.npz"))
def test_state_dict_comes_out_right(files, expected, name):
    assert_same(fastrnn.load_state_dict(files / name), expected)


def test_safetensors_comes_out_right(tmp_path, expected):
    save_file(expected, tmp_path / "a.bin")
    state_dict = fastrnn.load_state_dict(str(tmp_path / "a.bin"))
    assert state_dict.file_format == "safetensors"
    assert_same({name: state_dict[name] for name in expected}, expected)


@pytest.mark.parametrize("name", ("checkpoint_zip.pt", "checkpoint_legacy.pt"))
def test_checkpoint_tells_what_was_left_out(files, expected, name):
    state_dict = fastrnn.load_state_dict(files / name)
    assert_same(state_dict, expected)
    assert state_dict.key == "model_state_dict"
    left_out = dict(state_dict.left_out)
    assert list(left_out) == ["epoch", "optimizer", "scaler_mean", "kwargs", "history"]
    assert left_out["epoch"] == 7 and left_out["kwargs"] == {"hidden": 4, "name": "x"}
    np.testing.assert_array_equal(left_out["scaler_mean"], np.zeros(3, np.float32))
    np.testing.assert_array_equal(left_out["history"], np.arange(3.0))
    moments = left_out["optimizer"]["state"][0]
    assert moments["step"] == 1 and moments["exp_avg"].shape == (16, 3)
    assert left_out["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)


def test_key_picks_one_of_several(files, expected):
    with pytest.raises(fastrnn.FormatError, match=r'one state_dict, got 2: "a" and "b". Pick one with key='):
        fastrnn.load_state_dict(files / "two_models.pt")
    assert_same(fastrnn.load_state_dict(files / "two_models.pt", key="a"), expected)
    with pytest.raises(fastrnn.FormatError, match=r"the key 'c', got only \"a\" and \"b\""):
        fastrnn.load_state_dict(files / "two_models.pt", key="c")
    with pytest.raises(fastrnn.FormatError, match=r'a state_dict at "a.weight_ih_l0"'):
        fastrnn.load_state_dict(files / "two_models.pt", key="a.weight_ih_l0")


@pytest.mark.parametrize("name", ("odd_tensors_zip.pt", "odd_tensors_legacy.pt"))
def test_odd_tensors_come_out_right(files, name):
    found = fastrnn.load_state_dict(files / name)
    base = np.arange(24, dtype=np.float32)
    wanted = {
        "transposed": base.reshape(4, 6).T,
        "offset": base[5:9],
        "strided": base[1::3],
        "shared": base,
        "scalar": np.float32(2.5),
        "empty": np.zeros((0, 3), np.float32),
        "bfloat16": np.array([1.0, -2.5, np.ldexp(226 / 128, 127)], np.float32),
        "float16": np.array([0.5, -2.0], np.float16),
        "int64": np.array([2**40, -1]),
        "bool": np.array([True, False]),
        "parameter": np.ones(2, np.float32),
    }
    assert list(found) == list(wanted)
    for key, array in wanted.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype and found[key].shape == array.shape
    assert np.shares_memory(found["shared"], found["transposed"])


def test_bfloat16_of_safetensors_arrives_as_float32(tmp_path):
    header = json.dumps({"w": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}).encode()
    body = struct.pack("<HH", 0x3F80, 0xC020)
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + body)
    found = fastrnn.load_state_dict(tmp_path / "a")
    np.testing.assert_array_equal(found["w"], np.array([1.0, -2.5], np.float32))


def test_arrays_can_be_written(files):
    for name in ("lstm_zip.pt", "lstm_legacy.pt", "expected_lstm.npz"):
        for array in fastrnn.load_state_dict(files / name).values():
            array[...] = 0


def test_file_is_told_by_its_content(files, tmp_path, expected):
    for name in ("lstm_zip.pt", "lstm_legacy.pt", "expected_lstm.npz"):
        copy = tmp_path / "weights.tar"
        copy.write_bytes((files / name).read_bytes())
        assert_same(fastrnn.load_state_dict(copy), expected)


def test_cuda_storages_are_plain_data(tmp_path):
    pickled = tensor_pickle().replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert b"cuda:0" in pickled
    (tmp_path / "a").write_bytes(zip_of(pickled, {"0": bytes(16)}))
    assert fastrnn.load_state_dict(tmp_path / "a")["weight"].shape == (2, 2)


def test_header_size_of_safetensors_may_be_any(tmp_path):
    """A header of 123 bytes makes the file begin with "{", as JSON does."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(123)
    (tmp_path / "a").write_bytes(struct.pack("<Q", 123) + header + bytes(4))
    assert fastrnn.load_state_dict(tmp_path / "a")["w"].shape == (1,)


def test_key_must_be_text(files):
    with pytest.raises(TypeError, match="key to be a str, got 5"):
        fastrnn.load_state_dict(files / "lstm_zip.pt", key=5)


# ---------------------------------------------------------------- other kinds, refused by name


@pytest.mark.parametrize(
    "content, words",
    (
        (b"", "an empty file"),
        (b'{"a": [1, 2]}', "a JSON file"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.3.1", "an ONNX model"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"a" * 257 + b"ustar\x0000" + bytes(300), "a tar archive"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(50), "a TensorFlow Lite file"),
        (b"GGUF" + bytes(50), "a GGUF file"),
        (b"\x93NUMPY\x01\x00" + bytes(50), "a single NumPy array"),
        (pickle.dumps({"a": 1}), "a bare pickle"),
        (b"hello, this is some text", "a file of no known kind"),
    ),
)
def test_other_kinds_are_refused_by_name(tmp_path, content, words):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(fastrnn.FormatError, match=rf"expected a state_dict as .*, got {words}"):
        fastrnn.load_state_dict(tmp_path / "file")


@pytest.mark.parametrize(
    "entry, words",
    (
        ("m/code/__torch__.py", "a TorchScript archive"),
        ("model.weights.h5", "a Keras file"),
        ("m/models/model.json", "a torch.export archive"),
        ("readme.txt", "a zip of 1 other entries"),
    ),
)
def test_other_archives_are_refused_by_name(tmp_path, entry, words):
    with zipfile.ZipFile(tmp_path / "file", "w") as archive:
        archive.writestr(entry, "x")
    with pytest.raises(fastrnn.FormatError, match=words):
        fastrnn.load_state_dict(tmp_path / "file")


def test_whole_module_is_refused_with_what_to_do(files):
    with pytest.raises(fastrnn.FormatError) as caught:
        fastrnn.load_state_dict(files / "whole_module.pt")
    assert "a whole pickled module or object (__main__.Tagger)" in str(caught.value)
    assert "torch.save(torch.load(path, weights_only=False).state_dict()" in str(caught.value)


def test_missing_file_is_a_plain_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        fastrnn.load_state_dict(tmp_path / "nothing.pt")
    with pytest.raises(fastrnn.FormatError, match=r"a folder with one file of weights, .* got an empty one"):
        fastrnn.load_state_dict(tmp_path)


# ---------------------------------------------------------------- live modules


def test_from_torch_takes_every_supported_module():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    x = torch.randn(4, 3, 6).double()
    modules = (
        nn.Linear(6, 2), nn.Linear(6, 2, bias=False), nn.LayerNorm(6, eps=1e-2),
        nn.LayerNorm(6, elementwise_affine=False), nn.Dropout(0.3), nn.ReLU(), nn.Tanh(), nn.Sigmoid(),
        nn.Softmax(dim=-1), nn.LogSoftmax(dim=2), nn.Identity(),
        nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Sequential(nn.Linear(4, 2), nn.Softmax(-1))),
    )  # fmt: skip
    for module in modules:
        module = module.double().eval()
        converted = fastrnn.from_torch(module, precision="float64")
        y = converted(x.numpy())
        y = y[0] if isinstance(module, nn.Sequential) else y
        np.testing.assert_allclose(y, module(x).detach().numpy(), rtol=0, atol=1e-12)
    embedding = nn.Embedding(9, 4)
    tokens = torch.randint(9, (5, 2))
    np.testing.assert_array_equal(
        fastrnn.from_torch(embedding)(tokens.numpy()), embedding(tokens).detach().numpy()
    )


def test_from_torch_takes_cells_and_layers():
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    x = torch.randn(3, 5).double()
    for name in ("RNNCell", "GRUCell", "LSTMCell"):
        options = {"nonlinearity": "relu"} if name == "RNNCell" else {}
        cell = getattr(nn, name)(5, 4, **options).double()
        wanted, got = cell(x), fastrnn.from_torch(cell)(x.numpy())
        for one, other in zip(got, wanted, strict=True):
            np.testing.assert_allclose(one, other.detach().numpy(), rtol=0, atol=1e-13)
    layer = fastrnn.from_torch(nn.GRU(5, 4, batch_first=True).double(), backend="blas")
    assert layer.batch_first and layer.precision == "float64"
    assert fastrnn.from_torch(nn.LSTM(5, 4)).precision == "float32"


def test_from_torch_refuses_what_it_cannot_make():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Own(nn.LSTM):
        pass

    for module in (nn.Conv1d(1, 1, 1), Own(2, 2), nn.Sequential(nn.PReLU()), nn.LSTM, object(), "lstm"):
        with pytest.raises(TypeError, match=r"from_torch: expected a torch.nn module \(RNN, GRU, LSTM"):
            fastrnn.from_torch(module)
    for module, words in (
        (nn.Softmax(), "dim=None"),
        (nn.Embedding(3, 2, max_norm=1.0), "without max_norm"),
        (nn.LayerNorm((2, 3)), "over the last axis"),
    ):
        with pytest.raises(ValueError, match=words):
            fastrnn.from_torch(module)


@pytest.mark.filterwarnings("ignore")
def test_from_torch_checks_classes_before_it_reads():
    """The state dict of a quantised module, or of one with extra state, holds more than tensors."""
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

        def set_extra_state(self, state):
            pass

    packed = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.LSTM(3, 4)), {nn.LSTM})
    for module in (packed, packed[0], Extra(3, 4), nn.Sequential(nn.Tanh(), Extra(3, 4))):
        with pytest.raises(TypeError, match=r"expected a torch.nn module \(RNN, GRU, LSTM"):
            fastrnn.from_torch(module)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_from_torch_takes_parametrized_modules():
    torch = pytest.importorskip("torch")
    prune = importlib.import_module("torch.nn.utils.prune")
    torch.manual_seed(0)
    nn, utils = torch.nn, torch.nn.utils
    modules = [nn.RNN(3, 4), nn.GRU(3, 4), nn.LSTM(3, 4), nn.Linear(3, 4), nn.GRU(3, 4)]
    utils.parametrizations.orthogonal(modules[0], "weight_hh_l0")
    utils.parametrizations.spectral_norm(modules[1], "weight_hh_l0")
    utils.weight_norm(modules[2], "weight_ih_l0")
    prune.random_unstructured(modules[3], "weight", 0.5)
    utils.parametrize.register_parametrization(modules[4], "bias_ih_l0", nn.Tanh())
    x = torch.randn(5, 2, 3)
    for module in modules:
        if hasattr(module, "parametrizations"):
            with pytest.raises(ValueError, match=r"a module in eval\(\), got a parametrized one in training"):
                fastrnn.from_torch(module)
        module.eval()
        with torch.no_grad():
            wanted = module(x)
        y = fastrnn.from_torch(module)(x.numpy())
        wanted, y = (part[0] if isinstance(part, tuple) else part for part in (wanted, y))
        np.testing.assert_allclose(y, wanted.numpy(), rtol=0, atol=1e-6)


def test_from_torch_refuses_what_changes_a_forward():
    torch = pytest.importorskip("torch")
    hooked, own = torch.nn.Linear(3, 4), torch.nn.Linear(3, 4)
    inner = torch.nn.Sequential(torch.nn.ReLU())
    hooked.register_forward_hook(lambda module, x, y: 2 * y)
    inner[0].register_forward_pre_hook(lambda module, x: (-x[0],))
    own.forward = lambda x: x
    for module, words in ((hooked, "a hook"), (inner, "a hook"), (own, "a forward")):
        with pytest.raises(ValueError, match=f"a plain .*, got one with {words} of its own"):
            fastrnn.from_torch(module)


def test_state_dicts_of_live_tensors_are_taken():
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(3, 4)
    plain = fastrnn.LSTM.from_state_dict(module.state_dict())
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(
        plain(x)[0], fastrnn.LSTM.from_state_dict(dict(module.named_parameters()))(x)[0]
    )
    half = fastrnn.LSTM.from_state_dict(module.bfloat16().state_dict())
    np.testing.assert_allclose(half(x)[0], plain(x)[0], atol=1e-2)


def test_legacy_whole_module_is_refused(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.LSTM(2, 3), tmp_path / "a", _use_new_zipfile_serialization=False)
    with pytest.raises(
        fastrnn.FormatError, match=r"whole pickled module or object \(torch.nn.modules.rnn.LSTM\)"
    ):
        fastrnn.load_state_dict(tmp_path / "a")
