"""Exported modules with narrow weights. Needs torch."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from loops_to_export import CASES  # noqa: E402  (after importorskip)

import fastrnn  # noqa: E402
from fastrnn.engine import backends  # noqa: E402
from fastrnn.narrow import NarrowWeight  # noqa: E402
from fastrnn.program.program import Program  # noqa: E402

if not backends.ISAS:
    pytest.skip("simd is not built here, and blas has no narrow products", allow_module_level=True)

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections")
STORAGES = ("bfloat16", "int8")


class Tagger(torch.nn.Module):
    """Tokens (B, T) to logits of tokens (B, 2 T, 11), by one of everything that has weights."""

    def __init__(self):
        super().__init__()
        nn = torch.nn
        self.embedding = nn.Embedding(11, 16)
        self.convolution, self.norm = nn.Conv1d(16, 24, 3, padding=1), nn.BatchNorm1d(24)
        self.depthwise = nn.Conv1d(24, 24, 3, padding=1, groups=24)
        self.grouped = nn.Conv1d(24, 24, 3, padding=1, groups=3)
        self.lstm = nn.LSTM(24, 16, 2, bidirectional=True, batch_first=True)
        self.attention = nn.MultiheadAttention(32, 4, batch_first=True)
        self.gru = nn.GRU(32, 8, batch_first=True)
        self.up = nn.ConvTranspose1d(8, 6, 4, stride=2, padding=1, groups=2)
        self.weight, self.bias = nn.Parameter(torch.randn(6, 16) / 4), nn.Parameter(torch.randn(16))
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, tokens):
        x = torch.relu(self.norm(self.convolution(self.embedding(tokens).transpose(1, 2))))
        x = self.grouped(self.depthwise(x)).transpose(1, 2)
        x, _ = self.lstm(x)
        x, _ = self.attention(x, x, x)
        x, _ = self.gru(x)
        x = self.up(x.transpose(1, 2)).transpose(1, 2)
        rows = torch.addmm(self.bias, x.reshape(-1, 6), self.weight)
        return rows.reshape(x.shape[0], x.shape[1], 16) @ self.embedding.weight.t()


@pytest.fixture(scope="module")
def exported():
    torch.manual_seed(3)
    module, tokens = Tagger().eval(), torch.randint(0, 11, (3, 7))
    program = fastrnn.export(module, (tokens,), dynamic=({0: "B", 1: "T"},))
    return program, tokens.numpy(), module(tokens).detach().numpy()


@pytest.mark.parametrize("storage", STORAGES)
def test_all_weights_of_products_are_narrow(exported, tmp_path, storage):
    wide, tokens, wanted = exported
    program = Program(wide.spec, precision=storage)
    assert program.precision == storage
    exact = {
        name for name, a in program.graph.constants.items() if not isinstance(a, NarrowWeight) and a.ndim > 1
    }
    assert exact == {"depthwise.weight"}
    assert "batch_norm" not in {node.operator for node in program.graph.nodes}
    y = program(tokens)
    assert 0 < np.abs(y - wanted).max() < {"bfloat16": 0.01, "int8": 0.03}[storage] * np.abs(wanted).max()
    assert program.verify()["passed"] and program.verify((tokens,), wanted)["passed"]
    wide.save(tmp_path / "wide")
    program.save(tmp_path / "narrow", ((tokens,), wanted))
    loaded = fastrnn.load(tmp_path / "narrow")
    assert np.array_equal(loaded(tokens), y)
    assert np.array_equal(fastrnn.load(tmp_path / "wide", precision=storage)(tokens), y)
    for rows in (1, 2):
        assert np.array_equal(program(tokens[:rows]), y[:rows])


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.refused])
def test_loops_over_cells_run_with_narrow_weights(name, storage):
    case = CASES[name]
    wide = fastrnn.export(
        case.build(), case.args(), case.keywords or None, dynamic=case.dynamic, state=case.state
    )
    program = Program(wide.spec, precision=storage)
    program.golden_inputs = wide.golden_inputs
    assert program.precision in (storage, "float32") and program.verify()["passed"]
