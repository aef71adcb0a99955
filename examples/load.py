"""Load for examples/server.py: many live sequences at once, with every answer compared.

    python examples/load.py MODEL --port 7070 --connections 1000 --seconds 60 --rate 10

Each connection sends a step when it is due, `rate` times a second, and waits for the answer. The time of a
step counts from the moment it was due, so a server that falls behind cannot hide it. Prints the 50th and
99th percentile of that time, and the steps per second. Exits with 1 if an answer is missing, or differs in
one bit from what the model gives for the whole sequence. MODEL is the server's model. On the server's
machine, this program competes with it for cores.
"""

import argparse
import asyncio
import sys
import time

import numpy as np
from server import GREETING, load_model

ROWS = 4096  # in the table that all inputs are taken from
PATIENCE = 30  # how many seconds late the last answer may be


class Client:
    """One live sequence: its inputs, the answers, and how long each took."""

    def __init__(self, number, table, steps):
        places = 37 * number + np.arange(steps)
        self.inputs = table[places % len(table)]
        self.answers = bytearray()
        self.seconds = []
        self.end = 0.0  # when the last answer came

    async def run(self, host, port, rate, begin):
        """Make all steps, the first one at the time `begin`."""
        # One timeout for all answers. One for each would take more of a core than everything else.
        due = begin + len(self.inputs) / rate - time.monotonic()
        await asyncio.wait_for(self.make_steps(host, port, rate, begin), due + PATIENCE)

    async def make_steps(self, host, port, rate, begin):
        """Connect, send each step when it is due, and wait for its answer."""
        reader, writer = await asyncio.open_connection(host, port)
        greeting = await reader.readexactly(GREETING.size)
        taken, features = GREETING.unpack(greeting)
        if taken != self.inputs.shape[1]:
            raise ValueError(f"the server's model takes {taken} features, this one {self.inputs.shape[1]}")
        for index, step in enumerate(self.inputs):
            due = begin + index / rate
            await asyncio.sleep(max(0, due - time.monotonic()))
            writer.write(step.tobytes())
            self.answers += await reader.readexactly(4 * features)
            self.end = time.monotonic()
            self.seconds.append(self.end - due)
        writer.close()
        await writer.wait_closed()

    def is_right(self, model):
        """Whether the answers are bit for bit what the whole sequence gives."""
        return self.answers == model.stream().run(self.inputs).astype("<f4").tobytes()


async def run_all(clients, options):
    """Run all clients at once, with their steps spread evenly over time.

    Returns when they began, and for each client the exception that it failed with, or None.
    """
    begin = time.monotonic() + 1 + len(clients) / 1000  # when all should be connected
    runs = [
        client.run(options.host, options.port, options.rate, begin + index / len(clients) / options.rate)
        for index, client in enumerate(clients)
    ]
    return begin, await asyncio.gather(*runs, return_exceptions=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="the server's model; leave it out if the server has none")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=7070)
    parser.add_argument("--connections", type=int, default=1000, help="at least 1")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--rate", type=float, default=10, help="steps per second of each connection (default 10)"
    )
    options = parser.parse_args()
    if min(options.connections, options.seconds, options.rate) <= 0:
        parser.error("connections, seconds and rate must be above 0")
    model = load_model(options.model)
    if model.features_in is None:
        parser.error(f"no server takes a model that begins with {model.layers[0]!r}")
    steps = max(1, round(options.seconds * options.rate))
    table = np.random.default_rng(0).standard_normal((ROWS, model.features_in)).astype("<f4")
    clients = [Client(number, table, steps) for number in range(options.connections)]
    begin, ends = asyncio.run(run_all(clients, options))
    failures = [end for end in ends if end is not None]
    whole = [client for client, end in zip(clients, ends, strict=True) if end is None]
    seconds = np.concatenate([client.seconds for client in clients])
    wrong = sum(not client.is_right(model) for client in whole)
    if len(seconds):
        p50, p99 = np.quantile(seconds, (0.5, 0.99)) * 1e3
        rate = len(seconds) / (max(client.end for client in clients) - begin)
        print(f"{len(seconds)} steps of {len(clients)} connections, {rate:.0f} a second")
        print(f"a step: p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    print(f"failed connections: {len(failures)}{''.join(f' {failure!r}' for failure in failures[:3])}")
    print(f"sequences with a lost or wrong answer: {wrong} of the {len(whole)} others")
    return 1 if wrong or failures else 0


if __name__ == "__main__":
    sys.exit(main())
