"""Text from a character-level LSTM, one character at a time.

    python examples/text_generation.py --prompt "A class " --temperature 0.5

The model is that of the demo: a `state_dict` with an Embedding, an LSTM and a Linear layer. Dividing the
scores by a temperature is the same as dividing the last layer's weights by it. So a stream of the model
takes a character and returns the probabilities of the next one.
"""

import argparse

import numpy as np

import fastrnn
from fastrnn.demo import decode, encode, weights_path


def load_model(path, temperature):
    """A model from characters to the probabilities of the next one."""
    weights = dict(fastrnn.load_state_dict(path))
    for name in ("linear.weight", "linear.bias"):
        weights[name] = weights[name] / temperature
    return fastrnn.Sequential(
        fastrnn.Embedding.from_state_dict(weights, "embedding"),
        fastrnn.LSTM.from_state_dict(weights, "lstm"),
        fastrnn.Linear.from_state_dict(weights, "linear"),
        fastrnn.Softmax(),
    )


def characters(model, prompt, length, seed):
    """Yield this many characters that follow the prompt."""
    random = np.random.default_rng(seed)
    stream = model.stream()
    probabilities = stream.run(encode(prompt))[-1]
    for _ in range(length):
        chances = probabilities.astype(np.float64)
        token = random.choice(len(chances), p=chances / chances.sum())
        yield decode([token])
        probabilities = stream.step(token)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default=weights_path(), help="a state dict like the demo's")
    parser.add_argument("--prompt", default="The ")
    parser.add_argument("--length", type=int, default=400, help="number of characters (default 400)")
    parser.add_argument("--temperature", type=float, default=0.6, help="higher is more random (default 0.6)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.temperature <= 0 or not options.prompt:
        parser.error("the temperature must be above 0, and the prompt not empty")
    model = load_model(options.weights, options.temperature)
    print(options.prompt, end="")
    for character in characters(model, options.prompt, options.length, options.seed):
        print(character, end="", flush=True)
    print()


if __name__ == "__main__":
    main()
