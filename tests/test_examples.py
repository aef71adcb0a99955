"""Each example runs as its first lines say, and its output is right."""

import asyncio
import importlib.util
import json
import socket
import subprocess
import sys
import wave
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

import fastrnn
from fastrnn.demo import ALPHABET

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name):
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name, *arguments):
    """What an example prints."""
    command = [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_example_is_tested():
    text = Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        # Training needs torch and ten minutes; its result is what the demo runs.
        assert f'"{path.stem}"' in text or path.stem == "train_demo_model", path.name


# ---------------------------------------------------------------- text


def test_text_generation_writes_text():
    text = run("text_generation", "--length", 60, "--prompt", "A class ")
    assert text.startswith("A class ") and len(text) == 8 + 60 + 1
    assert set(text) <= set(ALPHABET)
    assert text == run("text_generation", "--length", 60, "--prompt", "A class ")
    assert text != run("text_generation", "--length", 60, "--prompt", "A class ", "--seed", 1)


def test_a_low_temperature_draws_the_likeliest_character():
    example = load("text_generation")
    model = example.load_model(example.weights_path(), temperature=1e-4)
    drawn = "".join(example.characters(model, "The ", 30, seed=0))
    stream = fastrnn.load(example.weights_path()).stream()
    scores = stream.run(example.encode("The " + drawn[:-1]))[-len(drawn) :]
    assert drawn == "".join(ALPHABET[token] for token in scores.argmax(axis=1))


# ---------------------------------------------------------------- audio


def test_guitar_amp_plays_without_any_file():
    first, second, *rest = run("guitar_amp").splitlines()
    assert first.startswith("88200 samples in ") and first.endswith("times real time")
    assert second == "1379 blocks after a warm-up; each may take 1451 us"
    assert [line.split()[0] for line in rest[:4]] == ["p50", "p99", "p99.9", "largest"]
    assert rest[4].endswith(" missed it") and len(rest) == 5


def test_guitar_amp_reports_quantiles_of_blocks():
    seconds = [1e-4] * 98 + [2e-4, 2e-3]
    assert list(load("guitar_amp").report(seconds, 1e-3)) == [
        "100 blocks after a warm-up; each may take 1000 us",
        "p50       100.0 us   10.0% of the deadline",
        "p99       218.0 us   21.8% of the deadline",
        "p99.9    1821.8 us  182.2% of the deadline",
        "largest  2000.0 us  200.0% of the deadline",
        "1 missed it",
    ]


def test_guitar_amp_sounds_the_same_after_a_warm_up():
    example = load("guitar_amp")
    sounds = []
    for blocks in (0, 3):
        amplifier = example.Amplifier(*example.load_model(), most_samples=64)
        amplifier.warm_up(blocks)
        sounds.append(example.pluck(0.05))
        assert len(example.play(amplifier, sounds[-1], 64)) == -(-len(sounds[-1]) // 64)
    np.testing.assert_array_equal(*sounds)


def test_guitar_amp_reads_and_writes_sound(tmp_path):
    example = load("guitar_amp")
    random = np.random.default_rng(0)
    content = {
        "model_data": {"unit_type": "LSTM", "skip": 0},
        "state_dict": {
            "rec.weight_ih_l0": random.uniform(-0.3, 0.3, (20, 1)).tolist(),
            "rec.weight_hh_l0": random.uniform(-0.3, 0.3, (20, 5)).tolist(),
            "rec.bias_ih_l0": [0.1] * 20,
            "rec.bias_hh_l0": [0.0] * 20,
            "lin.weight": [[0.2] * 5],
            "lin.bias": [0.0],
        },
    }
    (tmp_path / "model.json").write_text(json.dumps(content))
    example.write_wav(str(tmp_path / "in.wav"), example.pluck(0.1), 44100)
    run("guitar_amp", tmp_path / "model.json", tmp_path / "in.wav", tmp_path / "out.wav", "--block", 48)
    with wave.open(str(tmp_path / "out.wav")) as file:
        assert (file.getnframes(), file.getframerate()) == (4410, 44100)
    sound, _ = example.read_wav(str(tmp_path / "in.wav"))
    amplified, _ = example.read_wav(str(tmp_path / "out.wav"))
    model, _ = example.load_model(tmp_path / "model.json")
    wanted = model(sound[:, None])[0][:, 0]
    assert np.abs(amplified - wanted).max() < 1e-4  # 16 bits


@pytest.mark.parametrize(
    "name, prefix", (("gru8_ts9_pytorch", "gru8"), ("ts9_gru7_gain10_loss003_TEST", "gru7"))
)
def test_guitar_amp_sounds_as_its_authors_model(models, name, prefix):
    """Blocks of any size through a real pedal: the reference of torch, in float32."""
    example = load("guitar_amp")
    folder = models / "neuralseed-gru-json"
    with np.load(folder / "reference.npz") as arrays:
        sound, wanted = arrays["stack.in"].ravel(), arrays[f"{prefix}.stack.out64"].ravel()
    amplifier = example.Amplifier(*example.load_model(folder / f"{name}.json"), most_samples=512)
    sound = sound.copy()
    random, begin = np.random.default_rng(0), 0
    while begin < len(sound):
        size = int(random.integers(1, 513))
        amplifier.process(sound[begin : begin + size])
        begin += size
    assert np.abs(sound - wanted).max() < 2e-5  # torch's own float32 error: 2.3e-6


# ---------------------------------------------------------------- words


def test_tagging_gives_each_word_a_tag():
    _, *lines = run("tagging", "one two three", "four").splitlines()
    assert [len(line.split()) for line in lines] == [3, 1]
    example = load("tagging")
    assert all(pair.split("/")[1] in example.TAGS for line in lines for pair in line.split())


def test_tags_do_not_depend_on_the_batch():
    example = load("tagging")
    words = sorted({word for sentence in example.SENTENCES for word in sentence.split()})
    vocabulary = {word: number for number, word in enumerate(words, 1)}
    model = example.make_model(example.make_weights(len(words) + 1))
    together = example.tag(model, vocabulary, example.SENTENCES)
    assert together == [example.tag(model, vocabulary, [sentence])[0] for sentence in example.SENTENCES]


def test_sentiment_rates_reviews(tmp_path):
    lines = run("sentiment").splitlines()
    assert len(lines) == 2 and all(line[:4] in ("good", "bad ") for line in lines)
    example = load("sentiment")
    np.savez(tmp_path / "weights.npz", **example.make_weights())
    assert run("sentiment", tmp_path / "weights.npz", "4,8,15,16", "23,42").splitlines() == lines


def test_sentiment_equals_the_module_of_its_first_lines(tmp_path):
    torch = pytest.importorskip("torch")
    from torch import nn

    example = load("sentiment")
    source = example.__doc__.split("In torch:")[1].split("torch.save")[0]
    namespace = {"nn": nn}
    exec("\n".join(line[4:] for line in source.splitlines()), namespace)
    module = namespace["Sentiment"](50, 16, 32).eval()
    torch.save(module.state_dict(), tmp_path / "sentiment.pt")
    with torch.inference_mode():
        wanted = [float(module(torch.tensor([row]))) for row in ([4, 8, 15, 16], [23, 42])]
    lines = run("sentiment", tmp_path / "sentiment.pt", "4,8,15,16", "23,42").splitlines()
    assert [float(line.split()[1]) for line in lines] == pytest.approx(wanted, abs=6e-4)


# ---------------------------------------------------------------- the server


class Served:
    """A server of an example in a process of its own."""

    def __init__(self, *arguments):
        command = [sys.executable, EXAMPLES / "server.py", *map(str, arguments), "--port", "0"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline().rsplit(":", 1)[1])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


def test_server_and_load_lose_and_mix_up_nothing():
    with Served() as server:
        for _ in range(2):
            out = run("load", "--port", server.port, "--connections", 40, "--seconds", 1, "--rate", 50)
            assert "2000 steps of 40 connections" in out
            assert "failed connections: 0" in out and "sequences with a lost or wrong answer: 0" in out


def test_load_tells_a_server_of_another_model():
    with Served() as server:
        command = [
            sys.executable,
            EXAMPLES / "load.py",
            EXAMPLES.parent / "tests" / "golden" / "files" / "lstm_zip.pt",
        ]
        command += ["--port", server.port, "--connections", "2", "--seconds", "0.1"]
        result = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert result.returncode == 1 and "failed connections: 2" in result.stdout
    assert "a lost or wrong answer: 0 of the 0 others" in result.stdout
    assert "takes 128 features, this one 3" in result.stdout


@pytest.fixture
def lstm_server(tmp_path):
    """A server of the LSTM without its head, a sequence, and the right answers."""
    example = load("server")
    model = fastrnn.Sequential(*example.load_model().layers[:1])
    model.save(tmp_path / "model.safetensors")
    x = np.random.default_rng(0).standard_normal((300, 128)).astype("<f4")
    with Served(tmp_path / "model.safetensors") as server:
        yield server, x.tobytes(), model(x)[0].tobytes()
        assert server.process.poll() is None, "the server is gone"


def connect(server):
    """A connection after the greeting, and a file to read its answers from."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    reader = client.makefile("rb")
    assert reader.read(8) == bytes([128, 0, 0, 0, 128, 0, 0, 0])
    return client, reader


def test_server_answers_steps_however_they_are_cut(lstm_server):
    server, steps, wanted = lstm_server
    client, reader = connect(server)
    for begin in range(0, len(steps), 10_001):
        client.sendall(steps[begin : begin + 10_001])
    assert reader.read(len(wanted)) == wanted
    reader.close()
    client.close()


def test_server_answers_what_was_sent_before_the_end(lstm_server):
    server, steps, wanted = lstm_server
    client, reader = connect(server)
    client.sendall(steps + b"half a step")
    client.shutdown(socket.SHUT_WR)
    assert reader.read() == wanted
    reader.close()
    client.close()


def test_server_survives_clients_that_leave(lstm_server):
    """In the middle of a step, with many steps waiting, without reading, or at once."""
    server, steps, wanted = lstm_server
    client, reader = connect(server)
    for count in (0, 100, 512, 40 * 512, len(steps)) * 10:
        leaving = socket.create_connection(("127.0.0.1", server.port), timeout=30)
        leaving.sendall(steps[:count])
        leaving.close()
    client.sendall(steps)
    assert reader.read(len(wanted)) == wanted
    reader.close()
    client.close()


@pytest.mark.parametrize("method", ("step", "close"))
def test_server_goes_on_after_a_batch_that_fails(capsys, method):
    """Clients in that batch are cut off. The next ones are served, even if a stream could not be closed."""
    example = load("server")
    server = example.Server(example.load_model())
    pool, calls = server.pool, []

    def fail_once(*arguments):
        calls.append(arguments)
        if len(calls) == 1:
            raise MemoryError("no room")
        return getattr(pool, method)(*arguments)

    server.pool = mock.Mock(wraps=pool, **{method: fail_once})

    async def talk():
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: example.Connection(server), "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        batches = asyncio.create_task(server.make_batches())
        answers = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            await reader.readexactly(8)
            # The second step waits while the first one is made.
            writer.write(bytes(2 * server.step_bytes))
            try:
                answers.append(await asyncio.wait_for(reader.readexactly(8), 10))
            except (asyncio.IncompleteReadError, ConnectionResetError):
                answers.append(b"")
            writer.close()
            while server.connections or server.has_work.is_set():
                await asyncio.sleep(0.01)
        batches.cancel()
        listener.close()
        return answers

    first, *others = asyncio.run(talk())
    assert len(first) == (0 if method == "step" else 8)
    assert [len(answer) for answer in others] == [8, 8]
    words = "1 connections cut off" if method == "step" else "a stream is not closed yet"
    assert f"{words}: MemoryError('no room')" in capsys.readouterr().err
    assert len(pool) <= 1  # the last one may still be open
