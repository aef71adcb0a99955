"""Train the character-level LSTM that ``fastrnn demo`` runs.

The text is ``pydoc_data.topics``, the language reference that comes with every Python (PSF licence). The
result is a plain ``state_dict``, saved as any torch user would save it:

    python examples/train_demo_model.py fastrnn/demo/char_lstm.pt

Needs torch. About ten minutes on two cores.
"""

import argparse
import os
import time
from pydoc_data.topics import topics

import torch
from torch import nn

from fastrnn.demo import ALPHABET, encode


class CharLSTM(nn.Module):
    """Embedding, one LSTM layer, and a score for every character of the alphabet."""

    def __init__(self, embedding_dim=32, hidden_size=144):
        super().__init__()
        self.embedding = nn.Embedding(len(ALPHABET), embedding_dim)
        self.lstm = nn.LSTM(embedding_dim, hidden_size)
        self.linear = nn.Linear(hidden_size, len(ALPHABET))

    def forward(self, tokens, state=None):
        output, state = self.lstm(self.embedding(tokens), state)
        return self.linear(output), state


def read_text():
    return "\n".join(topics[name] for name in sorted(topics))


def batches(tokens, batch_size, num_steps, generator):
    """Yield (num_steps + 1, batch_size) windows that begin at random places."""
    offsets = torch.arange(num_steps + 1)[:, None]
    while True:
        begins = torch.randint(len(tokens) - num_steps - 1, (batch_size,), generator=generator)
        yield tokens[offsets + begins]


def train(steps, batch_size, num_steps, learning_rate, seed):
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.tensor(encode(read_text()))
    model = CharLSTM()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=steps)
    began = time.monotonic()
    mean_loss = None
    windows = batches(tokens, batch_size, num_steps, generator)
    for step in range(1, steps + 1):
        window = next(windows)
        logits, _ = model(window[:-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), window[1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        mean_loss = loss.item() if mean_loss is None else 0.98 * mean_loss + 0.02 * loss.item()
        if step % 100 == 0:
            seconds = time.monotonic() - began
            print(f"step {step}: loss {mean_loss:.3f} nats per character, {seconds:.0f} s", flush=True)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", help="where to save the state dict (.pt)")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--num-steps", type=int, default=128, help="characters per training window")
    parser.add_argument("--learning-rate", type=float, default=8e-3)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if not os.path.isdir(os.path.dirname(arguments.output) or "."):
        parser.error(f"no folder for {arguments.output}")
    model = train(
        arguments.steps,
        arguments.batch_size,
        arguments.num_steps,
        arguments.learning_rate,
        arguments.seed,
    )
    torch.save(model.state_dict(), arguments.output)


if __name__ == "__main__":
    main()
