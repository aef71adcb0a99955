"""Hostile and damaged files: a FormatError refuses them at little cost, and none of their code runs."""

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
from pickles import legacy_of, number, tensor_pickle, zip_of

import fastrnn
from fastrnn.importers.archive import Archive

# ---------------------------------------------------------------- pickles that call something


class Payload:
    """An object whose pickle is a call."""

    def __init__(self, function, *arguments):
        self.reduction = (function, arguments)

    def __reduce__(self):
        return self.reduction


def refuse(tmp_path, content, words="", key=None):
    """Check that loading this content is a FormatError with these words, and return its text."""
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
    """A name is only text. Even its module is not imported."""
    refuse(
        tmp_path, wrap(b"\x80\x02cthis\nanything\n)R."), "a whole pickled module or object (this.anything)"
    )
    assert "this" not in sys.modules


# ---------------------------------------------------------------- wrong numbers and opcodes


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
        # One list, which every call copies, unpacks or describes.
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
        # One list, which every call makes into a dict by a function that another one calls.
        (b"\x80\x02](" + b"(K\x01Nt" * 100_000 + b"eq\x000ctorch._tensor\n_rebuild_from_type_v2\nq\x010"
         b"ccollections\nOrderedDict\nctorch\nTensor\nh\x00\x85\x87q\x020](" + b"h\x01h\x02R" * 3000 + b"e.",
         "at most 2000000 operations"),
        (b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00h\x00ctorch\nTensor\n)\x87R.",
         "a tensor of the class torch.Tensor (not read)"),
        # One key whose hash takes time, used many times. Then many long names, all different.
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


# ---------------------------------------------------------------- more memory or work than the file is worth


def test_shared_dicts_do_not_multiply(tmp_path):
    """A dict that holds the next one twice, 30 deep, has 2^30 paths to the end."""
    content = {"end": 1}
    for _ in range(30):
        content = {"a": content, "b": content}
    refuse(tmp_path, zip_of(pickle.dumps(content, protocol=2)), "a state_dict, got dict of 2")


def test_long_and_many_keys_stay_short(tmp_path):
    """Names of a megabyte are cut, and only the first thousand values that are left out are listed."""
    tensor = tensor_pickle()[2:-1].partition(b"X\x06\x00\x00\x00weight")[2].removesuffix(b"s")

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
    """Python hashes every multiple of 2^61 - 1 to 0. A dict with this many such keys would take minutes."""
    keys = b"".join(pickle.dumps(k * (2**61 - 1), protocol=2)[2:-1] + b"N" for k in range(1, 200_001))
    refuse(tmp_path, zip_of(b"\x80\x02}(" + keys + b"u."), "a state_dict, got dict of 200000")
    ordered = b"\x80\x02ccollections\nOrderedDict\n]\x8a\x09" + b"\1" * 9 + b"N\x86a\x85R."
    refuse(tmp_path, zip_of(ordered), "a key that is not plain")


def typed_views(dtypes, keys):
    """A pickle of one tensor of one element for each dtype and each key of a storage of 8 bytes."""

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
    # The header of this one lies about the size. What does not fit is not read.
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
        (entry("(1,)", "'|O'", bytes(8)), "an array of Python objects. Only pickle"),
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


# ---------------------------------------------------------------- damaged and random files


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
def test_truncated_files_are_refused(golden, tmp_path, name):
    content = (golden / "files" / name).read_bytes()
    for size in [*range(0, len(content) - 1, 37), len(content) - 1]:
        refuse(tmp_path, content[:size])


@settings(max_examples=300)
@given(data=st.data())
def test_damaged_files_give_no_other_error(data):
    """With a few bytes changed anywhere, loading gives the weights or a FormatError, and nothing else."""
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
    """The worst of the files above, in a process with 1.5 GB of address space."""
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
