"""Parameters that training kept in parts become those of torch's eval() module, or are refused by name."""

import numpy as np
import pytest
from helpers import assert_close, check_layer, random_spec, random_tensors, save

import fastrnn


def parametrized(torch, how, kind="LSTM"):
    """A module in eval() with some parameters in parts, after one step of training."""
    import torch.nn.utils.prune

    nn, utils = torch.nn, torch.nn.utils
    module = {"LSTM": lambda: nn.LSTM(3, 4, num_layers=2), "GRU": lambda: nn.GRU(3, 4, bidirectional=True),
              "Linear": lambda: nn.Linear(4, 5), "Embedding": lambda: nn.Embedding(6, 3)}[kind]()  # fmt: skip
    names = [name for name, p in module.named_parameters() if p.ndim == 2]
    for name in names:
        match how:
            case "old weight norm":
                utils.weight_norm(module, name)
            case "old weight norm, one norm":
                utils.weight_norm(module, name, dim=None)
            case "old weight norm, columns":
                utils.weight_norm(module, name, dim=1)
            case "weight norm":
                utils.parametrizations.weight_norm(module, name)
            case "weight norm, columns":
                utils.parametrizations.weight_norm(module, name, dim=1)
            case "old spectral norm":
                utils.spectral_norm(module, name)
            case "spectral norm":
                utils.parametrizations.spectral_norm(module, name)
            case "pruning":
                utils.prune.random_unstructured(module, name, 0.4)
            case "rows pruned":
                utils.prune.ln_structured(module, name, 0.5, n=2, dim=0)
    module.train()
    x = torch.randint(6, (5, 2)) if kind == "Embedding" else torch.randn(5, 2, 4 if kind == "Linear" else 3)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    y = module(x)
    (y[0] if isinstance(y, tuple) else y).pow(2).sum().backward()
    optimizer.step()
    return module.eval()


FORMS = ("old weight norm", "old weight norm, one norm", "old weight norm, columns", "weight norm",
         "weight norm, columns", "old spectral norm", "spectral norm", "pruning", "rows pruned")  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated", "ignore::UserWarning")
@pytest.mark.parametrize("kind", ("LSTM", "GRU", "Linear", "Embedding"))
@pytest.mark.parametrize("how", FORMS)
def test_parameters_in_parts_are_folded(tmp_path, how, kind):
    torch = pytest.importorskip("torch")
    torch.manual_seed(sum(map(ord, how + kind)))
    module = parametrized(torch, how, kind)
    x = torch.randint(6, (5, 2)) if kind == "Embedding" else torch.randn(5, 2, 4 if kind == "Linear" else 3)
    with torch.no_grad():
        wanted = module(x)
    wanted = (wanted[0] if isinstance(wanted, tuple) else wanted).numpy()
    live = module.state_dict(prefix="net.")
    save(torch, live, tmp_path / "a.pt")
    state_dict = fastrnn.load_state_dict(tmp_path / "a.pt")
    names = {"LSTM": 8, "GRU": 8, "Linear": 2, "Embedding": 1}[kind]
    assert len(state_dict) == names
    assert set(state_dict.folded.values()) == {
        "pruning" if "prun" in how else "spectral norm" if "spectral" in how else "weight norm"
    }
    for given_dict in (state_dict, live):
        layer = getattr(fastrnn, kind).from_state_dict(given_dict, "net")
        y = layer(x.numpy())
        assert_close(y[0] if isinstance(y, tuple) else y, wanted, 1e-6 * max(1.0, np.abs(wanted).max()))
    with torch.no_grad():
        for name, array in state_dict.items():
            got = getattr(module, name.removeprefix("net.")).numpy()
            assert_close(array, got, 1e-6 * max(1.0, np.abs(got).max()))


class WeightDrop:
    """State dicts with the weight drop of AWD-LSTM, torchnlp and fastai, after a training pass."""

    def __init__(self, rng):
        self.tensors = random_tensors(rng, random_spec("lstm", 3, 4), np.float32)
        self.dropped = self.tensors["weight_hh_l0"] * (rng.random((16, 4)) < 0.5) * 2

    def awd(self):
        rest = dict(self.tensors)
        raw = rest.pop("weight_hh_l0")
        return {"rnns.0.module.weight_hh_l0_raw": raw, **{f"rnns.0.module.{k}": v for k, v in rest.items()}}

    def torchnlp(self):
        rest = dict(self.tensors)
        raw = rest.pop("weight_hh_l0")
        rest = {f"rnns.0.module.{k}": v for k, v in rest.items()}
        return {**rest, "rnns.0.module.weight_hh_l0": self.dropped, "rnns.0.module.weight_hh_l0_raw": raw}

    def fastai(self):
        rest = {f"rnns.0.module.{name}": array for name, array in self.tensors.items()}
        rest["rnns.0.module.weight_hh_l0"] = self.dropped
        return {"rnns.0.weight_hh_l0_raw": self.tensors["weight_hh_l0"], **rest}

    def fastai_v2(self):
        rest = {f"rnns.0.module.{name}": array for name, array in self.tensors.items()}
        del rest["rnns.0.module.weight_hh_l0"]
        return {"rnns.0.weight_hh_l0_raw": self.tensors["weight_hh_l0"], **rest}


@pytest.mark.parametrize("form", ("awd", "torchnlp", "fastai", "fastai_v2"))
def test_the_raw_weight_is_the_weight(rng, tmp_path, form):
    drop = WeightDrop(rng)
    found = getattr(drop, form)()
    np.savez(tmp_path / "a.npz", **found)
    x = rng.standard_normal((5, 3))
    wanted = fastrnn.LSTM.from_state_dict(drop.tensors)(x)[0]
    for state_dict in (found, fastrnn.load_state_dict(tmp_path / "a.npz")):
        layer = fastrnn.LSTM.from_state_dict(state_dict, "rnns.0.module")
        np.testing.assert_array_equal(layer(x)[0], wanted)
    assert fastrnn.load_state_dict(tmp_path / "a.npz").folded == {"rnns.0.module.weight_hh_l0": "weight drop"}
    np.testing.assert_array_equal(fastrnn.load(tmp_path / "a.npz")(x)[0], wanted)
    with pytest.raises(fastrnn.WeightError, match=r'"rnns.0.module"\. Name one with prefix='):
        fastrnn.LSTM.from_state_dict(found, "rnns.0")


def in_parts(rng, change):
    tensors = random_tensors(rng, random_spec("gru", 3, 4), np.float32)
    weight = tensors.pop("weight_hh_l0")
    return {**tensors, **change(weight)}


@pytest.mark.parametrize(
    "change, words",
    (
        (lambda w: {"weight_hh_l0_g": w[:, :1]}, "weight norm (it has only g)"),
        (lambda w: {"weight_hh_l0_g": w[:5, :1], "weight_hh_l0_v": w}, "a norm of shape (5, 1)"),
        (lambda w: {"weight_hh_l0_orig": w}, "without the weight_mask of pruning"),
        (lambda w: {"weight_hh_l0_orig": w, "weight_hh_l0_mask": w[:3]}, "pruning (a mask of shape (3, 4)"),
        (lambda w: {"weight_hh_l0_orig": w, "weight_hh_l0_u": w[:, 0]}, "its weight_v is missing"),
        (lambda w: {"weight_hh_l0_orig": w, "weight_hh_l0_u": w[:, 0], "weight_hh_l0_v": w[:, 0]},
         "spectral norm (vectors of shape"),
        (lambda w: {"weight_hh_l0_g": w[:, :1], "weight_hh_l0_v": w, "weight_hh_l0": w},
         "its parts are beside a whole weight_hh_l0"),
        (lambda w: {"parametrizations.weight_hh_l0.original": w}, "torch.nn.utils.parametrize was given"),
        (lambda w: {"parametrizations.weight_hh_l0.original": w, "parametrizations.weight_hh_l0.0.base": w},
         "an orthogonal parametrization (no file says which map"),
        (lambda w: {"parametrizations.weight_hh_l0.original": w, "parametrizations.weight_hh_l0.0.lora_A": w},
         "what torch.nn.utils.parametrize was given"),
        (lambda w: {"parametrizations.weight_hh_l0.original0": w[:, :1],
                    "parametrizations.weight_hh_l0.original1": w,
                    "parametrizations.weight_hh_l0.1._u": w[:, 0]}, "was given"),
    ),
)  # fmt: skip
def test_parts_that_do_not_tell_enough_are_refused_by_name(rng, tmp_path, change, words):
    found = in_parts(rng, change)
    np.savez(tmp_path / "a.npz", **{f"rnn.{name}": array for name, array in found.items()})
    state_dict = fastrnn.load_state_dict(tmp_path / "a.npz")  # the others are read
    assert "rnn.weight_ih_l0" in state_dict and list(state_dict.unread) == ["rnn.weight_hh_l0"]
    for make in (
        lambda: fastrnn.GRU.from_state_dict(found),
        lambda: fastrnn.GRU.from_state_dict(state_dict, "rnn"),
        lambda: fastrnn.load(tmp_path / "a.npz"),
    ):
        with pytest.raises(fastrnn.WeightError) as caught:
            make()
        assert words in str(caught.value) and "remove_parametrizations(module, 'weight_hh_l0')" in str(
            caught.value
        )


def test_an_orthogonal_layer_is_refused_by_that_name(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.RNN(3, 4)
    torch.nn.utils.parametrizations.orthogonal(module, "weight_hh_l0")
    torch.save(module.state_dict(), tmp_path / "a.pt")
    with pytest.raises(fastrnn.WeightError, match="an orthogonal parametrization"):
        fastrnn.load(tmp_path / "a.pt", nonlinearity="tanh")
    # What the message says to do works.
    torch.nn.utils.parametrize.remove_parametrizations(module, "weight_hh_l0")
    torch.save(module.state_dict(), tmp_path / "a.pt")
    check_layer(torch, module, fastrnn.load_state_dict(tmp_path / "a.pt"))


def test_names_that_look_like_parts_are_left_alone(tmp_path):
    arrays = {
        "att.v": np.ones(3),
        "cell.weight_g2": np.ones(3),
        "att.W_g": np.ones((2, 2)),
        "b.weight_v": np.ones(2),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    found = fastrnn.load_state_dict(tmp_path / "a.npz")
    assert list(found) == list(arrays) and not found.unread and not found.folded


def test_weight_norm_of_zeros_is_what_torch_makes_of_it(rng):
    """It is NaN, without a warning."""
    weight = np.zeros((12, 4), np.float32)
    found = in_parts(rng, lambda _: {"weight_hh_l0_g": weight[:, :1], "weight_hh_l0_v": weight})
    assert np.isnan(fastrnn.GRU.from_state_dict(found).tensors["weight_hh_l0"]).all()


@pytest.mark.parametrize(
    "wrapper", ("module.", "_orig_mod.", "module._orig_mod.", "_forward_module.", "module.module.")
)
def test_wrappers_go(stack, tmp_path, wrapper):
    np.savez(tmp_path / "a.npz", **{wrapper + name: array for name, array in stack.items()})
    assert fastrnn.load_state_dict(tmp_path / "a.npz").keys() == stack.keys()


def test_wrappers_within_a_name_go(stack, tmp_path):
    np.savez(
        tmp_path / "a.npz", **{f"net._orig_mod.rnn._fsdp_wrapped_module.{k}": v for k, v in stack.items()}
    )
    assert set(fastrnn.load_state_dict(tmp_path / "a.npz")) == {f"net.rnn.{name}" for name in stack}


def test_an_averaged_model_is_the_model(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.GRU(3, 4)
    torch.save(torch.optim.swa_utils.AveragedModel(module).state_dict(), tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    assert found.keys() == module.state_dict().keys() and found.left_out["n_averaged"] == 0
    check_layer(torch, module, found)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", ("old", "new"))
@pytest.mark.parametrize("dim", (0, 1))
@pytest.mark.parametrize("shape", ((4, 4), (6, 6), (4, 7)))
def test_the_axis_of_a_spectral_norm_is_found(tmp_path, kind, dim, shape):
    """For a square weight the shapes do not show it, but the vectors do."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(dim + shape[1])
    utils = torch.nn.utils
    module = torch.nn.Linear(*shape)
    (utils.spectral_norm if kind == "old" else utils.parametrizations.spectral_norm)(module, dim=dim)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    for _ in range(5):
        module(torch.randn(3, shape[0])).pow(2).sum().backward()
        optimizer.step()
    module.eval()
    torch.save(module.state_dict(), tmp_path / "a.pt")
    with torch.no_grad():
        wanted = (
            module.weight.numpy() if kind == "new" else (module(torch.eye(shape[0])) - module.bias).T.numpy()
        )
    assert_close(
        fastrnn.load_state_dict(tmp_path / "a.pt")["weight"], wanted, 1e-6 * max(1, np.abs(wanted).max())
    )


def test_an_axis_that_nothing_tells_is_refused(rng):
    weight, u, v = (rng.standard_normal(n).astype(np.float32) for n in ((4, 4), 4, 4))
    found = {"weight_orig": weight, "weight_u": u, "weight_v": v}
    with pytest.raises(fastrnn.WeightError, match=r"spectral norm .no file says its dim"):
        fastrnn.Linear.from_state_dict(found)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("first", ("weight norm", "pruning"))
def test_forms_that_stand_on_one_another_are_folded(tmp_path, first):
    torch = pytest.importorskip("torch")
    import torch.nn.utils.prune as prune

    torch.manual_seed(0)
    module = torch.nn.GRU(3, 4)
    if first == "weight norm":
        torch.nn.utils.weight_norm(module, "weight_hh_l0")
        prune.random_unstructured(module, "weight_hh_l0_v", 0.3)
        prune.random_unstructured(module, "weight_hh_l0_g", 0.1)
    else:
        prune.random_unstructured(module, "weight_hh_l0", 0.3)
        torch.nn.utils.weight_norm(module, "weight_hh_l0_orig")
    module.eval()
    module(torch.randn(2, 1, 3))
    torch.save(module.state_dict(), tmp_path / "a.pt")
    found = fastrnn.load_state_dict(tmp_path / "a.pt")
    assert set(found.folded) == {"weight_hh_l0"} and "pruning" in found.folded["weight_hh_l0"]
    check_layer(torch, module, found)


def test_a_direction_without_its_norm_is_named(rng):
    found = in_parts(rng, lambda w: {"weight_hh_l0_v": w})
    with pytest.raises(fastrnn.WeightError, match=r"weight norm .it has only v"):
        fastrnn.GRU.from_state_dict(found)


def test_no_hint_names_the_prefix_that_was_asked_for(rng):
    tensors = random_tensors(rng, random_spec("gru", 3, 4))
    del tensors["weight_hh_l0"]
    for prefix in ("", "rnn", "rnn."):
        found = {f"{prefix.removesuffix('.')}.{k}".removeprefix("."): v for k, v in tensors.items()}
        with pytest.raises(fastrnn.WeightError, match=r'no "weight_hh_l0".$'):
            fastrnn.GRU.from_state_dict(found, prefix)
