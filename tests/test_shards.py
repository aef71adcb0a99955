"""Models in several files load whole. A file that is only a part of one is refused by name."""

import io
import json
import os
import zipfile

import numpy as np
import pytest
from helpers import random_spec, random_tensors
from safetensors.numpy import save_file

import fastrnn


def divide(stack, folder, of_second, end="safetensors", write_index=True):
    """Write two shards and their index as Hugging Face's libraries do; return the paths of the shards."""
    parts = [{}, {}]
    for name, array in stack.items():
        parts[of_second(name)][name] = array
    names = [f"model-0000{n}-of-00002.{end}" for n in (1, 2)]
    weight_map = {name: file for file, part in zip(names, parts, strict=True) for name in part}
    for name, part in zip(names, parts, strict=True):
        if end == "safetensors":
            save_file(part, folder / name)
        else:
            torch = pytest.importorskip("torch")
            torch.save({key: torch.from_numpy(array) for key, array in part.items()}, folder / name)
    if write_index:
        content = {"metadata": {"total_size": 1}, "weight_map": weight_map}
        (folder / f"model.{end}.index.json").write_text(json.dumps(content))
    return [folder / name for name in names]


OF_SECOND = (lambda name: name.endswith("_l1"), lambda name: name.startswith("bias"))


@pytest.mark.parametrize("of_second", OF_SECOND)
@pytest.mark.parametrize("end", ("safetensors", "bin"))
def test_a_model_in_shards_loads_whole_or_not_at_all(stack, tmp_path, of_second, end):
    paths = divide(stack, tmp_path, of_second, end)
    for path in paths:
        with pytest.raises(fastrnn.FormatError, match=r"a whole model, got part \d of 2. Give the folder: "):
            fastrnn.load(path)
        with open(path, "rb") as file, pytest.raises(fastrnn.FormatError, match=r"of 2. Give the folder"):
            fastrnn.load_state_dict(file)
        named = io.BytesIO(path.read_bytes())
        named.name = path.name
        with pytest.raises(fastrnn.FormatError, match=r"of 2. Put all parts in one folder"):
            fastrnn.load_state_dict(named)
    for whole in (tmp_path, tmp_path / f"model.{end}.index.json", f"{tmp_path}{os.sep}"):
        found = fastrnn.load_state_dict(whole)
        assert found.keys() == stack.keys() and found.file_format.endswith(", 2 files")
        for name, array in stack.items():
            np.testing.assert_array_equal(found[name], array)
        assert repr(fastrnn.load(whole).layers[0]) == "LSTM(3, 4, num_layers=2)"


@pytest.mark.parametrize("of_second", OF_SECOND)
def test_a_renamed_shard_is_told_by_the_index_beside_it(stack, tmp_path, of_second):
    first, _ = divide(stack, tmp_path, of_second)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace(first.name, "weights.safetensors"))
    first.rename(tmp_path / "weights.safetensors")
    with pytest.raises(fastrnn.FormatError, match=r"got one of the 2 files of model.safetensors.index.json"):
        fastrnn.load(tmp_path / "weights.safetensors")
    with open(tmp_path / "weights.safetensors", "rb") as file:  # the index is found beside an open file too
        with pytest.raises(fastrnn.FormatError, match=r"got one of the 2 files"):
            fastrnn.load(file)
    assert fastrnn.load_state_dict(tmp_path).keys() == stack.keys()
    save_file(stack, tmp_path / "other.safetensors")  # the index does not name this one
    assert fastrnn.load_state_dict(tmp_path / "other.safetensors").keys() == stack.keys()


def test_shards_without_an_index_are_a_whole_if_all_are_there(stack, tmp_path):
    first, second = divide(stack, tmp_path, OF_SECOND[0], write_index=False)
    assert fastrnn.load_state_dict(tmp_path).keys() == stack.keys()
    second.unlink()
    with pytest.raises(fastrnn.FormatError, match="got 1 of 2, without part 2"):
        fastrnn.load_state_dict(tmp_path)
    first.rename(tmp_path / "model-00001-of-00001.safetensors")
    assert len(fastrnn.load_state_dict(tmp_path / "model-00001-of-00001.safetensors")) == 4


def test_an_index_that_does_not_fit_its_files_is_refused(stack, tmp_path):
    _, second = divide(stack, tmp_path, OF_SECOND[0])
    index = tmp_path / "model.safetensors.index.json"
    good = json.loads(index.read_text())

    def refuse(words, **weight_map):
        index.write_text(json.dumps({"weight_map": {**good["weight_map"], **weight_map}}))
        with pytest.raises(fastrnn.FormatError, match=words):
            fastrnn.load_state_dict(tmp_path)

    refuse("lists, got 1 missing", more=second.name)
    refuse('all its files in the same folder, got no "third.safetensors"', more="third.safetensors")
    for name in ("../secret", "a/b", "..", "", "C:x", 5):
        refuse("an index of the files beside it", more=name)
    # A tensor that the index does not list is still a part of the model.
    del good["weight_map"]["bias_hh_l1"]
    index.write_text(json.dumps(good))
    np.testing.assert_array_equal(fastrnn.load_state_dict(tmp_path)["bias_hh_l1"], stack["bias_hh_l1"])
    index.write_text(json.dumps(good))
    second.unlink()
    with pytest.raises(fastrnn.FormatError, match="got no "):
        fastrnn.load(index)


@pytest.mark.parametrize(
    "names, words",
    (
        (["a.distcp", ".metadata"], "a folder of torch.distributed.checkpoint"),
        (["saved_model.pb"], "a TensorFlow SavedModel"),
        (
            ["mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"],
            "a DeepSpeed checkpoint",
        ),
        (["a.pt", "b.pt"], 'got 2: "a.pt" and "b.pt". Give the path of the one'),
        (["config.json"], 'got "config.json"'),
        ([], "got an empty one"),
    ),
)
def test_folders_of_other_kinds_are_named(tmp_path, names, words):
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(fastrnn.FormatError, match=words):
        fastrnn.load(tmp_path)


def test_the_one_file_of_a_folder_is_found(stack, tmp_path):
    save_file(stack, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"the same in the older format")
    for other in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"):
        (tmp_path / other).write_bytes(b"of training")
    assert fastrnn.load_state_dict(tmp_path).keys() == stack.keys()


LOST = (
    ("weight_ih_l1", "weight_ih_l1 is missing"),
    ("bias_hh_l0", "bias_hh_l0 is missing"),
    ("bias_ih_l1", "bias_ih_l1 is missing"),
    ("weight_hh_l0_reverse", "weight_hh_l0_reverse is missing"),
    ("weight_ih_l0_reverse", "is not one of its keys"),
    ("bias_ih_l1_reverse", "bias_ih_l1_reverse is missing"),
)


@pytest.mark.parametrize("name, words", LOST)
@pytest.mark.parametrize("prefix", ("", "rnn."))
def test_no_key_of_a_stack_is_lost(rng, tmp_path, name, words, prefix):
    """A gap, the bias of only one direction, a direction of only one layer."""
    tensors = random_tensors(rng, random_spec("gru", 3, 4, num_layers=2, bidirectional=True))
    del tensors[name]
    np.savez(tmp_path / "a.npz", **{prefix + key: array for key, array in tensors.items()})
    for make in (fastrnn.load, lambda p: fastrnn.GRU.from_state_dict(fastrnn.load_state_dict(p), prefix)):
        with pytest.raises(fastrnn.WeightError, match=words):
            make(tmp_path / "a.npz")


def test_a_whole_layer_or_direction_alone_is_named(rng):
    tensors = random_tensors(rng, random_spec("lstm", 4, 4, num_layers=3, bidirectional=True))
    for lost in ("_l1", "_l1_reverse", "_l0_reverse", "_l2_reverse"):
        rest = {name: array for name, array in tensors.items() if not name.endswith(lost)}
        with pytest.raises(fastrnn.WeightError, match=r"is missing|is not one of its keys"):
            fastrnn.LSTM.from_state_dict(rest)


def test_a_module_beside_the_chosen_state_dict_is_not_lost(tmp_path):
    torch = pytest.importorskip("torch")
    lstm, head = torch.nn.LSTM(3, 4), torch.nn.Linear(4, 2)
    torch.save({"model": lstm.state_dict(), "head": head.state_dict(), "epoch": 3}, tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    assert found.key == "model" and found.others == ("head",)
    with pytest.raises(fastrnn.WeightError, match=r'one model, got "model" and "head". key="model"'):
        fastrnn.load(tmp_path / "a.pt")
    assert len(fastrnn.load(tmp_path / "a.pt", key="model").layers) == 1
    torch.save({"model": lstm.state_dict(), "ema": lstm.state_dict()}, tmp_path / "b.pt")
    assert len(fastrnn.load(tmp_path / "b.pt").layers) == 1


def test_an_archive_with_a_name_twice_is_refused(tmp_path):
    """A reader would see only the last of two entries with one name."""
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(tmp_path / "a", "w") as archive:
        for fill in (0.0, 1.0):
            file = io.BytesIO()
            np.save(file, np.full((4, 3), fill))
            archive.writestr("weight_ih_l0.npy", file.getvalue())
    with pytest.raises(fastrnn.FormatError, match="entries of different names"):
        fastrnn.load_state_dict(tmp_path / "a")


def test_the_index_says_which_of_two_tensors_of_a_name_counts(stack, tmp_path):
    first, second = divide(stack, tmp_path, OF_SECOND[0])
    both = {name: array for name, array in stack.items() if not name.endswith("_l1")}
    save_file({**both, "bias_hh_l1": np.full(16, 7, np.float32)}, first)
    np.testing.assert_array_equal(fastrnn.load_state_dict(tmp_path)["bias_hh_l1"], stack["bias_hh_l1"])
    (tmp_path / "model.safetensors.index.json").unlink()
    with pytest.raises(fastrnn.FormatError, match='each tensor in one part, got "bias_hh_l1" in two'):
        fastrnn.load_state_dict(tmp_path)
    assert second.exists()
