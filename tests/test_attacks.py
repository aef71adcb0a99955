"""Small files that cost much, mislead the reader of a message, or hide a part of a model.

Files whose single numbers or opcodes are wrong are in test_hostile_files.
"""

import json
import struct
import zipfile

import numpy as np
import pytest
from helpers import save
from pickles import (
    array,
    call,
    dict_of,
    keep,
    kept,
    legacy_of,
    list_of,
    name,
    number,
    quantised,
    tensor,
    tuple_of,
    whole,
    zip_of,
)
from safetensors.numpy import save as save_bytes

import fastrnn
from fastrnn.importers.state_dict import StandIn

ONE = np.ones((1, 1), np.float32)
CONTENT = {"0": bytes(64)}


def load(*parts, storages=CONTENT, **options):
    return fastrnn.load_state_dict(zip_of(whole(*parts), storages, **options))


# ---------------------------------------------------------------- storages and arrays of other kinds


@pytest.mark.parametrize("count", (1, 100_000))
def test_a_storage_of_two_sizes_is_refused(count):
    other = tensor((1,), count=1, kind="ComplexFloatStorage")
    pickled = whole(dict_of({"weight": tensor((count,), count=count), "z": other}))
    data = legacy_of(pickled, ["0"], struct.pack("<q", 1) + bytes(8))
    with pytest.raises(fastrnn.FormatError, match="the storage '0' of two kinds or sizes"):
        fastrnn.load_state_dict(data)


@pytest.mark.parametrize("unit", (b"s/0", b"s/7", b"\xff\n", b"Y/1000000007", b"generic", b""))
def test_units_of_dates_are_those_of_numpy(unit):
    state_dict = load(dict_of({"weight": tensor(), "when": array("M8", (1,), bytes(8), unit)}))
    assert "when" in state_dict.left_out
    value = state_dict.left_out["when"]
    assert not isinstance(value, np.ndarray) or np.datetime_data(value.dtype)[1] == 1


@pytest.mark.parametrize("dtype", ("U4", "S4", "c8", "M8", "V4"))
def test_arrays_of_other_things_than_numbers_are_no_weights(dtype):
    size = int(dtype[1:]) * (4 if dtype[0] == "U" else 1)
    bias = array(dtype, (1,), bytes(size), b"s" if dtype == "M8" else b"")
    state_dict = load(dict_of({"weight": tensor(), "bias": bias}))
    assert list(state_dict) == ["weight"] and list(state_dict.unread) == ["bias"]


# ---------------------------------------------------------------- work and memory that a small file causes


def test_scales_that_are_quantised_themselves_are_not_followed():
    parts = [quantised(tuple_of(name("torch", "per_tensor_affine"), number(1.0), number(0))), keep(0)]
    for place in range(60):
        scheme = tuple_of(name("torch", "per_channel_affine"), kept(place), kept(place), number(0))
        parts += [quantised(scheme), keep(place + 1)]
    with pytest.raises(fastrnn.FormatError, match=r"a tensor quantised by torch\.per_channel_affine"):
        load(*parts, dict_of({"weight": kept(60)}))


def test_places_with_dots_are_looked_for_once():
    itself = b"".join(number(key) + kept(1) for key in ("a", "a.a"))
    inner = b"}r" + struct.pack("<I", 1) + b"(" + itself + b"u0"
    model = dict_of({"weight_ih_l0": tensor()})
    long = ".".join(["a"] * 60 + ["z"])
    with pytest.raises(fastrnn.FormatError, match="one state_dict, got 2"):
        beside = dict_of({long: model, "y": dict_of({"m": model}), "z": kept(1)})
        load(inner, dict_of({"x": beside, "x.a": kept(1)}))


def test_a_state_that_many_objects_share_is_read_once():
    shared = dict_of({f"k{i}": number(1) for i in range(2000)})
    objects = {f"s{i}": kept(2) + b")\x81" + kept(1) + b"b" for i in range(2000)}
    model = dict_of({"weight": tensor()})
    state_dict = load(shared, keep(1), name("x", "Y"), keep(2), dict_of({**objects, "model": model}))
    first, last = state_dict.left_out["s0"], state_dict.left_out["s999"]
    assert first.state is last.state and len(first.state) == 2000


SHARED = {
    "list": list_of,
    "tuple": tuple_of,
    "frozenset": lambda *parts: b"(" + b"".join(parts) + b"\x91",
    "call": lambda *parts: call(name("x", "Y"), *parts),
    "state": lambda *parts: name("x", "Y") + b")R" + tuple_of(*parts) + b"b",
}


@pytest.mark.parametrize("kind", SHARED)
def test_lists_of_lists_of_one_list_end(kind, run, tmp_path):
    """Each of 60 lists holds the one before twice: 2^60 items for a reader that visits each."""
    parts = [b"]", keep(0)]
    for place in range(60):
        parts += [SHARED[kind](kept(place), kept(place)), keep(place + 1)]
    pickled = whole(*parts, dict_of({"model": dict_of({"weight": tensor()}), "o": kept(60)}))
    data = zip_of(pickled, CONTENT)
    state_dict = fastrnn.load_state_dict(data)
    assert len(repr(state_dict)) < 10_000 and state_dict.left_out["o"] is not None
    (tmp_path / "a.pt").write_bytes(data)
    for options in ((), ("--json",)):
        status, out, _ = run("info", tmp_path / "a.pt", *options)
        assert status == 0 and len(out) < 100_000


@pytest.mark.parametrize("kind", ("tuple", "list", "call"))
def test_deep_values_are_cut(kind):
    parts = [b"]", keep(0)]
    for place in range(3000):
        parts += [SHARED[kind](kept(place)), keep(place + 1)]
    state_dict = load(*parts, dict_of({"weight": tensor(), "o": kept(3000)}))
    value = state_dict.left_out["o"]
    depth = 0
    while items := value.arguments if isinstance(value, StandIn) else value:
        value = items[0]
        depth += 1
    assert 30 < depth <= 65


def test_numbers_of_many_digits_are_no_shape():
    digits = b",".join([b"9" * 4200] * 400)
    header = b'{"a":{"dtype":"F32","data_offsets":[0,0],"shape":[' + digits + b"]}}"
    with pytest.raises(fastrnn.FormatError, match="a damaged one") as error:
        fastrnn.load_state_dict(struct.pack("<Q", len(header)) + header)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize("size", ((0, 5), (2**40, 0), (2**28, 0)))
@pytest.mark.parametrize("ends", (("_g", "_v"), ("_orig", "_u", "_v"), ("_orig", "_mask")))
def test_parts_without_numbers_are_no_weight(size, ends):
    parts = {f"weight{end}": tensor(size, (1, 1), 0, key="1") for end in ends}
    state_dict = load(dict_of({"bias": tensor(), **parts}), storages={**CONTENT, "1": b""})
    with pytest.raises(fastrnn.WeightError, match="weight"):
        fastrnn.Linear.from_state_dict(state_dict)


def test_parts_of_a_widened_storage_are_widened_once():
    count = 2**20
    kind = name("torch", "BFloat16Storage")
    whole_storage = (number("storage"), kind, number("0"), number("cpu"), number(count))
    function = name("torch._utils", "_rebuild_tensor")

    def part(i):
        view = tuple_of(number(f"v{i}"), number(0), number(count))
        held = tuple_of(*whole_storage, view) + b"Q"
        return call(function, held, number(i), tuple_of(number(4)), tuple_of(number(1)))

    pickled = dict_of({f"w{i}": part(i) for i in range(60)})
    state_dict = load(pickled, storages={"0": bytes(2 * count)}, compression=zipfile.ZIP_DEFLATED)
    assert len(state_dict) == 60
    assert all(np.shares_memory(state_dict["w0"][1:], state_dict[f"w{i}"]) for i in (1, 2, 3))


def test_texts_that_are_encoded_again_and_again_are_refused():
    text = number("\u0100" * 60_000)
    encode = call(name("_codecs", "encode"), kept(1), number("utf-8"))
    parts = (text, keep(1), dict_of({"weight": tensor(), "o": list_of(*[encode] * 2000)}))
    with pytest.raises(fastrnn.FormatError, match="texts that are reused a few times"):
        load(*parts)


def test_files_of_thousands_of_modules_are_answered():
    count = 3000
    modules = {f"m{i}.weight_{part}_l0": ONE for i in range(count) for part in ("ih", "hh")}
    with pytest.raises(fastrnn.WeightError, match="got 3000 recurrent modules") as error:
        fastrnn.load(save_bytes(modules))
    assert len(str(error.value)) < 10_000
    layer = {"rnn.weight_ih_l0": np.ones((4, 1), np.float32), "rnn.weight_hh_l0": np.ones((4, 1), np.float32)}
    matrices = {f"m{i}.weight": ONE for i in range(count)}
    with pytest.raises(fastrnn.WeightError):
        fastrnn.load(save_bytes({**layer, **matrices}))


def test_a_name_of_a_great_many_wrappers_is_a_name():
    long = "module." * 5000
    state_dict = load(dict_of({f"{long}w{i}": tensor() for i in range(20)}))
    assert list(state_dict) == [f"w{i}" for i in range(20)]


# ---------------------------------------------------------------- names in messages


def test_digits_of_names_are_those_of_ascii(stack, tmp_path):
    """Python takes digits of other scripts for numbers too."""
    for digit in ("\uff11", "\u0661", "\u00b9"):
        renamed = {name.replace("_l1", f"_l{digit}"): array for name, array in stack.items()}
        with pytest.raises(fastrnn.WeightError, match="is not one of its keys"):
            fastrnn.LSTM.from_state_dict(renamed)
        np.savez(tmp_path / "a.npz", **{f"{digit}.{name}": array for name, array in stack.items()})
        assert repr(fastrnn.load(tmp_path / "a.npz")) == "Sequential(LSTM(3, 4, num_layers=2))"
        np.savez(tmp_path / f"w-0000{digit}-of-00002.npz", **stack)
        fastrnn.load(tmp_path / f"w-0000{digit}-of-00002.npz")  # no part of a model


def test_names_do_not_make_lines():
    """No name from a file begins a line of a message, which could pass for the program's own words."""
    tensors = {f"a\nb: fine{end}": ONE for end in (".weight_ih_l0", ".weight_hh_l0")}
    with pytest.raises(fastrnn.WeightError, match="fits before") as error:
        fastrnn.load(save_bytes({**tensors, "x\r\ny.weight": ONE}))
    assert not any(line.strip().startswith(("b: fine", "y")) for line in str(error.value).splitlines())
    with pytest.raises(fastrnn.WeightError) as error:
        fastrnn.LSTM.from_state_dict({f"a\nb.{key}": ONE for key in ("weight", "bias")}, "rnn")
    assert "\n" not in str(error.value)


def test_a_path_with_a_nul_is_an_os_error():
    for function in (fastrnn.load_state_dict, fastrnn.load):
        with pytest.raises(OSError, match="Not a valid file name"):
            function("a\0b.pt")


# ---------------------------------------------------------------- what a file hides


def test_one_part_of_two_is_not_the_model(stack, tmp_path):
    names = list(stack)
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(save_bytes({n: stack[n] for n in names[:4]}))
    place = "model-00001-of-00002.safetensors"
    index = {"metadata": {}, "weight_map": {n: place for n in names[:4]}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(fastrnn.FormatError, match="an index of 2 files, got one of 1"):
        fastrnn.load_state_dict(tmp_path / "model.safetensors.index.json")


def test_a_fold_of_a_cross_validation_is_no_part(stack, tmp_path):
    path = tmp_path / "fold-1-of-5.safetensors"
    path.write_bytes(save_bytes(stack))
    assert len(fastrnn.load_state_dict(path)) == len(stack)


def test_a_folder_of_two_modules_is_not_one_model(stack, tmp_path):
    (tmp_path / "lstm.safetensors").write_bytes(save_bytes(stack))
    fc = {"weight": np.ones((2, 4), np.float32), "bias": np.ones(2, np.float32)}
    (tmp_path / "fc.safetensors").write_bytes(save_bytes(fc))
    with pytest.raises(fastrnn.FormatError, match=r"fc\.safetensors"):
        fastrnn.load_state_dict(tmp_path)


def test_matrices_beside_the_state_dict_are_not_passed_over(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = torch.nn.LSTM(2, 3).state_dict()
    path = save(torch, {"state_dict": tensors, "projection": torch.ones(3, 2)}, tmp_path / "a.pt")
    state_dict = fastrnn.load_state_dict(path)
    assert state_dict.others
    with pytest.raises(fastrnn.WeightError, match=r'got "state_dict" and weights at the top \(""\)'):
        fastrnn.load(path)
    fastrnn.load(path, key="state_dict")


def test_pairs_of_one_name_twice_are_no_state_dict(tmp_path):
    torch = pytest.importorskip("torch")
    pairs = [("weight", torch.ones(2, 2)), ("weight", torch.zeros(2, 2))]
    with pytest.raises(fastrnn.FormatError):
        fastrnn.load_state_dict(save(torch, pairs, tmp_path / "a.pt"))


def test_a_saved_model_with_a_tensor_that_is_not_read_is_refused(rng, tmp_path, model):
    path = tmp_path / "model.safetensors"
    model.save(path)
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    changed = next(name for name in header if name.endswith("weight_hh_l0"))
    header[changed]["dtype"] = "F4"
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])
    with pytest.raises(fastrnn.FormatError, match="weight_hh_l0"):
        fastrnn.load(path)


def test_a_counter_in_a_wrapper_is_left_out(tmp_path):
    torch = pytest.importorskip("torch")
    tensors = {f"_orig_mod.module.{k}": v for k, v in torch.nn.LSTM(2, 3).state_dict().items()}
    path = save(torch, {"_orig_mod.n_averaged": torch.tensor(3), **tensors}, tmp_path / "a.pt")
    state_dict = fastrnn.load_state_dict(path)
    assert "weight_hh_l0" in state_dict and any("n_averaged" in key for key in state_dict.left_out)


@pytest.mark.parametrize(("path", "is_embedding"), (("ensemble", False), ("emb", True), ("word_embed", True)))
def test_an_embedding_is_told_by_words_not_by_letters(stack, path, is_embedding):
    """The matrix is square, so as a Linear it would fit before the LSTM as well."""
    tensors = {f"lstm.{key}": value for key, value in stack.items()}
    data = save_bytes({f"{path}.weight": np.ones((3, 3), np.float32), **tensors})
    with pytest.raises(fastrnn.WeightError, match="expected a plain architecture") as error:
        fastrnn.load(data)
    assert (f'Embedding.from_state_dict(sd, "{path}")' in str(error.value)) == is_embedding
