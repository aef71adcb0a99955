"""A tag for every word: sentences of different lengths in one batch, through a bidirectional LSTM.

    python examples/tagging.py "the cat sat" "dogs bark at the moon every night"

This is the usual tagger: Embedding, bidirectional LSTM, Linear, and the likeliest tag of each word. The
weights here are random, so the tags mean nothing. Read yours with `fastrnn.load_state_dict`; no other line
changes.
"""

import argparse

import numpy as np

import fastrnn

TAGS = ("NOUN", "VERB", "DET", "ADP", "ADV")
SENTENCES = ("the cat sat", "dogs bark at the moon every night", "go")
PADDING = 0


def make_weights(words, features=16, units=24):
    """Random weights with the names of a torch module that has `embedding`, `lstm` and `linear`."""
    random = np.random.default_rng(0)
    shapes = {"embedding.weight": (words, features)}
    for direction in ("", "_reverse"):
        shapes[f"lstm.weight_ih_l0{direction}"] = (4 * units, features)
        shapes[f"lstm.weight_hh_l0{direction}"] = (4 * units, units)
        shapes[f"lstm.bias_ih_l0{direction}"] = (4 * units,)
        shapes[f"lstm.bias_hh_l0{direction}"] = (4 * units,)
    shapes["linear.weight"] = (len(TAGS), 2 * units)
    shapes["linear.bias"] = (len(TAGS),)
    return {name: random.uniform(-0.5, 0.5, shape) for name, shape in shapes.items()}


def make_model(weights):
    """A model from word numbers (B, T) to the scores of each tag (B, T, tags)."""
    return fastrnn.Sequential(
        fastrnn.Embedding.from_state_dict(weights, "embedding"),
        fastrnn.LSTM.from_state_dict(weights, "lstm", batch_first=True),
        fastrnn.Linear.from_state_dict(weights, "linear"),
    )


def tag(model, vocabulary, sentences):
    """The tags of the words of each sentence."""
    words = [sentence.split() for sentence in sentences]
    lengths = [len(row) for row in words]
    tokens = np.full((len(words), max(lengths)), PADDING)
    for row, line in zip(tokens, words, strict=True):
        row[: len(line)] = [vocabulary[word] for word in line]
    scores, _ = model(tokens, lengths=lengths)
    best = scores.argmax(axis=-1)
    return [[TAGS[i] for i in row[:length]] for row, length in zip(best, lengths, strict=True)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sentences", nargs="*", default=SENTENCES, help="sentences of at least one word each")
    sentences = parser.parse_args().sentences
    if not all(sentence.split() for sentence in sentences):
        parser.error("a sentence has at least one word")
    print("The weights are random, and so are the tags.")
    words = sorted({word for sentence in sentences for word in sentence.split()})
    vocabulary = {word: number for number, word in enumerate(words, PADDING + 1)}
    model = make_model(make_weights(len(words) + 1))
    for sentence, tags in zip(sentences, tag(model, vocabulary, sentences), strict=True):
        print(" ".join(f"{word}/{name}" for word, name in zip(sentence.split(), tags, strict=True)))


if __name__ == "__main__":
    main()
