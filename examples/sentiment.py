"""The sentiment classifier of many torch tutorials, from its `state_dict`.

    python examples/sentiment.py sentiment.pt 4,8,15,16 23,42

In torch:

    class Sentiment(nn.Module):
        def __init__(self, words, features, units):
            super().__init__()
            self.embedding = nn.Embedding(words, features)
            self.lstm = nn.LSTM(features, units, num_layers=2, batch_first=True, dropout=0.5)
            self.dropout = nn.Dropout(0.3)
            self.fc = nn.Linear(units, 1)
            self.sig = nn.Sigmoid()

        def forward(self, tokens):
            output, _ = self.lstm(self.embedding(tokens))
            return self.sig(self.fc(self.dropout(output[:, -1])))

    torch.save(model.state_dict(), "sentiment.pt")

Without arguments the weights are random, and the two reviews mean nothing. A review is a list of word
numbers with commas between them, of any length. It needs no padding on the left, since `Last` takes each
row's own last word.
"""

import argparse

import numpy as np

import fastrnn

REVIEWS = ("4,8,15,16", "23,42")


def make_weights(words=50, features=16, units=32):
    """Random weights with the names of the module above."""
    random = np.random.default_rng(0)
    shapes = {"embedding.weight": (words, features), "fc.weight": (1, units), "fc.bias": (1,)}
    for layer, columns in enumerate((features, units)):
        shapes[f"lstm.weight_ih_l{layer}"] = (4 * units, columns)
        shapes[f"lstm.weight_hh_l{layer}"] = (4 * units, units)
        shapes[f"lstm.bias_ih_l{layer}"] = shapes[f"lstm.bias_hh_l{layer}"] = (4 * units,)
    return {name: random.uniform(-0.4, 0.4, shape) for name, shape in shapes.items()}


def make_model(weights):
    """A model from word numbers (B, T) to the probability that a review is good (B, 1)."""
    return fastrnn.Sequential(
        fastrnn.Embedding.from_state_dict(weights, "embedding"),
        fastrnn.LSTM.from_state_dict(weights, "lstm", batch_first=True),
        fastrnn.Last(),
        fastrnn.Linear.from_state_dict(weights, "fc"),
        fastrnn.Sigmoid(),
    )


def rate(model, reviews):
    """The probabilities (B, 1) that these reviews are good."""
    lengths = [len(review) for review in reviews]
    tokens = np.zeros((len(reviews), max(lengths)), int)
    for row, review in zip(tokens, reviews, strict=True):
        row[: len(review)] = review
    return model(tokens, lengths=lengths)[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", nargs="?", help="the state dict (.pt, .safetensors, .npz)")
    parser.add_argument("reviews", nargs="*", default=REVIEWS, help="word numbers with commas between them")
    options = parser.parse_args()
    try:
        weights = make_weights() if options.weights is None else fastrnn.load_state_dict(options.weights)
        model = make_model(weights)
        reviews = [[int(word) for word in review.split(",")] for review in options.reviews]
        chances = rate(model, reviews)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    for review, (chance,) in zip(options.reviews, chances, strict=True):
        print(f"{'good' if chance >= 0.5 else 'bad '} {chance:.3f}  {review}")


if __name__ == "__main__":
    main()
