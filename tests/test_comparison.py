"""`fastrnn.compare` and ``fastrnn verify --against``: what they find, and what they say."""

import json

import numpy as np
import pytest
from helpers import arrays_of, make_layer, random_layer, random_spec, random_state, random_tensors

import fastrnn
from fastrnn.comparison import comparing
from fastrnn.comparison.differences import Cost, error_of
from fastrnn.layers.registry import make_layers
from fastrnn.narrow import STORAGES

QUICK = {"steps": 40, "rounds": 1}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No test looks at a time."""
    monkeypatch.setattr(comparing, "ROUND_SECONDS", 1e-5)
    monkeypatch.setattr(comparing, "FEWEST_ROUNDS", 1)


def two(rng, precision="bfloat16", **options):
    """A model in float32 and at another precision."""
    spec = random_spec("lstm", 5, 7, num_layers=2)
    weights = {"weight": rng.standard_normal((3, 7)).astype(np.float32)}
    layers = [
        make_layer(spec, random_tensors(rng, spec, np.float32), **options),
        fastrnn.Linear.from_state_dict(weights),
        fastrnn.Sigmoid(),
    ]
    specs = [layer.spec() for layer in layers]
    return fastrnn.Sequential(*layers), fastrnn.Sequential(*make_layers(specs, precision))


@pytest.mark.parametrize("precision", STORAGES)
def test_errors_are_those_of_every_layer_and_result(rng, precision):
    a, b = two(rng, precision)
    x = rng.standard_normal((9, 2, 5)).astype(np.float32)
    found = fastrnn.compare(a, b, x, **QUICK)
    names = ["layer 0, LSTM", "layer 1, Linear", "layer 2, Sigmoid"]
    assert [error.name for error in found.layers] == names
    (y, state), (other, after) = a(x), b(x)
    pairs = zip([y, *arrays_of(state)], [other, *arrays_of(after)], strict=True)
    wanted = [(np.abs(one - two).max(), np.abs(one - two).mean(dtype=np.float64)) for one, two in pairs]
    assert [error.name for error in found.results] == ["y", "state0", "state1"]
    np.testing.assert_allclose([(e.largest, e.mean) for e in found.results], wanted, rtol=1e-5)
    first = np.abs(a.layers[0](x)[0] - b.layers[0](x)[0]).max()
    assert found.layers[0].largest == first > 0
    assert found.layers[-1].largest == found.results[0].largest
    assert found.largest_error == max(error.largest for error in found.results)


def test_the_same_model_has_no_error(rng):
    a, _ = two(rng)
    found = fastrnn.compare(a, a, rng.standard_normal((4, 5)), **QUICK)
    assert found.largest_error == 0 and found.growth == 1 and "Errors do not grow" in str(found)
    assert found.a.stored_bytes == found.b.stored_bytes


def test_a_long_run_repeats_x(rng):
    """Its errors are those of one call over all steps."""
    a, b = two(rng)
    x = rng.standard_normal((7, 2, 5)).astype(np.float32)
    found = fastrnn.compare(a, b, x, steps=200, rounds=1)
    whole = np.resize(x, (200, 2, 5))
    errors = np.abs(a(whole)[0].astype(np.float64) - b(whole)[0])
    assert [point.step for point in found.drift] == [2, 20, 100, 200]
    for point in found.drift:
        window = errors[point.step - 2 : point.step]
        assert (point.largest, point.mean) == pytest.approx((window.max(), window.mean()))
    assert found.growth == pytest.approx(found.drift[-1].mean / found.drift[1].mean)


@pytest.mark.parametrize("batch_first", (False, True))
def test_states_lengths_and_layouts(rng, batch_first):
    spec = random_spec("lstm", 5, 7, num_layers=2)
    a, b = two(rng, batch_first=batch_first)
    x, state = rng.standard_normal((3, 3, 5)), random_state(rng, spec, 3)
    lengths = [1, 3, 2]
    found = fastrnn.compare(a, b, (x, state), lengths=lengths, **QUICK)
    wanted = np.abs(a(x, state, lengths=lengths)[0] - b(x, state, lengths=lengths)[0]).max()
    assert found.results[0].largest == wanted and len(found.drift) == 4
    assert found.layers[-1].largest == wanted


def test_what_cannot_stream_runs_at_once(rng):
    layer = random_layer(rng, "GRU", 5, 6, bidirectional=True, precision="float32")
    (narrow,) = make_layers([layer.spec()], "int8")
    x = rng.standard_normal((9, 2, 5))
    found = fastrnn.compare(layer, narrow, x, **QUICK)
    assert len(found.drift) == 4 and found.drift[-1].largest > 0
    a, b = (fastrnn.Sequential(one, fastrnn.Last()) for one in (layer, narrow))
    found = fastrnn.compare(a, b, x, **QUICK)
    assert not found.drift and found.growth is None
    assert found.notes[0] == (
        "There was no long run: compare: expected an output for each step, got the last one alone."
    )


def test_tokens(rng):
    embedding = fastrnn.Embedding.from_state_dict({"weight": rng.standard_normal((11, 5))})
    models = [
        fastrnn.Sequential(*make_layers([embedding.spec(), layer.spec()], precision))
        for layer in [random_layer(rng, "GRU", 5, 6, precision="float32")]
        for precision in ("float32", "bfloat16")
    ]
    found = fastrnn.compare(*models, rng.integers(11, size=(6, 2)), **QUICK)
    assert 0 < found.largest_error < 0.1 and len(found.layers) == 2 and len(found.drift) == 4


def test_a_program_beside_a_model_and_another_program(rng):
    tensors = {"weight_ih_l0": (12, 5), "weight_hh_l0": (12, 4), "bias_ih_l0": (12,), "bias_hh_l0": (12,)}
    gru = fastrnn.GRU.from_state_dict({n: rng.uniform(-0.5, 0.5, shape) for n, shape in tensors.items()})
    heads = {name: fastrnn.Linear.from_state_dict({"weight": rng.standard_normal((2, 4))}) for name in "pv"}
    program = fastrnn.with_heads(gru, **heads)
    wide = fastrnn.Program(program.spec, precision="float64")
    x = rng.standard_normal((6, 2, 5))
    found = fastrnn.compare(program, wide, x, **QUICK)
    assert 0 < found.largest_error < 1e-5 and len(found.results) == 3 and not found.layers
    assert found.b.stored_bytes == 2 * found.a.stored_bytes
    assert len(found.drift) == 4 and found.drift[-1].largest < 1e-5


def test_numbers_are_json(rng):
    a, b = two(rng)
    found = fastrnn.compare(a, b, rng.standard_normal((4, 2, 5)), **QUICK)
    read = json.loads(json.dumps(found.as_dict()), parse_constant=pytest.fail)
    assert read["results"][0]["largest"] == found.results[0].largest
    assert read["largest_error"] == found.largest_error
    assert read["a"]["stored_bytes"] > read["b"]["stored_bytes"] > 0


def test_sizes(rng):
    a, b = two(rng, "int8")
    found = fastrnn.compare(a, b, np.zeros((2, 5)), **QUICK)
    wanted = sum(w.nbytes for layer in b.layers for w in layer.spec().tensors.values())
    assert found.b.stored_bytes == wanted < found.b.memory_bytes


def test_nan_and_infinity():
    a, b = np.array([1, np.nan, np.inf, 2.0]), np.array([1, np.nan, np.inf, 4.0])
    error = error_of("y", a, b)
    assert (error.largest, error.mean, error.scale) == (2, 0.5, 2)
    assert np.isnan(error_of("y", a, np.array([1, np.nan, 3, 2.0])).largest)
    assert np.isnan(error_of("y", a, np.array([np.nan, np.nan, np.inf, 2.0])).largest)


def test_a_slower_narrow_model_is_called_slower():
    def told(bytes_of_b, time_of_b):
        return comparing._of_costs(Cost("a", 400, 800, 10.0), Cost("b", bytes_of_b, 200, time_of_b))

    assert told(100, 15.0) == [
        "The weights of b take 4.00 times less room in files.",
        "b is smaller, but it is SLOWER on this machine: 15.0 us instead of 10.0 us, 1.50 times as long.",
    ]
    assert told(100, 5.0)[1] == "b is 2.00 times as fast as a on this machine: 5.00 us instead of 10.0 us."
    assert told(400, 10.1) == ["Both take the same time on this machine: 10.1 us instead of 10.0 us."]
    assert told(800, 15.0)[1].startswith("b is slower than a")


def test_growing_errors_are_told(rng):
    a, b = (fastrnn.Sequential(*make_layers(specs)) for specs in _integrators(rng))
    found = fastrnn.compare(a, b, np.ones((4, 1, 1)), steps=100, rounds=1)
    assert 8 < found.growth < 12
    assert found.notes[0].startswith("The mean error grows: after 100 steps it is ")


def _integrators(rng):
    """Two sums of inputs whose weights differ a little."""
    for weight in (0.25, 0.2500001):
        tensors = {"weight_ih_l0": np.full((1, 1), weight), "weight_hh_l0": np.ones((1, 1))}
        yield [fastrnn.RNN.from_state_dict(tensors, nonlinearity="relu", precision="float64").spec()]


@pytest.mark.parametrize(
    "change, words",
    (
        (
            lambda a, x: (a, "b", x),
            "compare: expected a model, a Program or a layer over sequences, got 'b'.",
        ),
        (lambda a, x: (a, fastrnn.Sequential(a, fastrnn.Last()), x), "y of shape (4, 2, 3) from b"),
        (lambda a, x: (a, fastrnn.Sigmoid(), x), "as many results as a has, y, state0 and state1, got y."),
        (lambda a, x: (a, a, x[..., :2]), "x of shape (T, B, 5)"),
    ),
)
def test_what_does_not_fit_is_refused(rng, change, words):
    a, _ = two(rng)
    with pytest.raises((ValueError, TypeError)) as caught:
        fastrnn.compare(*change(a, rng.standard_normal((4, 2, 5))), **QUICK)
    assert words in str(caught.value)


# ---------------------------------------------------------------- the command


@pytest.fixture
def saved(rng, tmp_path, monkeypatch):
    """Two models in files, and an input."""
    monkeypatch.chdir(tmp_path)
    a, b = two(rng, "int8")
    a.save("wide.safetensors")
    b.save("narrow.safetensors")
    np.save("x.npy", rng.standard_normal((6, 2, 5)).astype(np.float32))
    return a, b


COMMAND = ("verify", "narrow.safetensors", "--against", "wide.safetensors")


def test_verify_against_another_model(run, saved):
    a, b = saved
    status, out, _ = run(*COMMAND, "--input", "x.npy", "--steps", "40", "--json")
    found = json.loads(out)
    x = np.load("x.npy")
    assert status == 0 and found["passed"] is True and found["tolerance"] is None
    assert found["results"][0]["largest"] == np.abs(a(x)[0] - b(x)[0]).max()
    assert found["drift"][-1]["step"] == 40
    status, out, _ = run(*COMMAND, "--steps", "40")
    assert status == 0 and "layer 0, LSTM" in out and "The weights of b take" in out
    status, out, _ = run(
        "verify", "wide.safetensors", "--against", "wide.safetensors", "--precision", "int8", "--json"
    )
    assert json.loads(out)["b"]["stored_bytes"] < json.loads(out)["a"]["stored_bytes"]


@pytest.mark.parametrize(
    "allowed, wanted, word", (("1e-9", 1, "FAILED: largest error"), ("1", 0, "passed: "))
)
def test_verify_against_has_a_status(run, saved, allowed, wanted, word):
    status, out, _ = run(*COMMAND, "--steps", "20", "--tolerance", allowed)
    assert status == wanted and out.splitlines()[-1].startswith(word)
    status, out, _ = run(*COMMAND, "--steps", "20", "--tolerance", allowed, "--json")
    assert status == wanted and json.loads(out)["passed"] is (wanted == 0)


def test_verify_of_a_program_against_one(run, rng, tmp_path):
    head = fastrnn.Linear.from_state_dict({"weight": rng.standard_normal((2, 6))})
    program = fastrnn.with_heads(random_layer(rng, "GRU", 5, 6, precision="float32"), p=head)
    program.save(tmp_path / "p.safetensors")
    arguments = [tmp_path / "p.safetensors", "--against", tmp_path / "p.safetensors"]
    status, out, _ = run("verify", *arguments, "--precision", "float64", "--steps", "20", "--json")
    assert status == 0 and 0 < json.loads(out)["largest_error"] < 1e-5


@pytest.mark.parametrize(
    "options, words",
    (
        (("--expect", "x.npy"), "--expect: expected no --against, got both."),
        (("--keep",), "--keep: expected no --against, got both."),
        (("--state", "x.npy"), "--initial-state: expected --input as well, got none."),
    ),
)
def test_verify_against_refuses_what_has_no_meaning(run, saved, options, words):
    status, _, err = run(*COMMAND, *options)
    assert status == 2 and words in err
    status, _, err = run("verify", "wide.safetensors", "--steps", "5")
    assert status == 2 and "--steps: expected --against as well, got none." in err
