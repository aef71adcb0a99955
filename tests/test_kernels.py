"""The simd backend: activations by units in the last place, packing, and the numeric promise.

Every instruction set that this processor has is tested, each against float64 or NumPy.
"""

import ctypes
import gc
import mmap
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import CELLS, arrays_of, make_layer, random_spec, random_state, random_tensors
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrnn
from fastrnn import reference
from fastrnn.engine import packing, weight_memory
from fastrnn.engine.backends import ARRAY_TABLES, pick_isa
from fastrnn.operators.stateless import RowFunction

simd = pytest.importorskip("fastrnn.engine.simd.tables")

# Without those that differ in products of narrow weights alone: test_narrow_kernels.py has them.
ISAS = tuple(ARRAY_TABLES)
NARROW = ("bfloat16", "bfloat16x2", "bfloat16x3", "int8")
EXACT = {"sigmoid": reference.sigmoid, "tanh": np.tanh}
LARGEST_ULP = 4


@pytest.fixture(params=ISAS)
def isa(request, monkeypatch):
    """Each instruction set of this processor, picked by FASTRNN_ISA."""
    monkeypatch.setenv("FASTRNN_ISA", request.param)
    return request.param


def blas_products():
    """Imported late, as the package does: it brings SciPy's BLAS."""
    from fastrnn.engine.blas.kernels import PRODUCTS

    return PRODUCTS


def activate(isa, name, x, y=None):
    """An activation of an instruction set, into memory that was full of NaN."""
    y = np.full_like(x, np.nan) if y is None else y
    RowFunction(name, x.dtype.name, simd.TABLES[isa][x.dtype.name]).apply(x[None], y[None])
    return y


# ---------------------------------------------------------------- activations


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", EXACT)
def test_activation_is_exact_to_four_ulp(rng, isa, name, dtype):
    """Over a dense sweep, every magnitude, and the neighbourhoods of 0 and of the limits."""
    signs = rng.choice([-1, 1], 500_000)
    x = np.concatenate(
        [
            np.linspace(-110, 110, 1_000_001),
            np.linspace(-1, 1, 500_001),
            signs * np.exp(rng.uniform(np.log(np.finfo(dtype).tiny), np.log(1e4), 500_000)),
            signs * np.exp2(np.round(rng.uniform(-140, 10, 500_000))),
        ]
    ).astype(dtype)
    # The reference in a wider type: a sigmoid in float64 is itself exact to 2 units or so.
    wanted = EXACT[name](x.astype(np.longdouble if dtype == np.float64 else np.float64))
    got = activate(isa, name, x)
    normal = np.abs(wanted) >= np.finfo(dtype).tiny
    ulp = np.abs(got - wanted)[normal] / np.spacing(np.abs(wanted[normal]).astype(dtype))
    assert ulp.max() <= LARGEST_ULP, f"{ulp.max():.2f} at {x[normal][ulp.argmax()]!r}"
    assert (np.abs(got[~normal]) <= np.finfo(dtype).tiny).all()


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
def test_activations_of_special_values(isa, dtype):
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 5e-324, 1e-45, np.finfo(dtype).max], dtype)
    got = activate(isa, "tanh", x)
    np.testing.assert_array_equal(got[:5], [1, -1, np.nan, 0, 0])
    assert np.signbit(got[4]) and not np.signbit(got[3])
    assert got[-1] == 1 and (got[5:7] <= np.maximum(x[5:7], np.finfo(dtype).tiny)).all()
    got = activate(isa, "sigmoid", x)
    np.testing.assert_array_equal(got, [1, 0, np.nan, 0.5, 0.5, 0.5, 0.5, 1])


@pytest.mark.parametrize("dtype", (np.float32, np.float64))
@pytest.mark.parametrize("name", EXACT)
def test_tails_write_their_own_numbers_only(rng, isa, name, dtype):
    """Every length around the vector, at every offset; guard words at both ends, and in place."""
    numbers = rng.standard_normal(64).astype(dtype)
    wanted = activate(isa, name, numbers)
    for length in range(1, 36):
        for offset in (0, 1, 3):
            memory = np.full(64, 7.0, dtype)
            part = memory[offset : offset + length]
            part[:] = numbers[:length]
            activate(isa, name, part, part)
            np.testing.assert_array_equal(part, wanted[:length])
            assert (memory[:offset] == 7).all() and (memory[offset + length :] == 7).all()


# ---------------------------------------------------------------- packing


SIZES = (1, 64, 100_001, weight_memory.LARGE_BYTES + 1)


@pytest.mark.parametrize("size", SIZES)
def test_reserved_memory_begins_at_a_cache_line(size):
    pieces = [weight_memory.reserve(size) for _ in range(3)]
    for number, piece in enumerate(pieces):
        assert piece.ctypes.data % 64 == 0 and piece.nbytes == size
        piece[:] = number
    assert [set(piece.tolist()) for piece in pieces] == [{0}, {1}, {2}]


def test_pieces_share_large_pages_and_keep_them():
    size = weight_memory.LARGE_PAGE // 3
    pieces = [weight_memory.reserve(size) for _ in range(7)]
    for number, piece in enumerate(pieces):
        piece[:] = number
    del pieces[0], pieces[3]
    gc.collect()
    assert [int(piece[0]) for piece in pieces] == [int(piece[-1]) for piece in pieces] == [1, 2, 3, 5, 6]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("size", SIZES)
def test_reserved_memory_is_the_process_own(size):
    memory = weight_memory.reserve(size)
    memory[:] = 1
    pid = os.fork()
    if pid == 0:
        ctypes.memset(memory.ctypes.data, 0, memory.nbytes)
        os._exit(0)
    os.waitpid(pid, 0)
    assert (memory == 1).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_kernel_without_large_pages_gives_small_ones(monkeypatch, size):
    class Refusing(mmap.mmap):
        def madvise(self, *_):
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(weight_memory, "_shared", weight_memory._Shared())
    monkeypatch.setattr(weight_memory.mmap, "mmap", Refusing)
    memory = weight_memory.reserve(size)
    assert memory.nbytes == size and memory.ctypes.data % 64 == 0


def bundles_reference(weight, gates, bundle, lanes, registers, most):
    """(G*H, K) as bundles (K, panels, G, 16) of `bundle` panels, of which the last may have fewer; flat.

    A bundle lies segment by segment of K, of at most `most` rows each (8 where K is 16 or less). A segment
    lies strip by strip of a few vectors of `lanes` columns. Missing units are zeros.
    """
    hidden_size, columns = weight.shape[0] // gates, weight.shape[1]
    panels = -(-hidden_size // 16)
    by_unit = np.zeros((gates, panels * 16, columns), weight.dtype)
    by_unit[:, :hidden_size] = weight.reshape(gates, hidden_size, columns)
    by_panel = by_unit.reshape(gates, panels, 16, columns).transpose(3, 1, 0, 2)
    segment = most if columns > 16 else 8
    parts = []
    for i in range(0, panels, bundle):
        rows = by_panel[:, i : i + bundle].reshape(columns, -1)
        vectors = rows.shape[1] // lanes
        strip = 2
        if registers == 32:
            strip = 6 if vectors % 6 == 0 else min(vectors, 4)
        for k in range(0, columns, segment):
            part = rows[k : k + segment].reshape(-1, vectors // strip, strip * lanes)
            parts.append(part.swapaxes(0, 1).ravel())
    return np.concatenate(parts)


# Of each instruction set: bytes of a vector, or 0 for one number; registers; rows of a segment.
LAYOUTS = {"baseline": (0, 16, 128), "avx2": (32, 16, 256), "avx512": (64, 32, 256), "neon": (16, 32, 128)}


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize(
    "input_size, hidden_size", ((1, 1), (3, 15), (16, 16), (17, 33), (300, 40), (260, 130))
)
@pytest.mark.parametrize("kind", ("dense", *CELLS))
def test_every_weight_has_its_place_in_a_bundle(rng, isa, kind, input_size, hidden_size, dtype):
    """Byte for byte, against the slow definition above."""
    size, registers, segment = LAYOUTS[isa]
    lanes = max(size // np.dtype(dtype).itemsize, 1)
    outputs = max(hidden_size // 2, 1) if kind == "lstm_proj" else hidden_size
    kind = kind.removesuffix("_proj")
    gates = {"lstm": 4, "gru": 3}.get(kind, 1)
    bundle = {"lstm": 2 if lanes == 16 and hidden_size <= 32 else 1, "gru": 2}.get(kind, 4)

    def numbers(*shape):
        return rng.standard_normal(shape).astype(dtype)

    w_ih, bias = numbers(gates * hidden_size, input_size), numbers(gates * hidden_size)
    w_hh = None if kind == "dense" else numbers(gates * hidden_size, outputs)
    w_hr = None if outputs == hidden_size else numbers(outputs, hidden_size)
    bias_hn = numbers(hidden_size) if kind == "gru" else None
    products = (simd.PRODUCTS[isa][dtype, dtype],) * 3
    cell = packing.PackedCell(products, kind, w_ih, w_hh, w_hr, bias, bias_hn)
    memory, place = cell.memory, 0
    assert not memory.flags.writeable
    for array, gates_of, panels in (
        (w_ih, gates, bundle),
        (w_hh, gates, bundle),
        (w_hr, 1, 4),
        (bias, gates, bundle),
        (bias_hn, 1, 1),
    ):
        if array is not None:
            rows = array.reshape(len(array), -1)
            wanted = bundles_reference(rows, gates_of, panels, lanes, registers, segment)
            got = memory[place : place + wanted.nbytes].view(dtype)
            np.testing.assert_array_equal(got, wanted)
            place += -(-wanted.nbytes // 64) * 64
    assert place == memory.nbytes


def test_blas_takes_rows_where_they_lie(rng):
    weight = rng.standard_normal((70, 41)).astype(np.float32)
    products = blas_products()["float32", "float32"]
    count = sys.getrefcount(weight)
    cell = packing.pack_dense(products, weight, None)
    assert cell.memory is None and sys.getrefcount(weight) == count + 1


def test_tables_say_what_they_are():
    """By arithmetic; and the products of both backends, by (arithmetic, storage)."""
    for tables in simd.TABLES.values():
        assert set(tables) == {"float32", "float64"}
    wide = {("float32", "float32"), ("float64", "float64")}
    for products in simd.PRODUCTS.values():
        assert set(products) == wide | {("float32", storage) for storage in NARROW}
    assert set(blas_products()) == wide


# ---------------------------------------------------------------- against the other backend


@pytest.mark.parametrize("precision, tolerance", (("float64", 1e-12), ("float32", 2e-6)))
@pytest.mark.parametrize("hidden_size", (1, 3, 8, 15, 16, 17, 31, 40, 64, 130))
@pytest.mark.parametrize("cell", CELLS)
def test_simd_equals_reference(rng, isa, cell, hidden_size, precision, tolerance):
    spec = random_spec(cell, 7, hidden_size, 2, True)
    tensors = random_tensors(rng, spec, np.float32)
    layer = make_layer(spec, tensors, precision=precision, backend="simd")
    for batch_size in (1, 2, 3, 4, 5, 6, 7, 8, 13):
        x = rng.standard_normal((3, batch_size, 7)).astype(np.float32)
        state = random_state(rng, spec, batch_size, np.float32)
        y, h, c = reference.recurrent_reference(spec, tensors, x, *arrays_of(state))
        out = np.full(y.shape, np.nan, precision)
        got, after = layer(x, state, out=out)
        for one, other in zip((got, *arrays_of(after)), (y, h, c), strict=False):
            assert np.abs(one - other).max() <= tolerance


# ---------------------------------------------------------------- the numeric promise


@settings(max_examples=100)
@given(data=st.data())
def test_a_rows_bits_depend_on_nothing_else(data):
    """Whole, in chunks, step by step, alone, in any batch, padded: bit for bit the same."""
    draw = data.draw
    precision = draw(st.sampled_from(["float32", "float64"]))
    spec = random_spec(
        draw(st.sampled_from(sorted(CELLS))),
        input_size=draw(st.one_of(st.integers(1, 40), st.sampled_from([127, 128, 129, 300]))),
        hidden_size=draw(st.one_of(st.integers(1, 70), st.sampled_from([127, 128, 129, 300]))),
        num_layers=draw(st.integers(1, 2)),
        bias=draw(st.booleans()),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**31)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FASTRNN_ISA", draw(st.sampled_from(ISAS)))
        layer = make_layer(spec, random_tensors(rng, spec), precision=precision, backend="simd")
    steps, batch_size = draw(st.integers(1, 30)), draw(st.integers(1, 20))
    x = rng.standard_normal((steps, batch_size, spec.input_size)).astype(precision)
    lengths = draw(st.lists(st.integers(1, steps), min_size=batch_size, max_size=batch_size))
    whole, _ = layer(x)
    padded, _ = layer(x, lengths=lengths)
    stream = layer.stream(batch_size)
    cut = draw(st.integers(0, steps))
    chunked = np.concatenate([stream.run(part) for part in (x[:cut], x[cut:]) if len(part)])
    stream.reset()
    stepped = np.stack([stream.step(row) for row in x])
    np.testing.assert_array_equal(chunked, whole)
    np.testing.assert_array_equal(stepped, whole)
    rows = rng.permutation(batch_size)[: draw(st.integers(1, batch_size))]
    np.testing.assert_array_equal(layer(x[:, rows])[0], whole[:, rows])
    for row in rows:
        np.testing.assert_array_equal(layer(x[:, row])[0], whole[:, row])
        np.testing.assert_array_equal(padded[: lengths[row], row], whole[: lengths[row], row])
        assert not padded[lengths[row] :, row].any()


def test_bits_do_not_depend_on_direction_or_layout(rng, isa):
    spec = random_spec("lstm", 20, 33, 2, True)
    tensors = random_tensors(rng, spec, np.float32)
    x = rng.standard_normal((50, 9, 20)).astype(np.float32)
    whole, _ = make_layer(spec, tensors)(x)
    turned, _ = make_layer(spec, tensors, batch_first=True)(x.swapaxes(0, 1))
    np.testing.assert_array_equal(turned.swapaxes(0, 1), whole)


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("bidirectional", (False, True))
@pytest.mark.parametrize("precision, size", (("float32", 512), ("float32", 256), ("float64", 256)))
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_rows_that_lie_2_kb_apart_have_the_same_bits(rng, isa, cell, precision, size, bidirectional, threads):
    """Those of x and h that a batch of more than a tile copies further apart."""
    spec = random_spec(cell, size, size, 2, bidirectional)
    layer = make_layer(
        spec, random_tensors(rng, spec, np.float32), precision=precision, backend="simd", threads=threads
    )
    x = rng.standard_normal((3, 8, size)).astype(precision)
    whole, _ = layer(x)
    np.testing.assert_array_equal(
        np.concatenate([layer(x[:, 5:])[0], layer(x[:, :5])[0]], 1), whole[:, [5, 6, 7, 0, 1, 2, 3, 4]]
    )
    padded, _ = layer(x, lengths=[3, 1, 3, 2, 3, 3, 3, 3])
    if not bidirectional:
        stream = layer.stream(8)
        np.testing.assert_array_equal(np.stack([stream.step(row) for row in x]), whole)
        np.testing.assert_array_equal(padded[0], whole[0])
    np.testing.assert_array_equal(padded[:, 4:], whole[:, 4:])
    np.testing.assert_array_equal(layer(x[:, 7])[0], whole[:, 7])


@pytest.mark.parametrize("threads", (1, 2))
@pytest.mark.parametrize("rows", (9, 13, 20))
@pytest.mark.parametrize("precision, size", (("float32", 192), ("float32", 300), ("float64", 300)))
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_rows_of_wide_cells_have_the_bits_of_one(rng, isa, cell, precision, size, rows, threads):
    """Those of x and h that are interleaved where many share many weights; 300 are more than a segment."""
    spec = random_spec(cell, 270, size)
    layer = make_layer(
        spec, random_tensors(rng, spec, np.float32), precision=precision, backend="simd", threads=threads
    )
    x = rng.standard_normal((3, rows, 270)).astype(precision)
    whole, state = layer(x)
    stream = layer.stream(rows)
    np.testing.assert_array_equal(np.stack([stream.step(row) for row in x]), whole)
    for m in range(rows):
        alone, after = layer(x[:, m])
        np.testing.assert_array_equal(alone, whole[:, m])
        for one, all_rows in zip(arrays_of(after), arrays_of(state), strict=True):
            np.testing.assert_array_equal(one, all_rows[:, m])


@pytest.mark.parametrize("precision, size", (("float32", 512), ("float64", 256)))
@pytest.mark.parametrize("cell", sorted(CELLS))
def test_rows_that_become_fewer_keep_to_their_memory(rng, isa, cell, precision, size):
    """Nine are interleaved; eight lie further apart, each by itself."""
    spec = random_spec(cell, 1, size)
    layer = make_layer(spec, random_tensors(rng, spec), precision=precision, backend="simd", threads=1)
    x = rng.standard_normal((80, 9, 1)).astype(precision)
    lengths = [80] * 8 + [7]
    state = random_state(rng, spec, 9)
    whole, final = layer(x, state, lengths=lengths)
    before = arrays_of(state)
    for m, length in enumerate(lengths):
        own = [array[:, m] for array in before]
        alone, after = layer(x[:length, m], tuple(own) if len(own) > 1 else own[0])
        np.testing.assert_array_equal(alone, whole[:length, m])
        for one, all_rows in zip(arrays_of(after), arrays_of(final), strict=True):
            np.testing.assert_array_equal(one, all_rows[:, m])


@pytest.mark.parametrize("columns", (200, 512))
def test_linear_rows_are_their_own(rng, isa, columns):
    weight, bias = rng.standard_normal((37, columns)), rng.standard_normal(37)
    layer = fastrnn.Linear.from_state_dict({"weight": weight, "bias": bias})
    x = rng.standard_normal((23, columns)).astype(np.float32)
    whole = layer(x)
    np.testing.assert_allclose(whole, x @ weight.T + bias, rtol=0, atol=1e-7 * columns)
    for n in range(1, 14):
        np.testing.assert_array_equal(layer(x[:n]), whole[:n])


# ---------------------------------------------------------------- picking, and the denormal guard


def test_instruction_set_can_be_capped(monkeypatch, capsys, rng):
    monkeypatch.setenv("FASTRNN_ISA", "baseline")
    assert pick_isa() == "baseline"
    fastrnn.show_config()
    assert "simd, with baseline: FASTRNN_ISA=baseline" in capsys.readouterr().out
    monkeypatch.setenv("FASTRNN_ISA", simd.ISAS[-1])
    assert pick_isa() == tuple(simd.TABLES)[-1]
    monkeypatch.setenv("FASTRNN_ISA", "mmx")
    with pytest.raises(ValueError, match='FASTRNN_ISA: expected one of "baseline"'):
        make_layer(spec := random_spec("gru", 3, 4), random_tensors(rng, spec))


def test_denormals_are_off_inside_a_call_alone(rng, isa):
    """A state that decays to nothing becomes 0, and the caller's arithmetic keeps its denormals."""
    spec = random_spec("rnn_tanh", 1, 20, bias=False)
    tensors = {name: np.zeros(shape) for name, shape in spec.tensor_shapes().items()}
    np.fill_diagonal(tensors["weight_hh_l0"], 0.5)
    layer = make_layer(spec, tensors)
    tiny = np.float32(np.finfo(np.float32).tiny)
    # 15 halvings give a denormal, which only a flush makes 0.
    _, h = layer(np.zeros((15, 1), np.float32), np.full((1, 20), tiny * 1024))
    assert tiny * 1024 / np.float32(2**15) > 0
    assert not h.any()
    assert tiny / np.float32(4) > 0


# ---------------------------------------------------------------- memory


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """kernels_memory.c, compiled for the address sanitizer."""
    folder = tmp_path_factory.mktemp("watched")
    compiler = [*shlex.split(os.environ.get("CC", "cc")), "-std=gnu11", "-O1", "-g", "-fsanitize=address"]
    (folder / "probe.c").write_text("int main(void) { return 0; }")
    try:
        subprocess.run([*compiler, "probe.c", "-o", "probe"], cwd=folder, capture_output=True, check=True)
        subprocess.run([folder / "probe"], capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no compiler with an address sanitizer")
    tests = Path(__file__).parent
    kernels = tests.parent / "fastrnn" / "engine"
    source = tests / "kernels_memory.c"
    subprocess.run([*compiler, f"-I{kernels}", source, "-o", folder / "watched", "-lm"], check=True)
    return folder / "watched"


@pytest.mark.parametrize("name", tuple(simd.TABLES))
def test_kernels_stay_within_their_memory(watched, name):
    result = subprocess.run([watched, name], capture_output=True, text=True)
    if result.returncode == 2:
        pytest.skip("the system refuses it to this process")
    assert result.returncode == 0, result.stderr[:2000]
    cases, _, _, tables, _ = result.stdout.split()
    assert int(tables) > 0 and int(cases) == 6081 * int(tables)


@pytest.mark.parametrize("name, tables", (("avx512", 4), ("amx", 2)))
def test_a_byte_beyond_the_weights_is_found(watched, name, tables):
    """In every storage, also by the tiles of AMX, whose reads the sanitizer does not see by itself."""
    if name not in simd.PRODUCTS:
        pytest.skip("this processor lacks it")
    environment = {**os.environ, "ASAN_OPTIONS": "symbolize=0"}
    for table in range(tables):
        command = [watched, name, "weights", str(table)]
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        if result.returncode == 2:
            pytest.skip("the system refuses it to this process")
        assert result.returncode == 1 and "AddressSanitizer" in result.stderr
