"""The shipped model, and what ``fastrnn demo`` does with it.

``char_lstm.pt`` is the ``state_dict`` of a character-level LSTM (Embedding, LSTM, Linear) that
examples/train_demo_model.py trained on the Python language reference (PSF licence). What the command prints
is in `fastrnn.cli.demo`. Nothing else in the library uses this model.
"""

import time
from collections.abc import Iterable, Iterator
from importlib import resources
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import fastrnn

ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
PROMPT = "The "


def encode(text: str) -> list[int]:
    """Text to tokens. A character outside the alphabet becomes "?"."""
    tokens = {character: token for token, character in enumerate(ALPHABET)}
    return [tokens.get(character, tokens["?"]) for character in text]


def decode(tokens: Iterable[int]) -> str:
    """Tokens to text."""
    return "".join(ALPHABET[token] for token in tokens)


def weights_path() -> Any:
    """The path of the shipped state dict."""
    return resources.files(__package__) / "char_lstm.pt"


def generate(
    stream: "fastrnn.Stream", length: int, prompt: str = PROMPT, temperature: float = 0.6, seed: int = 0
) -> Iterator[tuple[int, float]]:
    """Yield tokens, each drawn from the scores after the one before.

    Parameters
    ----------
    stream : Stream
        A stream of a model from tokens to scores.
    length : int
        How many tokens to yield.
    prompt : str
        What the stream reads first.
    temperature : float
        What the scores are divided by. Near 0, only the likeliest character is drawn.
    seed : int

    Yields
    ------
    (token, seconds)
        The token, and how long the step after it took.
    """
    random = np.random.default_rng(seed)
    scores = stream.run(np.array(encode(prompt)))[-1]
    for _ in range(length):
        with np.errstate(over="ignore"):
            powers = np.exp((scores - scores.max()).astype(np.float64) / temperature)
        token = int(np.searchsorted(np.cumsum(powers / powers.sum()), random.random()))
        token = min(token, len(ALPHABET) - 1)
        began = time.perf_counter()
        scores = stream.step(token)
        yield token, time.perf_counter() - began


def compare_with_torch(model: "fastrnn.Sequential", tokens: Iterable[int]) -> dict[str, Any] | None:
    """Step torch's fastest modules and the model through the same tokens. None if torch is not installed.

    Returns
    -------
    dict
        version, microseconds (torch's median for a step), and largest_difference (between the scores).
    """
    if find_spec("torch") is None:
        return None
    import torch

    # A cell steps many times as fast as a layer. Its names are those of the layer without their suffix.
    weights = {
        name.removesuffix("_l0"): tensor
        for name, tensor in torch.load(weights_path(), weights_only=True).items()
    }
    vocabulary, features = weights["embedding.weight"].shape
    embedding = torch.nn.Embedding(vocabulary, features)
    lstm = torch.nn.LSTMCell(features, weights["lstm.weight_hh"].shape[1])
    linear = torch.nn.Linear(*reversed(weights["linear.weight"].shape))
    modules = torch.nn.ModuleDict({"embedding": embedding, "lstm": lstm, "linear": linear}).eval()
    modules.load_state_dict(weights)
    stream = model.stream()
    seconds = []
    largest = 0.0
    state = None
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            for token in tokens:
                began = time.perf_counter()
                state = lstm(embedding(torch.tensor([token])), state)
                scores = linear(state[0])[0]
                seconds.append(time.perf_counter() - began)
                largest = max(largest, float(np.abs(scores.numpy() - stream.step(token)).max()))
    finally:
        torch.set_num_threads(threads)
    return {
        "version": torch.__version__,
        "microseconds": float(np.median(seconds) * 1e6),
        "largest_difference": largest,
    }
