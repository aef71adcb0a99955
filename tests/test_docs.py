"""The documentation: links lead somewhere, programs run, and messages are quoted as they are."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from helpers import random_layer

import fastrnn
from fastrnn.spec import GRANTED
from fastrnn.streaming.errors import taken_stream

ROOT = Path(__file__).resolve().parents[1]
PAGES = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md"), *ROOT.glob("examples/*.md")]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

CODE = re.compile(r"^```.*?^```", re.M | re.S)
PYTHON = re.compile(r"^```python\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def anchors(page):
    """What links to the headings of a page end with, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub("", page.read_text(encoding="utf-8")), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page):
    for link in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        path, _, anchor = link.partition("#")
        if path.startswith("https:"):
            continue
        target = page.parent / path if path else page
        if not target.exists() and not (ROOT / "docs" / "README.md").is_file():
            pytest.skip("the docs are not beside the tests")
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_programs_are_python(page):
    for program in PYTHON.findall(page.read_text(encoding="utf-8")):
        compile(program, str(page), "exec")


def read(name):
    """A page, or a skipped test if the docs are not beside the tests."""
    path = ROOT / name
    if not path.is_file():
        pytest.skip("the docs are not beside the tests")
    return path.read_text(encoding="utf-8")


# ---------------------------------------------------------------- programs


@pytest.fixture
def training(tmp_path, monkeypatch):
    """What the program that trained the classifier of the pages has, in a folder of its own."""
    torch = pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)

    class Classifier(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = torch.nn.Embedding(50, 8)
            self.lstm = torch.nn.LSTM(8, 6, batch_first=True)
            self.dropout, self.fc, self.sig = torch.nn.Dropout(), torch.nn.Linear(6, 1), torch.nn.Sigmoid()

        def forward(self, tokens):
            output, _ = self.lstm(self.embedding(tokens))  # batch_first=True
            return self.sig(self.fc(self.dropout(output[:, -1])))

    torch.manual_seed(0)
    module, tokens = Classifier(), torch.randint(50, (4, 9))
    return {"torch": torch, "np": np, "module": module, "model": module, "tokens": tokens}


def test_programs_of_the_readme_run(training, rng):
    fastrnn.Sequential(random_layer(rng, "GRU", 64, 5, precision="float32")).save("model.safetensors")
    first, training_program, layers, compared, exporting, pool = PYTHON.findall(read("README.md"))
    exec(first, {})
    exec(training_program, training)
    exec(exporting, training)
    program = fastrnn.load("program.safetensors")
    assert program.verify(np.load("x.npy"), np.load("y.npy"))["passed"]
    names = {}
    for program in (layers, compared, pool):
        exec(program, names)
    assert names["model"].verify(names["x"], names["y"])["passed"] and names["Y"].shape == (2, 1)
    assert fastrnn.load("sentiment.safetensors").example is not None


def test_programs_of_getting_started_run(training, run):
    demo, _, training_program, shown, *others = PYTHON.findall(read("docs/getting-started.md"))
    exec(demo, {})
    exec(training_program, training)
    assert run("info", "sentiment.pt")[1].endswith(f"\n{shown}")
    names = {}
    for program in (shown, *others):
        exec(program, names)
    assert names["model"].verify(np.load("x.npy"), np.load("y.npy"))["passed"]


def test_programs_of_verifying_run(training):
    text = read("docs/verifying.md")
    training_program, compared, hint, saved, _ = PYTHON.findall(text)
    exec(training_program, training)
    training["torch"].save(training["module"].state_dict(), "sentiment.pt")
    sd = fastrnn.load_state_dict("sentiment.pt")
    model = fastrnn.Sequential(
        fastrnn.Embedding.from_state_dict(sd, "embedding"),
        fastrnn.LSTM.from_state_dict(sd, "lstm", batch_first=True),
        fastrnn.Last(),
        fastrnn.Linear.from_state_dict(sd, "fc"),
        fastrnn.Sigmoid(),
    )
    names = {"model": model, "np": np, "fastrnn": fastrnn}
    exec(compared, names)
    call, *comments = hint.strip().splitlines()
    assert eval(call, names) == " ".join(line.removeprefix("# ") for line in comments)
    exec(saved, names)
    assert set(GRANTED) == set(re.findall(r'^\| `"(\w+)"` \|', text, re.M))


def test_program_of_several_heads_runs(rng, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = read("docs/layers.md").partition("### Several heads")[2]
    gru = random_layer(rng, "GRU", 6, 6, precision="float32").tensors
    shapes = {"encoder": (6, 4), "policy": (3, 6), "value": (1, 6)}
    sd = {f"{name}.weight": rng.standard_normal(shape) for name, shape in shapes.items()}
    sd |= {f"gru.{name}": array for name, array in gru.items()}
    names = {"fastrnn": fastrnn, "sd": sd, "x": rng.standard_normal((5, 2, 4)).astype(np.float32)}
    exec(PYTHON.search(text)[1], names)
    assert {name: array.shape for name, array in names["outputs"].items()} == {
        "policy": (2, 3),
        "value": (2, 1),
    }
    assert fastrnn.load("agent.safetensors").verify()["passed"]


# ---------------------------------------------------------------- messages


def saved_and_loaded(folder, rng, **options):
    np.savez(folder / "g.npz", **random_layer(rng, "GRU", 3, 3).tensors)
    fastrnn.load(folder / "g.npz").save(folder / "g.safetensors")
    return fastrnn.load(folder / "g.safetensors", **options)


def messages(rng, golden, folder):
    """The messages that the page quotes, each from what it is about. Those of an installation are read."""

    class Mine(fastrnn.LSTM):
        pass

    lstm = random_layer(rng, "LSTM", 4, 4, precision="float32")
    gru = fastrnn.Sequential(random_layer(rng, "GRU", 3, 3))
    embedding = fastrnn.Embedding.from_state_dict({"weight": np.ones((50, 3))})
    two = {f"{part}.{name}": array for part in "ab" for name, array in lstm.tensors.items()}
    np.savez(folder / "two.npz", **two)
    np.savez(folder / "objects.npz", v=np.ones(3), w=np.array([None]))
    begin = b"".join(
        pickle.dumps(part, 2) for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    hostile = begin + b"\x80\x02cposix\nsystem\n(X\x04\x00\x00\x00truetR."
    mine = fastrnn.Sequential(Mine.from_state_dict(lstm.tensors))
    x, y, with_nan = np.ones((3, 2, 4)), np.ones((2, 3)), np.array([[np.nan, 1, 1], [1, 1, 1]])
    broken = np.ones((16, 4))
    broken[3] = np.inf
    pool = lstm.pool()
    closed = pool.open()
    pool.close(closed)
    for call in (
        lambda: lstm(np.ones((3, 2, 5))),
        lambda: fastrnn.load_state_dict(golden / "files" / "whole_module.pt"),
        lambda: fastrnn.load(folder / "two.npz"),
        lambda: fastrnn.load_state_dict(golden / "files" / "two_models.pt"),
        lambda: fastrnn.load_state_dict(b"<!DOCTYPE html><html></html>"),
        lambda: fastrnn.load_state_dict(hostile),
        lambda: fastrnn.LSTM.from_state_dict(two),
        lambda: fastrnn.GRU.from_state_dict(lstm.tensors),
        lambda: saved_and_loaded(folder, rng, batch_first=True),
        lambda: fastrnn.LSTM.from_state_dict(lstm.tensors, precision=np.float32),
        lambda: fastrnn.LayerNorm(3, precision="int8"),
        lambda: fastrnn.LSTM.from_state_dict({**lstm.tensors, "weight_hh_l0": broken}, precision="int8"),
        lambda: fastrnn.load_state_dict(folder / "objects.npz")["w"],
        lambda: embedding(np.ones(3)),
        lambda: embedding([50]),
        lambda: lstm(x, lengths=[0, 3]),
        lambda: lstm(x, out=[1]),
        lambda: gru.save(folder / "never", example=(y, y)),
        lambda: gru.save(folder / "never", example=(y, with_nan)),
        lambda: mine.save(folder / "never"),
        random_layer(rng, "LSTM", 4, 4, bidirectional=True).stream,
        lambda: pool.step([closed], np.ones((1, 4))),
    ):
        with pytest.raises((ValueError, TypeError)) as caught:
            call()
        yield str(caught.value)
    with pytest.warns(UserWarning) as told:
        saved_and_loaded(folder, rng)
    yield f"UserWarning: {told[0].message}"
    yield from (str(taken_stream("Stream.step", is_torn)) for is_torn in (False, True))
    setup, built = read("setup.py"), read("fastrnn/_built.py")
    yield setup + setup.replace("{missing}", "no C compiler works here")
    yield f"ImportError: {built[built.index('fastrnn: expected') :]}"


def test_quoted_messages_are_those_that_come(rng, golden, tmp_path):
    text = read("docs/errors.md")
    quoted = re.findall(r"\*\*`(.*?)`", text) + re.findall(r"^```\n(.*?)\n```", text, re.M | re.S)
    assert len(quoted) > 20
    made = list(messages(rng, golden, tmp_path))
    for words in quoted:
        pattern = ".*".join(map(re.escape, words.split("...")))
        assert any(re.search(pattern, message) for message in made), words
