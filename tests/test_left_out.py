"""What lies beside the weights: plain values stay as they are, the rest is stand-ins, nothing is called."""

import copy
import datetime
import enum
import functools
import json
import operator
import pathlib
import pickle
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import WAYS, save
from pickles import legacy_of, tensor_pickle, zip_of

import fastrnn
from fastrnn.importers.dangerous_names import is_dangerous
from fastrnn.importers.state_dict import StandIn
from fastrnn.importers.tensors import Storage


class Color(enum.Enum):
    RED = 1


class Config:
    def __init__(self):
        self.hidden = 4
        self.names = ["a", "b"]


class Schedule:
    def step(self):
        pass


FOREIGN = {
    "bound": Schedule().step,
    "function": getattr,
    "enum": Color.RED,
    "path": pathlib.PurePosixPath("a/b"),
    "none_type": type(None),
    "itemgetter": operator.itemgetter(1),
    "alias": list[int],
    "config": Config(),
    "namespace": SimpleNamespace(lr=0.1),
    "partial": functools.partial(print, 1),
}


@pytest.mark.parametrize("protocol", (2, 4))
@pytest.mark.parametrize("wrap", (zip_of, legacy_of))
@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_names_beside_the_weights_are_inert(tmp_path, wrap, name, protocol):
    inner = tensor_pickle()[2:].removeprefix(b"}").removesuffix(b"s.")
    beside = pickle.dumps(FOREIGN[name], protocol=protocol)
    beside = beside[
        2 if protocol == 2 else 11 : -1
    ]  # without its beginning (for protocol 4 that of a frame, too) and end
    pickled = b"\x80" + bytes([protocol]) + b"}X\5\0\0\0extra" + beside + b"s" + inner + b"s."
    data = np.arange(4, dtype=np.float32).tobytes()
    content = (
        zip_of(pickled, {"0": data})
        if wrap is zip_of
        else legacy_of(pickled, ["0"], struct.pack("<q", 4) + data)
    )
    found = fastrnn.load_state_dict(content)
    assert list(found) == ["weight"] and list(found.left_out) == ["extra"]
    assert isinstance(found.left_out["extra"], fastrnn.StandIn)


def test_stand_ins_tell_what_they_would_have_been(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": torch.nn.Linear(2, 3).state_dict(), **FOREIGN}, tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt").left_out
    assert found["config"].name.endswith("Config") and found["config"].state == {
        "hidden": 4,
        "names": ["a", "b"],
    }
    assert found["namespace"].state == {"lr": 0.1}
    assert found["enum"].name.endswith("Color") and found["enum"].arguments == (1,)
    assert found["path"].name.endswith("PurePosixPath") and found["path"].arguments == ("a", "b")


@pytest.mark.parametrize(
    "name",
    (
        "os.system",
        "posix.system",
        "nt.system",
        "subprocess.run",
        "subprocess.Popen.wait",
        "builtins.eval",
        "builtins.exec",
        "builtins.__import__",
        "builtins.compile",
        "__builtin__.eval",
        "importlib.import_module",
        "runpy.run_path",
        "pty.spawn",
        "pickle.loads",
        "torch.load",
        "shutil.rmtree",
        "os.path.os.system",
        "numpy.os.system",
        "types.FunctionType",
    ),
)
def test_dangerous_names_are_known(name):
    module, _, last = name.partition(".")
    if module == "numpy":
        assert is_dangerous("numpy", "os.system")
    elif name == "os.path.os.system":
        assert is_dangerous("os.path", "os.system")
    else:
        assert is_dangerous(module, last)
        assert is_dangerous("some.module", name)


@pytest.mark.parametrize(
    "module, name",
    (
        ("builtins", "getattr"),
        ("builtins", "type"),
        ("operator", "itemgetter"),
        ("pathlib._local", "PosixPath"),
        ("functools", "partial"),
        ("types", "GenericAlias"),
        ("config", "Config"),
        ("code.model", "Net"),
        ("platform", "node"),
        ("threading", "Lock"),
        ("models.system", "System"),
    ),
)
def test_harmless_names_are_not_dangerous(module, name):
    assert not is_dangerous(module, name)


def values():
    """Plain values, as scripts save them beside the weights."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    return {
        "number": 7,
        "text": "abc",
        "nothing": None,
        "list": [1, [2.5, "x"]],
        "tuple": (1, (2,)),
        "set": {1, 2},
        "frozen": frozenset("ab"),
        "bytes": b"\x00\xff",
        "complex": 1 + 2j,
        "slice": slice(1, 5),
        "range": range(3),
        "date": datetime.date(2024, 2, 29),
        "time": datetime.datetime(
            2024, 2, 29, 1, 2, 3, 4, tzinfo=datetime.timezone(datetime.timedelta(hours=2))
        ),
        "delta": datetime.timedelta(1, 2, 3),
        "counter": Counter("aab"),
        "default": defaultdict(list, a=[1]),
        "ordered": OrderedDict(b=1, a=2),
        "deque": deque([1, 2], 5),
        "scalar": np.float64(1.5),
        "int": np.int64(3),
        "array": array,
        "fortran": np.asfortranarray(array),
        "texts": np.array(["ab", "c"]),
        "dates": np.array(["2024-02-29"], "M8[D]"),
        "flags": np.array([True, False]),
        "empty": np.zeros((0, 3)),
        "big": np.array([1, 2], ">i4"),
        "nested": {"a": {"b": {"c": [np.ones(2)]}}},
        "bytearray": bytearray(b"ab"),
        "keys": {1: "a", (1, 2): "b", None: "c", b"x": "d"},
    }


def assert_equal(got, wanted):
    if isinstance(wanted, np.ndarray):
        assert isinstance(got, np.ndarray) and got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)
        assert not got.flags.writeable
    elif isinstance(wanted, dict):
        assert isinstance(got, dict) and list(got) == list(wanted)
        for key, value in wanted.items():
            assert_equal(got[key], value)
    elif isinstance(wanted, (list, tuple, deque)):
        assert isinstance(got, tuple if isinstance(wanted, tuple) else list) and len(got) == len(wanted)
        for one, other in zip(got, wanted, strict=True):
            assert_equal(one, other)
    else:
        assert got == wanted


@pytest.mark.parametrize("protocol", (2, 4, 5))
@pytest.mark.parametrize("way", WAYS)
def test_plain_values_beside_the_weights_come_as_they_are(tmp_path, way, protocol):
    torch = pytest.importorskip("torch")
    options = {"_use_new_zipfile_serialization": way == "zip", "pickle_protocol": protocol}
    content = {"state_dict": torch.nn.Linear(2, 3).state_dict(), **values(), "tensor": torch.arange(3)}
    torch.save(content, tmp_path / "a.pt", **options)
    found = fastrnn.load_state_dict(tmp_path / "a.pt").left_out
    wanted = {**values(), "tensor": np.arange(3)}
    assert list(found) == list(wanted)
    for name, value in wanted.items():
        assert_equal(found[name], value)
    json.dumps(found["nested"]["a"]["b"], default=np.ndarray.tolist)


def test_values_of_a_file_cannot_be_changed(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"state_dict": torch.nn.Linear(2, 3).state_dict(), **values()}, tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt").left_out
    for change in (
        lambda: found["list"].append(1),
        lambda: found["nested"]["a"].clear(), lambda: found["list"].__setitem__(0, 1),
        lambda: found["keys"].setdefault("new", 1), lambda: found["list"][1].sort(),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"read-only use of a value, got a change. copy.deepcopy"):
            change()
    with pytest.raises(ValueError, match="read-only"):
        found["array"][0, 0] = 1
    own = copy.deepcopy(dict(found))
    own["list"].append(1)
    assert own["list"] == [1, [2.5, "x"], 1] and found["list"] == [1, [2.5, "x"]]
    with pytest.raises(TypeError, match="does not support item assignment"):
        found["number"] = 8
    again = pickle.loads(pickle.dumps(fastrnn.load_state_dict(tmp_path / "a.pt")))
    assert again.left_out["text"] == "abc"


def test_values_that_hold_themselves_come_to_an_end(tmp_path):
    torch = pytest.importorskip("torch")
    loop = [1]
    loop.append(loop)
    deep = []
    for _ in range(300):
        deep = [deep]
    wide = ["x"]
    for _ in range(40):
        wide = [wide, wide]
    content = {"state_dict": torch.nn.Linear(2, 3).state_dict(), "loop": loop, "deep": deep, "wide": wide}
    torch.save(content, tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt").left_out
    assert found["loop"][1] is found["loop"]
    assert found["wide"][0] is found["wide"][1]
    value = found["deep"]
    while isinstance(value, list):
        value = value[0]
    assert "nested more than" in value.reason


def test_a_pandas_table_is_a_stand_in(tmp_path):
    """A value that is not plain keeps its name and what it would have been made from."""
    pandas_like = b"cpandas.core.frame\nDataFrame\n)\x81}X\x01\0\0\0aK\x01sb"
    pickled = tensor_pickle()[:-1] + b"X\x05\0\0\0table" + pandas_like + b"s."
    found = fastrnn.load_state_dict(zip_of(pickled, {"0": bytes(16)}))
    assert found.left_out["table"].name == "pandas.core.frame.DataFrame"
    assert found.left_out["table"].state == {"a": 1}
    assert repr(found.left_out["table"]) == "<stand-in for pandas.core.frame.DataFrame>"


def test_values_are_read_when_they_are_asked_for(tmp_path, monkeypatch):
    """Loading reads no tensor of an optimizer. Asking for one opens the file again."""
    torch = pytest.importorskip("torch")
    module = torch.nn.Linear(200, 300)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.ones(1, 200)).sum().backward()
    optimizer.step()
    wanted = optimizer.state_dict()["state"][0]["exp_avg"].numpy()
    reads = []
    elements = Storage.elements

    def count(self, dtype):
        reads.append(dtype)
        return elements(self, dtype)

    monkeypatch.setattr(Storage, "elements", count)
    for way in WAYS:
        content = {"model": module.state_dict(), "optimizer": optimizer.state_dict()}
        path = save(torch, content, tmp_path / way, way)
        for file in (path, path.read_bytes()):
            reads.clear()
            found = fastrnn.load_state_dict(file)
            assert len(reads) == 2
            np.testing.assert_array_equal(found.left_out["optimizer"]["state"][0]["exp_avg"], wanted)
            assert found.left_out["optimizer"] is found.left_out["optimizer"]


def test_values_of_a_file_that_changed_are_an_os_error(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({"model": torch.nn.Linear(2, 3).state_dict(), "mean": torch.ones(3)}, tmp_path / "a.pt")
    gone, changed, kept = (fastrnn.load_state_dict(tmp_path / "a.pt") for _ in range(3))
    assert kept.left_out["mean"].sum() == 3
    torch.save({"model": torch.nn.Linear(2, 3).state_dict(), "mean": torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(OSError, match="changed after it was loaded"):
        changed.left_out["mean"]
    (tmp_path / "a.pt").unlink()
    with pytest.raises(FileNotFoundError):
        gone.left_out["mean"]
    assert kept.left_out["mean"].sum() == 3


def test_keys_of_every_kind_keep_their_values(tmp_path):
    torch = pytest.importorskip("torch")
    day = datetime.date(2024, 2, 29)
    content = {
        "model": torch.nn.Linear(2, 3).state_dict(),
        1: "number",
        "1": "text",
        "days": {day: 5, (1, day): 6},
    }
    torch.save(content, tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt").left_out
    assert sorted(str(value) for name, value in found.items() if name.startswith("1")) == ["number", "text"]
    assert found["days"][day] == 5


def test_a_stand_in_says_where_its_attributes_are():
    stand_in = StandIn("argparse.Namespace", state={"hidden": 4})
    with pytest.raises(AttributeError, match=r"the stand-in for argparse\.Namespace: .* are in `state`"):
        _ = stand_in.hidden
    assert copy.copy(stand_in).state == {"hidden": 4} == pickle.loads(pickle.dumps(stand_in)).state


def test_stand_ins_are_only_read(tmp_path):
    stand_in = fastrnn.StandIn("a.B")
    with pytest.raises(AttributeError):
        stand_in.name = "c"
