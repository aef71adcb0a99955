"""Files with which people reported trouble. Each test names the report or says what the file is like.

If a report is about another library, the file is made here as that library makes it.
"""

import argparse
import pickle
import struct
import zipfile
from collections import OrderedDict, UserDict

import numpy as np
import pytest
from helpers import check_layer, random_spec, random_tensors, save
from pickles import legacy_of, tensor_pickle, zip_of
from safetensors.numpy import save_file

import fastrnn
from fastrnn.importers.torch_file import LEGACY_MAGIC


def load_both(content, tmp_path):
    (tmp_path / "a").write_bytes(content)
    return fastrnn.load_state_dict(tmp_path / "a")


def test_names_of_one_tensor_are_found_in_the_metadata(tmp_path, rng):
    """safetensors.torch.save_model writes tied weights once, and the other names as metadata
    (huggingface/transformers#38870, keras-team/keras-hub#3075)."""
    arrays = {f"rnn.{k}": v for k, v in random_tensors(rng, random_spec("lstm", 8, 8), np.float32).items()}
    arrays["decoder.bias"] = rng.standard_normal(20).astype(np.float32)
    arrays["decoder.weight"] = rng.standard_normal((20, 8)).astype(np.float32)
    save_file(arrays, tmp_path / "a", {"format": "pt", "embedding.weight": "decoder.weight"})
    found = fastrnn.load_state_dict(tmp_path / "a")
    np.testing.assert_array_equal(found["embedding.weight"], arrays["decoder.weight"])
    assert "format" not in found
    assert repr(fastrnn.load(tmp_path / "a")) == "Sequential(Embedding(20, 8), LSTM(8, 8), Linear(8, 20))"


def test_a_pickled_module_beside_a_state_dict_is_not_passed_over(tmp_path):
    """{"model": Module, "ema": state_dict}: the module is the model (tracel-ai/burn#5766)."""
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(2, 3)
    torch.save({"model": module, "ema": module.state_dict()}, tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    assert found.key == "ema" and found.others == ("model",) and "LSTM" in found.left_out["model"].name
    with pytest.raises(
        fastrnn.WeightError, match=r'one model, got "ema" and "model". key="ema" loads the first'
    ):
        fastrnn.load(tmp_path / "a.pt")


def test_one_state_dict_for_each_module_is_not_half_a_model(tmp_path):
    """{"encoder": ..., "classifier": ...} (pytorch/tutorials#939)."""
    torch = pytest.importorskip("torch")
    parts = {"encoder": torch.nn.GRU(2, 3), "classifier": torch.nn.Linear(3, 2)}
    torch.save({name: module.state_dict() for name, module in parts.items()}, tmp_path / "a.pt")
    with pytest.raises(fastrnn.WeightError, match='got "encoder" and "classifier"'):
        fastrnn.load(tmp_path / "a.pt")
    heads = fastrnn.load_state_dict(tmp_path / "a.pt", key="classifier")
    assert fastrnn.Linear.from_state_dict(heads).out_features == 2


def test_the_one_with_the_recurrent_module_is_the_model(tmp_path):
    """A usual name may hold something else: {"params": class weights, "policy": net}."""
    torch = pytest.importorskip("torch")
    content = {"params": {"class_weight": torch.ones(3)}, "policy": torch.nn.GRU(2, 3).state_dict()}
    torch.save(content, tmp_path / "a.pt")
    assert fastrnn.load_state_dict(tmp_path / "a.pt").key == "policy"
    assert len(fastrnn.load(tmp_path / "a.pt").layers) == 1


def test_modules_of_the_same_names_are_one_model_only_with_the_same_shapes(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = torch.nn.GRU(3, 8).state_dict()
    copy = {name: tensor + 1 for name, tensor in tensors.items()}
    state_dict = fastrnn.load_state_dict(save(torch, {"model": tensors, "teacher": copy}, tmp_path / "a.pt"))
    assert not state_dict.others
    path = save(torch, {"model": tensors, "decoder": torch.nn.GRU(8, 5).state_dict()}, tmp_path / "b.pt")
    assert fastrnn.load_state_dict(path).others == ("decoder",)
    with pytest.raises(fastrnn.WeightError, match="a file with one model"):
        fastrnn.load(path)


def test_metrics_and_callbacks_are_no_second_model(tmp_path):
    """Lightning keeps tensors in the states of its callbacks."""
    torch = pytest.importorskip("torch")
    content = {
        "state_dict": torch.nn.GRU(2, 3).state_dict(),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [torch.optim.Adam([torch.nn.Parameter(torch.ones(2))]).state_dict()],
        "hyper_parameters": {"hidden": 3},
    }
    torch.save(content, tmp_path / "a.pt")
    assert len(fastrnn.load(tmp_path / "a.pt").layers) == 1


@pytest.mark.parametrize("dtype", ("int8", "uint8", "bool", "int16"))
def test_whole_numbers_are_no_weights(rng, tmp_path, dtype):
    """int8 weights whose scale is elsewhere (pytorch/pytorch#31468)."""
    tensors = random_tensors(rng, random_spec("gru", 3, 4), np.float32)
    tensors["weight_hh_l0"] = (tensors["weight_hh_l0"] * 100).astype(dtype)
    np.savez(tmp_path / "a.npz", **tensors)
    with pytest.raises(
        fastrnn.WeightError, match=f"weight_hh_l0 to be floats, got {dtype}. Quantised weights"
    ):
        fastrnn.load(tmp_path / "a.npz")
    with pytest.raises(fastrnn.WeightError, match="weight to be floats"):
        fastrnn.Linear.from_state_dict({"weight": np.ones((2, 3), dtype)})


def test_two_archives_in_one_file_are_refused(tmp_path):
    """Two torch.save into one file: torch reads the first, zip readers the last (pytorch/pytorch#45136)."""
    one, two = (zip_of(tensor_pickle(), {"0": np.full(4, n, np.float32).tobytes()}) for n in (1, 2))
    with pytest.raises(fastrnn.FormatError, match=r"an archive at the beginning of the file.*Several files"):
        load_both(one + two, tmp_path)


@pytest.mark.parametrize("protocol", (1, 2, 3, 4, 5))
@pytest.mark.parametrize("way", ("zip", "legacy"))
def test_every_protocol_of_pickles_is_read(tmp_path, protocol, way):
    """Other readers know only protocol 2 (tracel-ai/burn#3605)."""
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(2, 3)
    options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": way == "zip"}
    torch.save({"model": module.state_dict(), "epoch": 3}, tmp_path / "a.pt", **options)
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    check_layer(torch, module, found)
    assert found.left_out["epoch"] == 3


def test_a_legacy_file_of_another_machine_is_little_endian_all_the_same(tmp_path):
    """torch swaps the bytes when it writes one (pytorch/pytorch#26383)."""
    system = {"protocol_version": 1001, "little_endian": False, "type_sizes": {}}
    head = b"".join(pickle.dumps(part, protocol=2) for part in (LEGACY_MAGIC, 1001, system))
    data = np.arange(4, dtype="<f4").tobytes()
    content = head + tensor_pickle() + pickle.dumps(["0"], protocol=2) + struct.pack("<q", 4) + data
    np.testing.assert_array_equal(load_both(content, tmp_path)["weight"], [[0, 1], [2, 3]])


def test_storages_that_are_parts_of_others_are_read(tmp_path):
    """In files of torch 0.1 a storage may have the key of a part, its offset and its count."""
    whole = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04"
    pickled = tensor_pickle(size=(2,), stride=(1,), count=4)
    place = pickled.index(b"(X\x07")
    end = pickled.index(b"tQ", place)
    pickled = pickled[:place] + whole + b"(X\x01\0\0\0vK\x01K\x02t" + pickled[end:]
    data = np.arange(4, dtype=np.float32).tobytes()
    found = load_both(legacy_of(pickled, ["0"], struct.pack("<q", 4) + data), tmp_path)
    np.testing.assert_array_equal(found["weight"], [1, 2])
    for part in (b"K\x03K\x02", b"K\x01K\x04", b"J\xff\xff\xff\xffK\x01"):
        bad = pickled.replace(b"K\x01K\x02t", part + b"t")
        with pytest.raises(fastrnn.FormatError, match="the part tuple of a storage"):
            load_both(legacy_of(bad, ["0"], struct.pack("<q", 4) + data), tmp_path)


class Settings(dict):
    """A dict with attributes, as addict, easydict and omegaconf have it."""

    def __getattr__(self, name):
        return self[name]


@pytest.mark.parametrize(
    "wrap",
    (
        lambda sd: Settings(model=Settings(sd)),
        lambda sd: argparse.Namespace(model=sd, lr=0.1),
        lambda sd: UserDict(model=sd),
        lambda sd: {"agent": {"nets": {"actor": {"core": {"rnn": sd}}}}},
        lambda sd: [{"step": 1}, {"model": sd}],
        lambda sd: list(sd.items()),
        lambda sd: {"weights": list(sd.items())},
        lambda sd: {name: tensor.numpy() for name, tensor in sd.items()},
        lambda sd: {"params": {name: tensor.numpy() for name, tensor in sd.items()}},
    ),
)
def test_other_kinds_of_dicts_are_looked_into(tmp_path, wrap):
    """huggingface/candle#1696 and the like."""
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(2, 3)
    torch.save(wrap(module.state_dict()), tmp_path / "a.pt")
    check_layer(torch, module, fastrnn.load_state_dict(tmp_path / "a.pt"))


def test_a_method_that_was_not_called_is_named(tmp_path):
    """torch.save(model.state_dict) without the parentheses (trushkin-ilya/face-anti-spoofer#13)."""
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.GRU(2, 3).state_dict, tmp_path / "a.pt")
    with pytest.raises(fastrnn.FormatError, match=r"model.state_dict, which was not called. Call it"):
        fastrnn.load(tmp_path / "a.pt")


def test_counters_of_operations_are_no_weights(tmp_path):
    """thop's total_ops and total_params (Lyken17/pytorch-OpCounter#82)."""
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(2, 3)
    module.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
    module.register_buffer("total_params", torch.zeros(1, dtype=torch.float64))
    torch.save(module.state_dict(), tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    assert set(found.left_out) == {"total_ops", "total_params"}
    check_layer(torch, module, found)


def test_a_large_vocabulary_beside_the_weights_is_read(tmp_path):
    """600,000 words and their indices (OpenNMT/OpenNMT-py#2030)."""
    torch = pytest.importorskip("torch")
    words = [f"w{index}" for index in range(600_000)]
    content = {
        "model": torch.nn.GRU(2, 3).state_dict(),
        "itos": words,
        "stoi": {w: i for i, w in enumerate(words)},
    }
    torch.save(content, tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    assert found.left_out["itos"][-1] == "w599999" and found.left_out["stoi"]["w599999"] == 599_999


def test_parameters_whose_numbers_lie_elsewhere_are_named(tmp_path):
    """DeepSpeed's ZeRO stage 3 leaves empty ones (deepspeedai/DeepSpeed#7501)."""
    torch = pytest.importorskip("torch")
    state = OrderedDict(torch.nn.GRU(2, 3).state_dict())
    state["fc.weight"] = torch.empty(0)
    torch.save(state, tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    assert "fc.weight" in found.unread and len(found) == 4
    with pytest.raises(
        fastrnn.WeightError, match=r"fc.weight is in the file but was not read: it has no numbers"
    ):
        fastrnn.load(tmp_path / "a.pt")


def test_a_number_left_out_of_a_sequential_is_a_doubt(rng, tmp_path):
    """nn.Sequential numbers its modules. Between "0" and "2" there is a module without weights."""
    tensors = random_tensors(rng, random_spec("gru", 3, 4))
    head = {"weight": rng.standard_normal((2, 4)), "bias": np.zeros(2)}
    for path, words in (("2", '"1"'), ("3", '"1"'), ("0.1", '"0.0"'), ("fc.1", '"fc.0"')):
        first = "0." if path in "23" else "rnn."
        arrays = {first + k: v for k, v in tensors.items()} | {f"{path}.{k}": v for k, v in head.items()}
        np.savez(tmp_path / "a.npz", **arrays)
        with pytest.raises(fastrnn.WeightError, match=f"no weights of {words}, which may be an activation"):
            fastrnn.load(tmp_path / "a.npz")
    for paths in (("0", "1"), ("rnn1", "fc3"), ("rnn", "fc.0")):
        arrays = {f"{paths[0]}.{k}": v for k, v in tensors.items()} | {
            f"{paths[1]}.{k}": v for k, v in head.items()
        }
        np.savez(tmp_path / "a.npz", **arrays)
        assert len(fastrnn.load(tmp_path / "a.npz").layers) == 2


@pytest.mark.parametrize(
    "path, shape, wanted",
    (
        ("encoder", (20, 3), "Embedding(20, 3)"),  # fits nowhere else
        ("lookup", (20, 3), "Embedding(20, 3)"),
        ("embed", (20, 3), "Embedding(20, 3)"),
        ("embed", (3, 5), "beside the recurrent module"),  # a Linear with this name
        ("emb", (3, 3), "may be an Embedding or a Linear"),
        ("decoder", (20, 4), "Linear(4, 20, bias=False)"),
        ("decoder", (3, 4), "which fits before"),
    ),
)
def test_a_matrix_without_bias_is_told_by_what_fits(rng, tmp_path, path, shape, wanted):
    tensors = {f"rnn.{k}": v for k, v in random_tensors(rng, random_spec("gru", 3, 4)).items()}
    np.savez(tmp_path / "a.npz", **tensors, **{f"{path}.weight": np.ones(shape)})
    if "(" in wanted:
        assert wanted in repr(fastrnn.load(tmp_path / "a.npz"))
    else:
        with pytest.raises(fastrnn.WeightError, match=wanted):
            fastrnn.load(tmp_path / "a.npz")


def test_an_archive_that_was_packed_again_without_its_folder_is_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a", "w") as archive:
        archive.writestr("data.pkl", tensor_pickle())
        archive.writestr("data/0", np.arange(4, dtype=np.float32).tobytes())
    np.testing.assert_array_equal(fastrnn.load_state_dict(tmp_path / "a")["weight"], [[0, 1], [2, 3]])
