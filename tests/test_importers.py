"""Files: good ones come out right, bad ones are refused by name, and no code of theirs runs."""

import importlib
import io
import json
import os
import pickle
import pickletools
import struct
import subprocess
import sys
import textwrap
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

import fastrnn
from fastrnn.importers.archive import Archive
from fastrnn.importers.torch_file import LEGACY_MAGIC


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


# ---------------------------------------------------------------- hostile files


def zip_of(pickled, storages=None, compression=zipfile.ZIP_STORED):
    """The bytes of a torch zip file with this pickle."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, data in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", data)
    return file.getvalue()


def legacy_of(pickled, keys=(), storages=b""):
    """The bytes of a legacy torch file with this pickle."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = [pickle.dumps(part, protocol=2) for part in (LEGACY_MAGIC, 1001, system)]
    return b"".join(head) + pickled + pickle.dumps(list(keys), protocol=2) + storages


def tensor_pickle(offset=0, size=(2, 2), stride=(2, 1), count=4, kind="FloatStorage", key="0"):
    """A pickle of {"weight": tensor}, its numbers as given."""

    def number(value):
        return pickle.dumps(value, protocol=2)[2:-1]

    storage = (
        b"("
        + number("storage")
        + f"ctorch\n{kind}\n".encode()
        + number(key)
        + number("cpu")
        + number(count)
        + b"tQ"
    )
    arguments = (
        storage + number(offset) + number(size) + number(stride) + b"\x89ccollections\nOrderedDict\n)R"
    )
    return b"\x80\x02}" + number("weight") + b"ctorch._utils\n_rebuild_tensor_v2\n(" + arguments + b"tRs."


class Payload:
    """Pickles as a call that leaves a mark where it is run."""

    def __init__(self, function, *arguments):
        self.reduction = (function, arguments)

    def __reduce__(self):
        return self.reduction


def refuse(tmp_path, content, words="", key=None):
    """Loading this content is a FormatError that says so."""
    path = tmp_path / "hostile.pt"
    path.write_bytes(content)
    with pytest.raises(fastrnn.FormatError) as caught:
        fastrnn.load_state_dict(path, key)
    assert words in str(caught.value)
    assert str(caught.value).startswith("hostile.pt: expected ")
    return str(caught.value)


def test_the_tensor_pickle_of_these_tests_is_good(tmp_path):
    data = np.arange(4, dtype=np.float32).tobytes()
    for content in (
        zip_of(tensor_pickle(), {"0": data}),
        legacy_of(tensor_pickle(), ["0"], struct.pack("<q", 4) + data),
    ):
        (tmp_path / "good").write_bytes(content)
        found = fastrnn.load_state_dict(tmp_path / "good")
        np.testing.assert_array_equal(found["weight"], [[0, 1], [2, 3]])


def test_cuda_storages_are_plain_data(tmp_path):
    pickled = tensor_pickle().replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")
    assert b"cuda:0" in pickled
    (tmp_path / "a").write_bytes(zip_of(pickled, {"0": bytes(16)}))
    assert fastrnn.load_state_dict(tmp_path / "a")["weight"].shape == (2, 2)


@pytest.mark.parametrize("wrap", (zip_of, legacy_of))
@pytest.mark.parametrize(
    "function, name",
    (
        (os.system, "system"),
        (eval, "builtins.eval"),
        (exec, "builtins.exec"),
        (subprocess.Popen, "subprocess.Popen"),
        (pickle.loads, "loads"),
    ),
)
@pytest.mark.parametrize("protocol", (2, 4))
@pytest.mark.parametrize("beside", (False, True))
def test_calls_in_a_pickle_are_never_made(tmp_path, wrap, function, name, protocol, beside):
    mark = tmp_path / "mark"
    payload = Payload(function, f"touch {mark}")
    content = {"model": {}, "x": payload} if beside else payload
    text = refuse(tmp_path, wrap(pickle.dumps(content, protocol=protocol)), "one that asks for '")
    assert name.rpartition(".")[2] in text and "nothing in it ran" in text
    assert not mark.exists()


@pytest.mark.parametrize("wrap", (zip_of, legacy_of))
def test_nothing_is_imported_for_a_pickle(tmp_path, wrap):
    """A name is text: not even the import of its module happens."""
    refuse(
        tmp_path, wrap(b"\x80\x02cthis\nanything\n)R."), "a whole pickled module or object (this.anything)"
    )
    assert "this" not in sys.modules


@pytest.mark.parametrize(
    "change, words",
    (
        ({"size": (3, 2)}, "6 elements of 'weight'"),
        ({"offset": 1}, "up to element 4"),
        ({"stride": (3, 1)}, "a storage with the 4 elements"),
        ({"size": (2**40, 2**40)}, "a storage with the"),
        ({"size": (10**9, 1), "stride": (0, 0)}, "a storage with the"),
        ({"offset": -1}, "a tensor 'weight' with valid sizes and strides"),
        ({"stride": (-1, 1)}, "a tensor 'weight' with valid sizes and strides"),
        ({"stride": (1,)}, "a tensor 'weight' with valid sizes and strides"),
        ({"size": (2.0, 2)}, "a tensor 'weight' with valid sizes and strides"),
        ({"size": (True, 2)}, "a tensor 'weight' with valid sizes and strides"),
        ({"size": (10**400, 2)}, "a tensor 'weight' with valid sizes and strides"),
        ({"size": (0, 10**18, 10**18), "stride": (1, 1, 1)}, "that fits in memory"),
        ({"size": (0, 2**61), "stride": (1, 1)}, "that fits in memory"),
        ({"size": ["nested"] * 3}, "a tensor 'weight' with valid sizes and strides"),
        ({"size": (1,) * 65, "stride": (1,) * 65}, "one that is damaged"),
        ({"size": (1,) * 40, "stride": (1,) * 40}, "a tensor 'weight' with valid sizes and strides"),
        ({"size": "ab"}, "one that is damaged (ValueError"),
        ({"size": 3}, "one that is damaged (ValueError"),
        ({"count": 5}, "bytes in the storage"),
        ({"count": 2**60}, "bytes in the storage"),
        ({"count": -4}, "one that is damaged"),
        ({"count": 10**30}, "one that is damaged"),
        ({"key": "1"}, "an entry"),
        ({"key": "../../../etc/passwd"}, "an entry"),
    ),
)  # fmt: skip
def test_wrong_numbers_of_a_tensor_are_refused(tmp_path, change, words):
    refuse(tmp_path, zip_of(tensor_pickle(**change), {"0": bytes(16)}), words)


@pytest.mark.parametrize(
    "content, words",
    (
        (legacy_of(tensor_pickle(), ["0"], struct.pack("<q", 4) + bytes(12)), "16 bytes in the storage '0'"),
        (legacy_of(tensor_pickle(), ["0"], struct.pack("<q", 400) + bytes(16)), "4 elements in the storage"),
        (legacy_of(tensor_pickle(), ["0"], struct.pack("<q", -4) + bytes(16)), "4 elements in the storage"),
        (legacy_of(tensor_pickle(), ["0"], b""), "4 elements in the storage"),
        (legacy_of(tensor_pickle(), []), "a storage '0'"),
        (legacy_of(tensor_pickle(), ["1"], struct.pack("<q", 4) + bytes(16)), "each storage once"),
        (legacy_of(tensor_pickle(count=2**60), ["0"], struct.pack("<q", 2**60) + bytes(16)), "bytes in"),
        (legacy_of(tensor_pickle())[:20], "a whole pickle"),
    ),
)
def test_wrong_legacy_files_are_refused(tmp_path, content, words):
    refuse(tmp_path, content, words)


@pytest.mark.parametrize(
    "pickled, words",
    (
        (b"", "exhausted before seeing STOP"),
        (b"\x80\x02", "exhausted before seeing STOP"),
        (b".", "damaged"),
        (b"\x80\x02t.", "damaged"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02(.", "damaged"),
        (b"\x80\x02}(K\x01u.", "damaged"),
        (b"\x80\x02K\x01K\x02a.", "damaged"),
        (b"\x80\x02K\x01K\x02\x86K\x03R.", "damaged"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x05\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x02\x82\x01.", "the opcode EXT1"),
        (b"\x80\x05\x97.", "the opcode NEXT_BUFFER"),
        (b"Pid\n.", "the opcode PERSID"),
        (b"\x80\x02K\x01Q.", "damaged"),
        (b"\x80\x02]].", "a state_dict, got list of 0"),
        (b"\x80\x02}X\x01\x00\x00\x00aK\x01s.", "a state_dict, got dict of 1"),
        (b"I" + b"9" * 10000 + b"\n.", "damaged"),
        # One list, copied, unpacked or written out at every turn.
        (b"\x80\x02](" + b"N" * 200_000 + b"e\x85q\x000ctorch\nSize\nq\x01" + b"h\x01h\x00R" * 5000 + b".",
         "damaged"),
        (b"\x80\x02](" + b"N" * 200_000 + b"e\x85q\x000ccollections\nOrderedDict\nq\x01"
         + b"h\x01h\x00R" * 5000 + b".", "damaged"),
        (b"\x80\x02](" + b"N" * 200_000 + b"e\x85q\x000cother\nthing\nq\x01" + b"h\x01h\x00R" * 5000 + b".",
         "at most 2000000 operations"),
        (b"\x80\x02X\x40\x42\x0f\x00" + b"a" * 1_000_000 + b"q\x000" + b"h\x00h\x00\x93" * 3000 + b".",
         "damaged"),
        (b"\x80\x02]q\x00" + b"](h\x00h\x00eq\x00" * 60 + b"\x85q\x010ctorch\ndevice\nh\x01R.",
         "a whole pickled module or object (torch.device)"),
        # One list, made into a dict at every turn by a function that another one calls.
        (b"\x80\x02](" + b"(K\x01Nt" * 100_000 + b"eq\x000ctorch._tensor\n_rebuild_from_type_v2\nq\x010"
         b"ccollections\nOrderedDict\nctorch\nTensor\nh\x00\x85\x87q\x020](" + b"h\x01h\x02R" * 3000 + b"e.",
         "at most 2000000 operations"),
        (b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00h\x00ctorch\nTensor\n)\x87R.",
         "a tensor of the class torch.Tensor (not read)"),
        # A key whose hash takes a while, again and again; and long names, each of them new.
        (b"\x80\x02\x8b" + struct.pack("<i", 10**6) + b"\x55" * (10**6 - 1) + b"\x01q\x000}"
         + b"h\x00Ns" * 300_000 + b".", "an integer of"),
        (b"\x80\x02X\xf0\x01\0\0" + b"m" * 496 + b"q\x000X\xf0\x01\0\0" + b"n" * 496 + b"q\x010]("
         + b"h\x00h\x01\x93" * 450_000 + b"e.", "at most 2000000 operations"),
        (b"\x80\x02(X\x07\0\0\0storagectorch\n" + b"n" * 980 + b"\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tq\x000]("
         + b"h\x00Q" * 450_000 + b"e.", "at most 2000000 operations"),
        # A key nested so deeply that hashing it would overflow the C stack.
        (b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.", "a state_dict, got"),
        (b"\x80\x02" + b"}" * 2_100_000 + b".", "at most 2000000 operations"),
    ),
)  # fmt: skip
def test_wrong_pickles_are_refused(tmp_path, pickled, words):
    refuse(tmp_path, zip_of(pickled), words)


def test_shared_dicts_do_not_multiply(tmp_path):
    """A dict that holds the next one twice, thirty deep: two to the thirty paths to the end."""
    content = {"end": 1}
    for _ in range(30):
        content = {"a": content, "b": content}
    refuse(tmp_path, zip_of(pickle.dumps(content, protocol=2)), "a state_dict, got dict of 2")


def test_long_and_many_keys_stay_short(tmp_path):
    """Names of a megabyte are cut, and thousands of things left out are counted."""
    tensor = tensor_pickle()[2:-1].partition(b"X\x06\x00\x00\x00weight")[2].removesuffix(b"s")

    def number(value):
        return pickle.dumps(value, protocol=2)[2:-1]

    inner = b"}" + number("w") + tensor + b"s"
    for pickled in (
        b"}" + number("." * 20_000) + inner + b"s",
        b"}" + number("k" * 10**6) + inner + b"".join(number(f"n{i}") + b"Ns" for i in range(8000)) + b"s",
        b"}" + number(10**5000) + b"Ns" + number("model") + inner + b"s",
    ):
        (tmp_path / "a").write_bytes(zip_of(b"\x80\x02" + pickled + b".", {"0": bytes(16)}))
        found = fastrnn.load_state_dict(tmp_path / "a")
        assert list(found) == ["w"]
        assert len(found.left_out) <= 1001 and len(str(found.left_out)) < 400_000


def test_views_that_multiply_a_storage_are_refused(tmp_path):
    data = np.zeros(2**20, np.float32)
    one = tensor_pickle(size=(2**20,), stride=(1,), count=2**20)[2:-1].removeprefix(b"}").removesuffix(b"s")
    name = b"X\x06\x00\x00\x00weight"
    many = b"".join(one.replace(name, b"X\x06\x00\x00\x00" + f"{i:06}".encode()) + b"s" for i in range(100))
    refuse(tmp_path, zip_of(b"\x80\x02}" + many + b".", {"0": data.tobytes()}), "share little memory")


def test_large_numbers_are_no_keys(tmp_path):
    """Python hashes 2^61 - 1 times anything to 0: as keys so many would take minutes."""
    keys = b"".join(pickle.dumps(k * (2**61 - 1), protocol=2)[2:-1] + b"N" for k in range(1, 200_001))
    refuse(tmp_path, zip_of(b"\x80\x02}(" + keys + b"u."), "a state_dict, got dict of 200000")
    ordered = b"\x80\x02ccollections\nOrderedDict\n]\x8a\x09" + b"\1" * 9 + b"N\x86a\x85R."
    refuse(tmp_path, zip_of(ordered), "a key that is not plain")


def typed_views(dtypes, keys):
    """A pickle of a tensor of one element for each dtype and key of a storage of 8 bytes."""

    def tensor(name, key):
        kind = f"ctorch\n{name}\n".encode()
        storage = b"(X\x07\0\0\0storagectorch\nUntypedStorage\n" + key + b"X\x03\0\0\0cpuK\x08tQ"
        return b"ctorch._utils\n_rebuild_tensor_v3\n(" + storage + b"K\0K\1\x85K\1\x85\x89N" + kind + b"tR"

    items = [
        b"X\x04\0\0\0" + f"{i:04}".encode() + tensor(*what) + b"s"
        for i, what in enumerate((name, key) for name in dtypes for key in keys)
    ]
    return b"\x80\x02}" + b"".join(items) + b"."


def test_a_storage_is_read_once(tmp_path, monkeypatch):
    reads = []
    read = Archive.read
    monkeypatch.setattr(
        Archive, "read", lambda self, name, limit=None: reads.append(name) or read(self, name, limit)
    )
    names = ["float32", "int32", "int64", "float64", "uint8"]
    path = tmp_path / "views"
    path.write_bytes(zip_of(typed_views(names[:4], [b"K\0", b"X\x01\0\0\0000"]), {"0": bytes(range(8))}))
    found = fastrnn.load_state_dict(path)
    assert len(found) == 8 and found["0003"] == np.frombuffer(bytes(range(4)), np.int32)
    assert reads.count("archive/data/0") == 1
    refuse(tmp_path, zip_of(typed_views(names, [b"K\0"]), {"0": bytes(8)}), "a storage of at most 4 dtypes")


def test_a_zip_file_on_several_disks_is_refused(tmp_path):
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 2)
    refuse(tmp_path, b"A" * 100 + locator + b"PK\5\6" + bytes(18), "a file of no known kind")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(fastrnn.FormatError, match="a regular file, got a pipe or a device"):
            fastrnn.load_state_dict(path)


def test_header_size_of_safetensors_may_be_any(tmp_path):
    """123 is the code of an opening brace: no JSON file."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode().ljust(123)
    (tmp_path / "a").write_bytes(struct.pack("<Q", 123) + header + bytes(4))
    assert fastrnn.load_state_dict(tmp_path / "a")["w"].shape == (1,)


def test_key_must_be_text(files):
    with pytest.raises(TypeError, match="key to be a str, got 5"):
        fastrnn.load_state_dict(files / "lstm_zip.pt", key=5)


@settings(max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_random_npz_headers_give_no_other_error(header, size):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", size) + header)
    load_or_refuse(file.getvalue())


def test_zip_bomb_is_refused(tmp_path):
    bomb = zip_of(tensor_pickle(count=2**28), {"0": bytes(2**30)}, zipfile.ZIP_DEFLATED)
    assert len(bomb) < 2**21
    refuse(tmp_path, bomb, "It looks like a zip bomb")
    # The same from a header that lies about its size: what does not fit is not read.
    small = zip_of(tensor_pickle(count=2**20), {"0": bytes(2**22)}, zipfile.ZIP_DEFLATED)
    assert len(small) < 2**14
    lying = small.replace(struct.pack("<I", 2**22), struct.pack("<I", 16))
    refuse(tmp_path, lying, "bytes in the storage")


def test_overlapping_entries_are_refused(tmp_path):
    content = zip_of(tensor_pickle(), {"0": os.urandom(100_000)})
    place = content.index(b"PK\x01\x02")
    end = content.index(b"PK\x05\x06")
    directory, tail = content[place:end], bytearray(content[end:])
    copies = directory * 50
    tail[8:12] = struct.pack("<HH", 100, 100)
    tail[12:16] = struct.pack("<I", len(copies))
    refuse(tmp_path, content[:place] + copies + bytes(tail), "entries that do not overlap")


def test_npz_header_cannot_claim_more_than_there_is(tmp_path):
    def entry(shape, descr="'<f4'", data=b""):
        header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}".encode()
        header += b" " * (117 - len(header)) + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data

    for content, words in (
        (entry("(10**12,)"), "a whole array"),
        (entry("(1000000000000,)"), "4000000000000 bytes in 'a.npy', got 0"),
        (entry("(2,)", data=bytes(4)), "8 bytes in"),
        (entry("(-2,)", data=bytes(4)), "a whole array"),
        (entry("(1,)", "'|O'", bytes(8)), "pickled objects"),
        (entry("(1,)", "'<U4'", bytes(16)), "not of real numbers"),
        (entry("(-1,-1)"), "a whole array"),
        (entry("(0," + "9" * 30 + ")"), "a whole array"),
        (entry(f"(0,{2**47},{2**47})"), "a whole array"),
        (entry("(True,)", data=bytes(4)), "a whole array"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000, "a whole array"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 8) + b"{'a':(\n ", "a whole array"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"-" * 8999 + b"1", "a whole array"),
        (b"\x93NUMPY\x01\x00" + struct.pack("<H", 6) + b"{[]:1}", "a whole array"),
        (b"no array", "a whole array"),
        (b"", "a whole array"),
    ):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a.npy", content)
        refuse(tmp_path, file.getvalue(), words)


def test_safetensors_are_not_read_before_their_header_fits(tmp_path):
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "sparse").write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(tmp_path / "sparse", 2**27)
    tracemalloc.start()
    with pytest.raises(fastrnn.FormatError, match="a whole safetensors file"):
        fastrnn.load_state_dict(tmp_path / "sparse")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**24


def test_wrong_safetensors_are_refused(tmp_path):
    def file(header, body=b""):
        header = json.dumps(header).encode()
        return struct.pack("<Q", len(header)) + header + body

    good = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    for content, words in (
        (file(good, bytes(4)), "a whole safetensors file"),
        (file({"w": {**good["w"], "shape": [3]}}, bytes(8)), "a whole safetensors file"),
        (file({"w": {**good["w"], "data_offsets": [0, 2**62]}}, bytes(8)), "a whole safetensors file"),
        (struct.pack("<Q", 2**30) + b"{}", "a header of at most"),
        (struct.pack("<Q", 20) + b"{" * 20, "a whole safetensors file"),
        (file({}), "a state_dict, got dict of 0"),
        (
            file({"w": {"dtype": "F32", "shape": [1] * 40, "data_offsets": [0, 4]}}, bytes(4)),
            "fits in memory",
        ),
        (file({"w": {"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}}), "a "),
        (file({"w": {"dtype": "F32", "shape": [0, 2**47, 2**47], "data_offsets": [0, 0]}}), "a "),
    ):
        refuse(tmp_path, content, words)


@pytest.mark.parametrize("name", ("lstm_zip.pt", "checkpoint_legacy.pt", "expected_lstm.npz"))
def test_truncated_files_are_refused(files, tmp_path, name):
    content = (files / name).read_bytes()
    for size in [*range(0, len(content) - 1, 37), len(content) - 1]:
        refuse(tmp_path, content[:size])


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_files_give_no_other_error(data):
    """A few bytes changed anywhere: the weights, or a FormatError, and nothing else."""
    from conftest import GOLDEN

    name = data.draw(st.sampled_from(["lstm_zip.pt", "checkpoint_legacy.pt", "odd_tensors_legacy.pt"]))
    content = bytearray((GOLDEN / "files" / name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    load_or_refuse(bytes(content))


@settings(max_examples=300)
@given(st.binary(max_size=400))
def test_random_pickles_give_no_other_error(pickled):
    load_or_refuse(zip_of(b"\x80\x02" + pickled))
    load_or_refuse(legacy_of(b"\x80\x02" + pickled))


def test_an_unknown_escape_warns_of_nothing():
    """Warnings are errors here."""
    load_or_refuse(zip_of(b"\x80\x02S'a\\o'\n."))


OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


@settings(max_examples=300)
@given(st.lists(st.one_of(st.sampled_from(OPCODES), st.binary(max_size=3)), max_size=60))
def test_random_opcodes_give_no_other_error(parts):
    load_or_refuse(zip_of(b"".join(parts)))


def load_or_refuse(content):
    import tempfile

    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            fastrnn.load_state_dict(file.name)
        except fastrnn.FormatError:
            pass


def test_hostile_files_take_little_memory(tmp_path):
    """The worst of the above in a process that may have 1.5 GB of address space."""
    contents = [
        zip_of(tensor_pickle(count=2**28), {"0": bytes(2**30)}, zipfile.ZIP_DEFLATED),
        zip_of(tensor_pickle(size=(10**9, 1), stride=(0, 0)), {"0": bytes(16)}),
        zip_of(b"\x80\x02" + b"}" * 2_100_000 + b"."),
        zip_of(b"\x80\x02" + b"\x8f" * 2_100_000 + b"."),
        zip_of(b"\x80\x02\x8b\xff\xff\xff\x7f."),
        legacy_of(b"\x80\x02\x8b\xff\xff\xff\x7f."),
        legacy_of(b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f."),
        legacy_of(tensor_pickle(count=2**40), ["0"], struct.pack("<q", 2**40) + bytes(16)),
    ]
    paths = []
    for index, content in enumerate(contents):
        paths.append(tmp_path / str(index))
        paths[-1].write_bytes(content)
    script = """
        import resource, sys
        import fastrnn
        resource.setrlimit(resource.RLIMIT_AS, (1536 * 2**20,) * 2)
        for path in sys.argv[1:]:
            try:
                fastrnn.load_state_dict(path)
            except fastrnn.FormatError as error:
                print(type(error).__name__, error)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, paths)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("FormatError") == len(contents)


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
        wanted = cell(x)
        wanted = wanted[0] if isinstance(wanted, tuple) else wanted
        y, _ = fastrnn.from_torch(cell)(x[None].numpy())
        np.testing.assert_allclose(y[0], wanted.detach().numpy(), rtol=0, atol=1e-13)
    layer = fastrnn.from_torch(nn.GRU(5, 4, batch_first=True).double(), backend="blas")
    assert layer.batch_first and layer.precision == "float64"
    assert fastrnn.from_torch(nn.LSTM(5, 4)).precision == "float32"


def test_from_torch_refuses_what_it_cannot_make():
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Own(nn.LSTM):
        pass

    for module in (nn.Conv1d(1, 1, 1), Own(2, 2), nn.Sequential(nn.GELU()), nn.LSTM, object(), "lstm"):
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
    """A quantised module and one with extra state have things in their state dicts that are no tensors."""
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
