"""Where the weights are in a file, what a file may be, and the names of files that are not read."""

import io
import json
import math
import os
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors import deserialize as deserialize_safetensors
from safetensors.numpy import save_file

import fastrnn

# ---------------------------------------------------------------- where the weights are


@pytest.mark.parametrize(
    "content, key",
    (
        (lambda sd: {"runs": {"v1.0": sd, "v2.0": dict(sd)}}, "runs.v2.0"),
        (lambda sd: {"a.b": {"c.d": sd}, "x": {"y": dict(sd)}}, "a.b.c.d"),
        (lambda sd: {**sd, "ema": {"m": sd}}, ""),
        (lambda sd: [{"model": sd}, {"net": dict(sd)}], "1.net"),
        (lambda sd: {0: sd, 1: dict(sd)}, "1"),
    ),
)
def test_a_hint_names_a_key_that_works(tmp_path, content, key):
    torch = pytest.importorskip("torch")
    weights = torch.nn.GRU(2, 3).state_dict()
    torch.save(content(weights), tmp_path / "a.pt")
    with pytest.raises(fastrnn.FormatError, match="one state_dict, got 2") as caught:
        fastrnn.load_state_dict(tmp_path / "a.pt")
    assert '. Pick one with key=, for example key="' in str(caught.value)
    hinted = str(caught.value).partition('key="')[2].partition('"')[0]
    for name in (key, hinted):
        found = fastrnn.load_state_dict(tmp_path / "a.pt", name)
        assert found.keys() == weights.keys() and found.key == name


def test_a_tuple_of_weights_and_optimizer_is_read(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(2, 3)
    torch.save((module.state_dict(), torch.optim.Adam(module.parameters()).state_dict()), tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    assert found.key == "0" and found.keys() == module.state_dict().keys()
    assert found.left_out["1"]["param_groups"][0]["lr"] == 0.001


class OwnDict(dict):
    pass


def test_a_dict_of_a_class_of_its_own_is_a_dict(tmp_path):
    torch = pytest.importorskip("torch")
    weights = torch.nn.GRU(2, 3).state_dict()
    torch.save(OwnDict(state_dict=OwnDict(weights), epoch=3), tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    assert found.keys() == weights.keys() and found.key == "state_dict" and found.left_out["epoch"] == 3


def test_tensors_without_names_are_named_for_what_they_are(tmp_path):
    torch = pytest.importorskip("torch")
    parameters = list(torch.nn.GRU(2, 3).parameters())
    for content, words in (
        (parameters, "a list of 4 tensors without names"),
        (parameters[0], r"a single tensor \(9, 2\)"),
        ({}, "got dict of 0"),
    ):
        torch.save(content, tmp_path / "a.pt")
        with pytest.raises(fastrnn.FormatError, match=words):
            fastrnn.load_state_dict(tmp_path / "a.pt")


# ---------------------------------------------------------------- what a file may be


@pytest.mark.parametrize(
    "content, words, hint",
    (
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "a Git LFS pointer",
            "git lfs pull",
        ),
        (b"<!DOCTYPE html>\n<html>", "an HTML page", "Download it again"),
        (b"\n <html><body>404", "an HTML page", "Download it again"),
        (b"<?xml version='1.0'?>", "an XML file", ""),
        (b"\x1f\x8b\x08" + bytes(20), "a gzip file", "Unpack it first"),
        (b"BZh91AY", "a bzip2 file", "Unpack it first"),
        (b"\xfd7zXZ\x00", "an xz file", "Unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a zstd file", "Unpack it first"),
        (b'{"metadata": {"total_size": 5}, "weight_map": {"a": "b"}}', "an index of shards", "Give its path"),
        (b'{"a": 1}', "a JSON file", "from_state_dict"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file", ""),
        (b"PAR1", "a Parquet file", "fastrnn run"),
        (b"\x08\x07\x12\x07pytorch", "an ONNX model", "state_dict"),
    ),
)
def test_files_of_other_kinds_are_named_with_what_to_do(tmp_path, content, words, hint):
    (tmp_path / "weights.pt").write_bytes(content)
    in_memory = (content, io.BytesIO(content))
    for file in in_memory if words == "an index of shards" else (tmp_path / "weights.pt", *in_memory):
        with pytest.raises(fastrnn.FormatError) as caught:
            fastrnn.load(file)
        assert f", got {words}" in str(caught.value) and hint in str(caught.value)


def test_a_distcp_file_is_named(tmp_path):
    (tmp_path / "__0_0.distcp").write_bytes(bytes(100))
    with pytest.raises(fastrnn.FormatError, match="DCP"):
        fastrnn.load(tmp_path / "__0_0.distcp")


def test_torch_script_and_zips_of_weights_are_named(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "policy.zip", "w") as archive:
        archive.write(tmp_path / "a.pth", "policy.pth")
    with pytest.raises(fastrnn.FormatError, match=r"a zip with 'policy.pth' in it. Unpack it first"):
        fastrnn.load(tmp_path / "policy.zip")


@pytest.mark.parametrize("kind", ("pt", "npz", "safetensors"))
def test_content_in_memory_is_read_like_a_file(golden, tmp_path, kind):
    expected = dict(np.load(golden / "files" / "expected_lstm.npz"))
    path = golden / "files" / ("lstm_zip.pt" if kind == "pt" else "expected_lstm.npz")
    if kind == "safetensors":
        path = tmp_path / "a.safetensors"
        save_file(expected, path)
    content = path.read_bytes()
    with open(path, "rb") as file:
        for given_file in (
            path,
            str(path),
            content,
            bytearray(content),
            memoryview(content),
            io.BytesIO(content),
            file,
        ):
            found = fastrnn.load_state_dict(given_file)
            for name, array in expected.items():
                np.testing.assert_array_equal(found[name], array)
    assert repr(fastrnn.load(content)) == repr(fastrnn.load(path))


def test_content_in_memory_is_named_so(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"nonsense")
    with open(tmp_path / "a.pt", "rb") as file:
        for given_file, where in ((b"nonsense", "bytes"), (io.BytesIO(b"nonsense"), "file"), (file, "a.pt")):
            with pytest.raises(fastrnn.FormatError, match=f"^{where}: expected a state_dict"):
                fastrnn.load(given_file)
    for given_file, words in (
        (io.StringIO("text"), 'open.path, "rb"'),
        (5, "a path, bytes, or a file"),
        (None, "a path"),
    ):
        with pytest.raises(TypeError, match=words):
            fastrnn.load(given_file)


def test_bytes_are_content_and_no_path(golden):
    with pytest.raises(
        fastrnn.FormatError, match=r"a file of no known kind. Bytes are the content of a file"
    ):
        fastrnn.load_state_dict(os.fsencode(golden / "files" / "lstm_zip.pt"))


@settings(max_examples=300)
@given(st.data())
def test_safetensors_that_the_package_refuses_are_refused(data):
    """With headers that are almost right: what we read, the package reads as well."""
    number = st.integers(-1, 40)
    entry = st.fixed_dictionaries(
        {"dtype": st.sampled_from(["F32", "F16", "I64", "BOOL", "F8_E4M3", "NO"]),
         "shape": st.lists(st.integers(0, 4), max_size=3), "data_offsets": st.tuples(number, number)},
        optional={"more": st.just(1)},
    )  # fmt: skip
    begin = 0
    entries = {}
    for index, item in enumerate(data.draw(st.lists(entry, max_size=3))):
        if data.draw(st.booleans()):
            sizes = {"F32": 4, "F16": 2, "I64": 8, "BOOL": 1, "F8_E4M3": 1, "NO": 1}
            end = begin + math.prod(item["shape"]) * sizes[item["dtype"]]
            item["data_offsets"] = (begin, end)
            begin = end
        entries[f"t{index}"] = item
    if data.draw(st.booleans()):
        entries["__metadata__"] = data.draw(st.sampled_from([{}, {"a": "b"}, {"a": 1}, [], "x"]))
    header = json.dumps(entries).encode()
    content = (
        struct.pack("<Q", len(header)) + header + bytes(data.draw(st.sampled_from([begin, begin, 8, 0])))
    )
    try:
        theirs = dict(deserialize_safetensors(content))
    except SafetensorError:
        theirs = None
    try:
        ours = fastrnn.load_state_dict(content)
    except fastrnn.FormatError:
        return
    assert theirs is not None or "NO" in [
        item.get("dtype") for item in entries.values() if isinstance(item, dict)
    ]
    if theirs is not None:
        assert ours.keys() == theirs.keys()
