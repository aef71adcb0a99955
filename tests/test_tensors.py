"""Every kind of tensor in a file: its numbers, or why it is not read."""

import json
import math
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from helpers import WAYS, assert_close, check_layer, save
from pickles import tensor_pickle, zip_of

import fastrnn
from fastrnn.importers.tensors import FLOAT8, float8_values


@pytest.mark.parametrize("way", WAYS)
def test_a_negated_view_has_its_sign(tmp_path, way):
    torch = pytest.importorskip("torch")
    z = torch.complex(torch.randn(4, 3), torch.randn(4, 3))
    weights = torch.nn.Linear(3, 4, bias=False).state_dict()
    weights["weight"] = z.conj().imag
    weights["twice"] = z.conj().imag.t()
    weights["parameter"] = torch.nn.Parameter(z.conj().imag)
    assert weights["weight"].is_neg()
    found = fastrnn.load_state_dict(save(torch, weights, tmp_path / "a.pt", way))
    for name in ("weight", "twice", "parameter"):
        np.testing.assert_array_equal(found[name], weights[name].detach().resolve_neg().numpy())


@pytest.mark.parametrize("way", WAYS)
def test_tensors_that_numpy_has_not_are_left_out_by_name(tmp_path, way):
    torch = pytest.importorskip("torch")
    z = torch.randn(3, dtype=torch.complex64)
    content = {
        "weight": torch.ones(2, 2), "complex": z, "conjugate": z.conj(), "sparse": torch.eye(2).to_sparse(),
        "meta": torch.empty(2, device="meta"),
    }  # fmt: skip
    found = fastrnn.load_state_dict(save(torch, content, tmp_path / "a.pt", way))
    assert list(found) == ["weight"]
    assert list(found.unread) == ["complex", "conjugate", "sparse", "meta"]
    for name, words in (
        ("complex", "ComplexFloatStorage"),
        ("sparse", "a sparse tensor"),
        ("meta", "without numbers"),
    ):
        assert words in found.unread[name] and words in found.left_out[name].reason
        with pytest.raises(fastrnn.WeightError, match=f"{name} is in the file but was not read: .*{words}"):
            found[name]
    with pytest.raises(KeyError):
        found["nothing"]
    with pytest.raises(fastrnn.WeightError, match="complex is in the file"):
        fastrnn.Linear.from_state_dict(found)


@pytest.mark.parametrize("mark", ("conj", "other"))
def test_an_unknown_flag_of_a_tensor_is_not_passed_over(tmp_path, mark):
    pickled = tensor_pickle().replace(
        b"ccollections\nOrderedDict\n)R",
        b"ccollections\nOrderedDict\n)R}" + pickle.dumps(mark, 2)[2:-1] + b"\x88s",
    )
    (tmp_path / "a").write_bytes(zip_of(pickled, {"0": bytes(16)}))
    with pytest.raises(fastrnn.FormatError, match=f"a tensor with the unknown flag '{mark}'"):
        fastrnn.load_state_dict(tmp_path / "a")


@pytest.mark.parametrize("name", FLOAT8)
def test_float8_is_what_torch_makes_of_it(tmp_path, name):
    torch = pytest.importorskip("torch")
    every = torch.arange(256, dtype=torch.uint8).view(getattr(torch, name))
    wanted = every.float().numpy()
    torch.save({"weight": every.reshape(16, 16)}, tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")["weight"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted.reshape(16, 16))
    code = {"float8_e4m3fn": "F8_E4M3", "float8_e8m0fnu": "F8_E8M0"}.get(
        name, name.replace("float8_", "F8_").upper()
    )
    header = json.dumps({"w": {"dtype": code, "shape": [256], "data_offsets": [0, 256]}}).encode()
    content = struct.pack("<Q", len(header)) + header + bytes(range(256))
    np.testing.assert_array_equal(fastrnn.load_state_dict(content)["w"], wanted)


def test_float8_of_a_few_bytes():
    """Without torch: the smallest and largest values, 1, and what is not a number."""
    table = float8_values("float8_e4m3fn")
    assert [table[b] for b in (0x00, 0x01, 0x38, 0x7E, 0xFE)] == [0, 2.0**-9, 1, 448, -448] and math.isnan(
        table[127]
    )
    table = float8_values("float8_e5m2")
    assert [table[b] for b in (0x01, 0x3C, 0x7B, 0x7C)] == [2.0**-16, 1, 57344, math.inf]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("way", WAYS)
def test_quantised_tensors_are_the_numbers_that_they_stand_for(tmp_path, way):
    torch = pytest.importorskip("torch")
    x = torch.randn(4, 3)
    content = {
        "whole": torch.quantize_per_tensor(x, 0.02, 3, torch.quint8),
        "rows": torch.quantize_per_channel(
            x, torch.tensor([0.1, 0.02, 0.03, 0.4]), torch.tensor([0, 1, 2, -3]), 0, torch.qint8
        ),
        "columns": torch.quantize_per_channel(
            x, torch.tensor([0.1, 0.02, 0.03]), torch.tensor([0, 1, 2]), 1, torch.qint8
        ),
    }
    found = fastrnn.load_state_dict(save(torch, content, tmp_path / "a.pt", way))
    for name, tensor in content.items():
        assert found[name].dtype == np.float32
        assert_close(found[name], tensor.dequantize().numpy(), 1e-6)


def quantised(torch, module, dtype=None):
    kinds = {torch.nn.LSTM, torch.nn.GRU, torch.nn.Linear, torch.nn.LSTMCell, torch.nn.GRUCell}
    return torch.ao.quantization.quantize_dynamic(module, kinds, dtype or torch.qint8)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ("LSTM", "GRU"))
@pytest.mark.parametrize(
    "options", ({}, {"num_layers": 2}, {"bidirectional": True, "num_layers": 2}, {"bidirectional": True})
)
def test_packed_weights_of_dynamic_quantisation_are_read(tmp_path, kind, options):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    rnn = getattr(nn, kind)(3, 4, **options)
    module = nn.Sequential(rnn, nn.Linear(8 if "bidirectional" in options else 4, 2))
    packed = quantised(torch, module)
    torch.save(packed.state_dict(), tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    assert sorted(found) == sorted(module.state_dict()) and not found.unread
    for name, tensor in module.state_dict().items():  # a quantisation step is 1/127 of the largest weight
        assert_close(found[name], tensor.numpy(), 0.51 * 2 * tensor.abs().max().item() / 255 + 1e-6)
    weight, bias = packed[1]._packed_params._weight_bias()
    np.testing.assert_array_equal(found["1.weight"], weight.dequantize().numpy())
    np.testing.assert_array_equal(found["1.bias"], bias.detach().numpy())
    assert (
        repr(fastrnn.load(tmp_path / "a.pt").layers[1])
        == f"Linear({8 if 'bidirectional' in options else 4}, 2)"
    )


@pytest.mark.filterwarnings("ignore")
def test_packed_weights_of_cells_and_halves_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    nn = torch.nn
    for module, dtype in ((nn.LSTMCell(3, 4), torch.qint8), (nn.GRUCell(3, 4), torch.qint8)):
        module = nn.Sequential(module)
        torch.save(quantised(torch, module, dtype).state_dict(), tmp_path / "a.pt")
        found = fastrnn.load_state_dict(tmp_path / "a.pt")
        assert sorted(found) == sorted(module.state_dict())
        for name, tensor in module.state_dict().items():
            assert_close(found[name], tensor.numpy(), 0.005)
    module = nn.Sequential(nn.LSTM(3, 4))
    torch.save(quantised(torch, module, torch.float16).state_dict(), tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    for name, tensor in module.state_dict().items():
        assert_close(found[name], tensor.numpy(), 5e-4)


@pytest.mark.filterwarnings("ignore")
def test_layers_and_directions_of_packed_weights_are_not_guessed(tmp_path):
    """Two packed cells whose input is as wide as their output: two layers, or two directions of one."""
    torch = pytest.importorskip("torch")
    for options in ({"num_layers": 2}, {"bidirectional": True}):
        module = torch.nn.Sequential(torch.nn.LSTM(4, 4, **options))
        torch.save({"state_dict": quantised(torch, module).state_dict()}, tmp_path / "a.pt")
        with pytest.raises(fastrnn.FormatError, match="which may be two layers or two directions"):
            fastrnn.load(tmp_path / "a.pt")


@pytest.mark.parametrize("way", WAYS)
def test_an_expanded_buffer_is_a_value(tmp_path, way):
    torch = pytest.importorskip("torch")
    content = {
        "row": torch.arange(3.0).expand(5, 3), "one": torch.tensor(2.5).expand(4), "weight": torch.ones(2, 2),
        "windows": torch.arange(6.0).unfold(0, 3, 1),
    }  # fmt: skip
    found = fastrnn.load_state_dict(save(torch, content, tmp_path / "a.pt", way))
    for name, tensor in content.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())
        # A write to an element that several indices share would change all of them.
        assert found[name].flags.writeable is (name == "weight")


def test_crc_of_0_is_one_that_was_not_computed(tmp_path):
    torch = pytest.importorskip("torch")
    from torch.utils.serialization import config

    before = config.save.compute_crc32
    try:
        config.save.compute_crc32 = False
        torch.save({"weight": torch.arange(4.0)}, tmp_path / "a.pt")
    finally:
        config.save.compute_crc32 = before
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert {entry.CRC for entry in archive.infolist()} == {0}
    np.testing.assert_array_equal(fastrnn.load_state_dict(tmp_path / "a.pt")["weight"], np.arange(4.0))


def test_a_wrong_crc_costs_that_tensor_alone(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(
        {"good": torch.ones(3), "bad": torch.full((3,), 7.0), "fc.bias": torch.zeros(2)}, tmp_path / "a.pt"
    )
    content = (tmp_path / "a.pt").read_bytes()
    content = content.replace(struct.pack("<3f", 7, 7, 7), struct.pack("<3f", 7, 8, 7))
    found = fastrnn.load_state_dict(content)
    assert list(found) == ["good", "fc.bias"] and "Bad CRC-32" in found.unread["bad"]
    with pytest.raises(fastrnn.WeightError, match=r"bad is in the file but was not read: .*Bad CRC-32"):
        found["bad"]


def test_a_missing_storage_costs_that_tensor_alone(tmp_path, rng):
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(3, 4, num_layers=2)
    state = OrderedDict((name, tensor.clone()) for name, tensor in module.state_dict().items())
    torch.save(state, tmp_path / "a.pt")
    lost = list(state).index("weight_ih_l1")
    with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for entry in old.infolist():
            if not entry.filename.endswith(f"/data/{lost}"):
                new.writestr(entry.filename, old.read(entry))
    found = fastrnn.load_state_dict(tmp_path / "b.pt")
    assert len(found) == 7 and list(found.unread) == ["weight_ih_l1"]
    for make in (lambda: fastrnn.LSTM.from_state_dict(found), lambda: fastrnn.load(tmp_path / "b.pt")):
        with pytest.raises(
            fastrnn.WeightError, match=r"weight_ih_l1 is in the file but was not read: .*an entry 'a/data/"
        ):
            make()


def test_a_module_that_could_not_be_read_is_not_passed_over(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(OrderedDict(rnn=torch.nn.GRU(3, 4), fc=torch.nn.Linear(4, 2)))
    state = module.state_dict()
    for name in ("fc.weight", "fc.bias"):
        state[name] = state[name].to(torch.complex64)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(
        fastrnn.WeightError, match=r"fc.weight is in the file but was not read: a tensor on torch.Complex"
    ):
        fastrnn.load(tmp_path / "a.pt")
    assert fastrnn.GRU.from_state_dict(fastrnn.load_state_dict(tmp_path / "a.pt"), "rnn").hidden_size == 4


def test_a_parameter_that_is_a_list_is_not_passed_over(tmp_path):
    torch = pytest.importorskip("torch")
    state = torch.nn.LSTM(3, 4, num_layers=2).state_dict()
    for name in list(state):
        if name.endswith("_l1"):
            state[name] = state[name].tolist()
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(fastrnn.WeightError, match="weight_ih_l1 is in the file but was not read: list of 16"):
        fastrnn.load(tmp_path / "a.pt")


def test_expanded_buffers_cost_nobody_else_anything(tmp_path, rng):
    """Three of 16 MB each, and one that no memory could hold."""
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(3, 4)
    content = {
        **module.state_dict(),
        **{f"mask{n}": torch.tensor(float(n)).expand(2000, 2000) for n in range(3)},
        "huge": torch.tensor(1.0).expand(10**6, 10**6),
    }
    torch.save(content, tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    assert (
        list(found.unread) == ["huge"] and found["mask2"].shape == (2000, 2000) and found["mask2"][5, 7] == 2
    )
    check_layer(torch, module, {name: found[name] for name in module.state_dict()})


def test_arrays_of_npz_that_are_no_weights_cost_that_array_alone(rng, tmp_path):
    np.savez(
        tmp_path / "a.npz",
        **{
            "rnn.weight_ih_l0": np.ones((3, 2)),
            "rnn.weight_hh_l0": np.ones((3, 1)),
            "vocab": np.array(["a", "b"]),
        },
        objects=np.array([{}], object),
        complex=np.ones(2, complex),
    )
    found = fastrnn.load_state_dict(tmp_path / "a.npz")
    assert list(found) == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    assert list(found.unread) == ["vocab", "objects", "complex"]
    with pytest.raises(fastrnn.WeightError, match=r"objects is in the file but .* Python objects"):
        found["objects"]
    with pytest.raises(fastrnn.WeightError, match="vocab is in the file"):
        found.get("vocab")
    assert found.get("nothing", 5) == 5
