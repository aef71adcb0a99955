"""Layers written as text, and the program that `fastrnn info` shows."""

import re

import numpy as np
import pytest
from helpers import random_spec, random_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn.importers import Source
from fastrnn.importers.architecture import suggestion
from fastrnn.loading.expression import make_from_expression
from fastrnn.loading.verify import verify


@pytest.fixture
def path(rng, tmp_path):
    """A classifier whose file does not show the order of its layers, since its names are sorted."""
    arrays = {
        "embedding.weight": rng.standard_normal((11, 5)),
        "fc.0.weight": rng.standard_normal((7, 6)),
        "fc.0.bias": rng.standard_normal(7),
        "fc.2.weight": rng.standard_normal((3, 7)),
        "norm.weight": rng.standard_normal(6),
        "norm.bias": rng.standard_normal(6),
        **{f"rnn.{k}": v for k, v in random_tensors(rng, random_spec("gru", 5, 6)).items()},
    }
    np.savez(tmp_path / "a.npz", **arrays)
    return tmp_path / "a.npz"


WRITTEN = (
    "Sequential(Embedding(11, 5), GRU(5, 6, batch_first=True), Last(), LayerNorm(6, eps=1e-05), "
    "Linear(6, 7), ReLU(), Dropout(p=0.3), Linear(7, 3, bias=False), Softmax(dim=-1))"
)


@pytest.mark.parametrize(
    "text",
    (
        "embedding, GRU('rnn', batch_first=True), Last, norm, 'fc.0', ReLU, Dropout(0.3), 'fc.2', Softmax",
        "[embedding, GRU('rnn', batch_first=True), Last(), norm, 'fc.0', ReLU(), Dropout(p=0.3),\n"
        "'fc.2', Softmax(-1),]",
        """
import fastrnn

sd = fastrnn.load_state_dict("a.npz")
model = fastrnn.Sequential(
    fastrnn.Embedding.from_state_dict(sd, "embedding"),
    fastrnn.GRU.from_state_dict(sd, prefix="rnn", batch_first=True),  # a comment
    fastrnn.Last(),
    fastrnn.LayerNorm.from_state_dict(sd, "norm"),
    fastrnn.Sequential(fastrnn.Linear.from_state_dict(sd, "fc.0"), fastrnn.ReLU()),
    fastrnn.Dropout(0.3),
    fastrnn.Linear.from_state_dict(sd, "fc.2"),
    fastrnn.Softmax(dim=-1),
)
""",
    ),
)
def test_layers_are_read_as_written(run, path, tmp_path, text):
    status, out, err = run("convert", path, tmp_path / "m", "--layers", text)
    assert (status, err) == (0, "")
    assert out.startswith(WRITTEN)
    with pytest.warns(UserWarning, match="never compared"):
        assert repr(fastrnn.load(tmp_path / "m")) == WRITTEN
    (tmp_path / "layers.py").write_text(text)
    assert run("convert", path, tmp_path / "n", "--layers", f"@{tmp_path / 'layers.py'}")[0] == 0


def test_options_of_the_command_are_those_of_layers_without(run, path, tmp_path):
    layers = "embedding, rnn, norm"
    assert run("convert", path, tmp_path / "m", "--layers", layers, "--batch-first", "--last")[0] == 0
    with pytest.warns(UserWarning, match="never compared"):
        model = fastrnn.load(tmp_path / "m")
    assert repr(model).startswith(
        "Sequential(Embedding(11, 5), GRU(5, 6, batch_first=True), Last(), LayerNorm"
    )
    assert verify(tmp_path / "m")["taken_for_granted"] == ["no_activations"]


@pytest.mark.parametrize(
    "layers, options, words",
    (
        (
            "embedding, GRU('rnn', batch_first=False)",
            ("--batch-first",),
            "batch_first=True, as requested",
        ),
        ("embedding, rnn", ("--nonlinearity", "relu"), "a layer that takes nonlinearity, got none"),
        ("norm", ("--batch-first",), "a layer that takes batch_first, got none"),
    ),
)
def test_options_of_the_command_are_never_passed_over(run, path, tmp_path, layers, options, words):
    status, _, err = run("convert", path, tmp_path / "m", "--layers", layers, *options)
    assert status == 2 and words in err and not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "text, options, words",
    (
        ("rnn", (), 'nonlinearity="tanh" or "relu" for RNN, which no file says'),
        ("RNN('rnn', nonlinearity='tanh')", ("--nonlinearity", "relu"), "got RNN with nonlinearity='tanh'"),
        ("RNN('rnn', nonlinearity='relu')", ("--nonlinearity", "relu"), ""),
        ("rnn", ("--nonlinearity", "relu"), ""),
    ),
)
def test_the_nonlinearity_is_asked_for(rng, run, tmp_path, text, options, words):
    weights = {
        "rnn.weight_ih_l0": rng.standard_normal((4, 3)),
        "rnn.weight_hh_l0": rng.standard_normal((4, 4)),
    }
    np.savez(tmp_path / "a.npz", **weights)
    status, out, err = run("convert", tmp_path / "a.npz", tmp_path / "m", "--layers", text, *options)
    assert words in err and (status == 2 if words else "nonlinearity='relu'" in out)


def test_what_a_text_does_not_say_is_taken_for_granted(run, path, tmp_path):
    said = "embedding, GRU('rnn', batch_first=False), Last, norm, Softmax"
    for text, wanted in (
        (said, []),
        (said.replace(", Last", ""), ["every_step"]),
        (said.replace(", Softmax", "").replace(", batch_first=False", ""), ["time_first", "no_activations"]),
    ):
        assert run("convert", path, tmp_path / "m", "--layers", text)[0] == 0
        assert verify(tmp_path / "m")["taken_for_granted"] == wanted


@pytest.mark.parametrize(
    "text, words",
    (
        ("", "at least one layer"),
        ("embedding; rnn", "2 statements"),
        ("def f(): pass", "a program of other statements"),
        ("embedding,, rnn", "not Python"),
        (
            "nothing",
            'a layer, or one of the modules "embedding", "fc.0", "fc.2", "norm" and "rnn", got "nothing"',
        ),
        ("fc", "a layer, or one of the modules"),
        ("Conv2d(3)", 'one of "RNN", .* got "Conv2d"'),
        ("GRU('rnn', colour=1)", r'options of GRU \("batch_first" and "precision"\), got "colour"'),
        ("GRU('rnn', True)", "GRU with options by their names"),
        ("GRU('rnn', **{})", "options of GRU"),
        ("GRU('nothing')", 'keys that begin with "nothing."'),
        ("LSTM('rnn')", "the weights of LSTM, got those of GRU"),
        ("Softmax(open('x'))", "names of layers and modules, numbers and strings, got open"),
        ("__import__('os').system('touch mark')", "one of .*system"),
        ("rnn + rnn", "names of layers and modules"),
        ("[x for x in rnn]", "names of layers and modules"),
        ("embedding, norm", "expected 6 features, got 5 from the layer before"),
        ("Softmax(dim='x')", "dim"),
        ("(" * 200 + "rnn" + ")" * 200, ""),
        ("x" * 100_001, "a text of at most"),
    ),
)
def test_texts_that_are_no_layers_are_named(run, path, tmp_path, monkeypatch, text, words):
    monkeypatch.chdir(tmp_path)
    status, _, err = run("convert", path, "m", "--layers", text)
    assert status == 2 or not words
    assert re.search(words, err) and not (tmp_path / "mark").exists()
    if words:
        assert not (tmp_path / "m").exists()


@settings(max_examples=200)
@given(st.text(alphabet="abcde_.,()[]'\"=0123 \n@*lambda:if", max_size=60))
def test_any_text_is_layers_or_a_value_error(text):
    state_dict = fastrnn.StateDict(
        {"rnn.weight_ih_l0": np.ones((3, 1)), "rnn.weight_hh_l0": np.ones((3, 1))}, "npz"
    )
    with np.errstate(all="ignore"):
        try:
            make_from_expression(Source(b""), state_dict, text)
        except (ValueError, TypeError):
            pass


# ---------------------------------------------------------------- what info shows


def modules_of(data, rng):
    """The tensors of some modules, which may or may not fit one after another."""
    size = st.integers(1, 4)
    arrays = {}
    for index in range(data.draw(st.integers(0, 6))):
        path = data.draw(
            st.sampled_from(["", "emb", "fc", "a.b", "x y", 'q"uote', "new\nline", "\u00e9\U0001f600", "0"])
        )
        name = f"{path}.{index}." if path else f"m{index}."
        kind = data.draw(
            st.sampled_from(["gru", "lstm", "rnn_tanh", "linear", "embedding", "norm", "conv", "lstm_proj"])
        )
        i, h = data.draw(size), data.draw(size)
        if kind in ("gru", "lstm", "rnn_tanh", "lstm_proj"):
            spec = random_spec(
                kind, i, h + (kind == "lstm_proj"), data.draw(st.integers(1, 2)), data.draw(st.booleans())
            )
            arrays |= {name + key: array for key, array in random_tensors(rng, spec).items()}
        elif kind == "norm":
            arrays |= {f"{name}weight": np.ones(h), f"{name}bias": np.ones(h)}
        elif kind == "conv":
            arrays |= {f"{name}weight": np.ones((h, i, 3))}
        else:
            arrays |= {f"{name}weight": np.ones((h, i))}
            arrays |= {f"{name}bias": np.ones(h)} if kind == "linear" else {}
    return arrays


@settings(max_examples=150)
@given(data=st.data())
def test_the_program_that_info_shows_runs_as_it_stands(data, tmp_path_factory):
    rng = np.random.default_rng(0)
    arrays = modules_of(data, rng)
    if not arrays:
        return
    state_dict = fastrnn.StateDict(arrays, "npz")
    text = suggestion(Source("weights.npz"), state_dict)
    text = text.replace('fastrnn.load_state_dict("weights.npz")', "given")
    scope = {"given": state_dict}
    exec(compile(text, "info", "exec"), scope)
    wanted = sum(
        re.fullmatch(r"\s+fastrnn\.\w+\.from_state_dict\(.*", line) is not None for line in text.split("\n")
    )
    assert len(scope["model"].layers if "model" in scope else ()) == wanted
    # Every module is in the program or in a comment.
    for key in arrays:
        path = key.rpartition(".")[0]
        assert (
            repr(path)[1:-1] in text
            or path in text
            or "".join(c if c.isprintable() else "?" for c in path) in text
        )


def test_info_prints_a_program_that_runs(run, path, tmp_path):
    status, out, _ = run("info", path)
    program = out[out.index("import fastrnn") :]
    assert status == 0 and f'sd = fastrnn.load_state_dict("{path}")' in program
    scope = {}
    exec(program, scope)
    assert repr(scope["model"]).startswith(
        "Sequential(Embedding(11, 5), GRU(5, 6), Linear(6, 7), Linear(7, 3"
    )
    # The program can be passed back as the layers.
    assert run("convert", path, tmp_path / "m", "--layers", program)[0] == 0
    assert "    # fc.1 has no weights: perhaps an activation\n" in program
    assert '# fastrnn.LayerNorm.from_state_dict(sd, "norm"),  # does not fit' in program
    assert "fastrnn.Last()" in program and "batch_first=True" in program and "fastrnn.Sigmoid()" in program


def test_an_error_keeps_its_lines(run, path):
    status, _, err = run("convert", path, "m")
    assert status == 2 and err.startswith("fastrnn convert: a.npz: expected a plain architecture, got ")
    program = err[err.index("import fastrnn") :]
    assert program.count("\n") > 8 and "?" not in program
    exec(program, {})


def test_the_order_is_that_in_which_modules_fit(tmp_path, rng):
    """safetensors sorts names, so fc comes before lstm."""
    arrays = {
        "fc.weight": rng.standard_normal((6, 6)),
        "fc.bias": rng.standard_normal(6),
        "norm.weight": np.ones(6),
        "norm.bias": np.ones(6),
        **{f"lstm.{k}": v for k, v in random_tensors(rng, random_spec("lstm", 3, 6)).items()},
    }
    text = suggestion(Source("a"), fastrnn.StateDict(arrays, "npz"))
    assert text.index('"lstm"') < text.index('"fc"')
    assert "eps=" in text
