"""A guitar through a neural amplifier, block by block as a sound card would ask for it.

    python examples/guitar_amp.py MODEL.json IN.wav OUT.wav

MODEL.json is a GRU or LSTM model from GuitarML's trainers: "model_data", and a "state_dict" with a recurrent
layer "rec" and a Linear "lin". Without MODEL.json the weights are random. Without IN.wav a plucked string
plays (Karplus and Strong, Digital synthesis of plucked-string and drum timbres, 1983).
"""

import argparse
import json
import time
import wave

import numpy as np

import fastrnn

RATE = 44100
WARM_UP = 200  # blocks before the sound that are not timed, since the first ones find the caches cold
QUANTILES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "largest": 1.0}
KINDS = {"GRU": fastrnn.GRU, "LSTM": fastrnn.LSTM}


def load_model(path=None):
    """The model, and whether the input is added to its output (1) or not (0)."""
    if path is None:
        return make_model(), 1
    with open(path) as file:
        content = json.load(file)
    settings = content["model_data"]
    weights = {name: np.array(values, np.float32) for name, values in content["state_dict"].items()}
    recurrent = KINDS[settings["unit_type"]].from_state_dict(weights, "rec")
    return fastrnn.Sequential(recurrent, fastrnn.Linear.from_state_dict(weights, "lin")), settings["skip"]


def make_model():
    """A GRU of 8 units with random weights."""
    random = np.random.default_rng(0)
    shapes = {
        "rec.weight_ih_l0": (24, 1),
        "rec.weight_hh_l0": (24, 8),
        "rec.bias_ih_l0": (24,),
        "rec.bias_hh_l0": (24,),
        "lin.weight": (1, 8),
        "lin.bias": (1,),
    }
    weights = {name: random.uniform(-0.4, 0.4, shape) for name, shape in shapes.items()}
    return fastrnn.Sequential(
        fastrnn.GRU.from_state_dict(weights, "rec"), fastrnn.Linear.from_state_dict(weights, "lin")
    )


class Amplifier:
    """What an audio callback calls. The state goes on from block to block, and no array is allocated."""

    def __init__(self, model, skip, most_samples):
        self.stream = model.stream()
        self.skip = skip
        self.out = np.empty((most_samples, 1), np.float32)

    def process(self, block):
        """Amplify samples (n,), in place."""
        out = self.out[: len(block)]
        self.stream.run(block, out=out)
        block *= self.skip
        block += out[:, 0]

    def warm_up(self, blocks=WARM_UP):
        """Run blocks of silence, then reset the state."""
        for _ in range(blocks):
            self.process(np.zeros(len(self.out), np.float32))
        self.stream.reset()


def play(amplifier, sound, size):
    """Amplify samples (n,), in place, in blocks of this size. Returns the seconds that each block took."""
    seconds = []
    for begin in range(0, len(sound), size):
        start = time.perf_counter()
        amplifier.process(sound[begin : begin + size])
        seconds.append(time.perf_counter() - start)
    return seconds


def report(seconds, deadline):
    """Yield lines of text: how long blocks took, compared with the time until the next one."""
    yield f"{len(seconds)} blocks after a warm-up; each may take {deadline * 1e6:.0f} us"
    for name, value in zip(QUANTILES, np.quantile(seconds, list(QUANTILES.values())), strict=True):
        yield f"{name:<7}  {value * 1e6:6.1f} us  {value / deadline:6.1%} of the deadline"
    missed = sum(took >= deadline for took in seconds)
    yield f"{missed} missed it"


def pluck(seconds, hertz=110.0):
    """A plucked string: samples (n,) from -1 to 1."""
    random = np.random.default_rng(0)
    period = round(RATE / hertz)
    sound = np.zeros(round(seconds * RATE), np.float32)
    string = random.uniform(-1, 1, period).astype(np.float32)
    for begin in range(0, len(sound), period):
        part = sound[begin : begin + period]
        part[:] = string[: len(part)]
        string = 0.498 * (string + np.roll(string, 1))
    return sound


def read_wav(path):
    """The samples of a 16-bit mono file, and their rate."""
    with wave.open(path, "rb") as file:
        if file.getsampwidth() != 2 or file.getnchannels() != 1:
            raise SystemExit(f"{path}: expected 16-bit mono sound.")
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return samples.astype(np.float32) / 32768, file.getframerate()


def write_wav(path, samples, rate):
    """Write samples as a 16-bit mono file."""
    with wave.open(path, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="a JSON model from GuitarML's trainers")
    parser.add_argument("input", nargs="?", help="a 16-bit mono WAV file")
    parser.add_argument("output", nargs="?", help="where to write the sound")
    parser.add_argument("--block", type=int, default=64, help="samples in a block (default 64)")
    options = parser.parse_args()
    try:
        sound, rate = (pluck(2.0), RATE) if options.input is None else read_wav(options.input)
        amplifier = Amplifier(*load_model(options.model), options.block)
    except (OSError, ValueError, KeyError, wave.Error) as error:
        parser.error(f"{type(error).__name__}: {error}")
    if not len(sound):
        parser.error(f"{options.input}: expected sound, got no samples.")
    amplifier.warm_up()
    seconds = play(amplifier, sound, options.block)
    total = sum(seconds)
    print(f"{len(sound)} samples in {total * 1e3:.1f} ms: {len(sound) / rate / total:.0f} times real time")
    for line in report(seconds, options.block / rate):
        print(line)
    if options.output is not None:
        write_wav(options.output, sound, rate)


if __name__ == "__main__":
    main()
