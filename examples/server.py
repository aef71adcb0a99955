"""A server of live sequences: each connection is one, and steps that arrive together are made as one batch.

    python examples/server.py MODEL --port 7070
    python examples/load.py MODEL --port 7070 --connections 1000

The protocol: the server first sends two little-endian uint32, the number of features of a step's input and
of its output. Then the client sends steps, each as little-endian float32, and gets an answer to each, in
order. It may send several before it reads. When it has sent its last step and closes its side, the server
answers what is left and closes the connection. The sequence ends with the connection.

Without MODEL it serves a voice detector with random weights: LSTM 128->128, Linear, Sigmoid.
"""

import argparse
import asyncio
import struct
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import fastrnn

GREETING = struct.Struct("<II")
WINDOW = 300e-6  # how many seconds a step waits for others
MOST_WAITING = 64  # unanswered steps of a connection. With more, it is not read until some are answered.


def load_model(path=None):
    """The model in a file. Without one, a voice detector with random weights, the same every time."""
    if path is not None:
        return fastrnn.load(path)
    random = np.random.default_rng(0)
    shapes = {
        "lstm.weight_ih_l0": (512, 128),
        "lstm.weight_hh_l0": (512, 128),
        "lstm.bias_ih_l0": (512,),
        "lstm.bias_hh_l0": (512,),
        "linear.weight": (1, 128),
        "linear.bias": (1,),
    }
    weights = {name: random.uniform(-0.2, 0.2, shape) for name, shape in shapes.items()}
    return fastrnn.Sequential(
        fastrnn.LSTM.from_state_dict(weights, "lstm"),
        fastrnn.Linear.from_state_dict(weights, "linear"),
        fastrnn.Sigmoid(),
    )


class Connection(asyncio.Protocol):
    """One client: its stream in the pool, and the bytes of steps that have not been made yet."""

    def __init__(self, server):
        self.server = server
        self.stream = None  # the id of its stream, from the first step on
        self.received = bytearray()
        self.is_writable = True
        self.has_ended = False  # nothing more will come

    def connection_made(self, transport):
        self.transport = transport
        self.server.connections.add(self)
        transport.write(self.server.greeting)

    def data_received(self, data):
        self.received += data
        if len(self.received) > MOST_WAITING * self.server.step_bytes:
            self.transport.pause_reading()
        self.server.look_at(self)

    def take_step(self):
        """The bytes of the next step."""
        size = self.server.step_bytes
        step = bytes(self.received[:size])
        del self.received[:size]
        if len(self.received) <= MOST_WAITING * size:
            self.transport.resume_reading()
        return step

    def eof_received(self):
        """The client has sent its last step. Answer what is left, then close the connection."""
        self.has_ended = True
        self.server.look_at(self)
        return True

    def pause_writing(self):
        """The client does not read its answers. Make no more of them."""
        self.is_writable = False

    def resume_writing(self):
        self.is_writable = True
        self.server.look_at(self)

    def connection_lost(self, error):
        self.received.clear()
        self.server.connections.discard(self)
        self.server.ready.pop(self, None)
        if self.stream is not None:
            self.server.gone.append(self.stream)
            self.server.has_work.set()


class Server:
    """Collects steps, and makes all that have arrived as one batch."""

    def __init__(self, model):
        self.pool = model.pool()
        self.greeting = GREETING.pack(model.features_in, model.features_out)
        self.step_bytes = 4 * model.features_in
        self.answer_bytes = 4 * model.features_out
        self.connections = set()
        self.ready = {}  # connections with a step to make, in the order in which they came (a dict keeps it)
        self.under_way = {}  # connections whose step is being made
        self.gone = []  # streams to close
        self.has_work = asyncio.Event()
        # A thread for the batches, so that the loop goes on reading meanwhile.
        self.thread = ThreadPoolExecutor(1)

    def look_at(self, connection):
        """Let a connection take part in the next batch if it has a whole step and reads its answers."""
        if len(connection.received) < self.step_bytes:
            if connection.has_ended and connection not in self.under_way:
                connection.transport.close()
        elif connection.is_writable:
            self.ready[connection] = None
            self.has_work.set()

    async def make_batches(self):
        """Make one batch after the other, forever."""
        loop = asyncio.get_running_loop()
        while True:
            await self.has_work.wait()
            # Clients that send several steps at once do not wait for the others.
            is_behind = any(len(c.received) >= 2 * self.step_bytes for c in self.ready)
            if len(self.ready) < len(self.connections) and not is_behind:
                # The loop's own clock only has a resolution of a millisecond.
                await loop.run_in_executor(self.thread, time.sleep, WINDOW)
            self.has_work.clear()
            self.under_way, self.ready = self.ready, {}
            batch = list(self.under_way)
            try:
                answers = await self.answer(batch) if batch else {}
            except Exception as error:  # out of memory, say: cut these off, and serve the others
                print(f"server.py: {len(batch)} connections cut off: {error!r}", file=sys.stderr)
                answers = {}
            self.under_way = {}
            for connection in batch:
                if connection not in self.connections:
                    continue
                if connection not in answers:
                    self.ready.pop(connection, None)
                    connection.transport.abort()
                    continue
                connection.transport.write(answers[connection])
                self.look_at(connection)
            self.close_streams()

    def close_streams(self):
        """Close the streams of connections that are gone. One that fails waits until after the next batch."""
        while self.gone:
            try:
                self.pool.close(self.gone[-1])
            except MemoryError as error:  # closing returns the state, which takes memory
                print(f"server.py: a stream is not closed yet: {error!r}", file=sys.stderr)
                return
            self.gone.pop()

    async def answer(self, batch):
        """Make a step of each of these connections. Returns their answers."""
        # Between two batches the pool is free, so opening a stream does not wait.
        for connection in batch:
            if connection.stream is None:
                connection.stream = self.pool.open()
        ids = [connection.stream for connection in batch]
        steps = b"".join(connection.take_step() for connection in batch)
        loop = asyncio.get_running_loop()
        answers = await loop.run_in_executor(self.thread, self.step, ids, steps)
        size = self.answer_bytes
        return {
            connection: answers[index * size : (index + 1) * size] for index, connection in enumerate(batch)
        }

    def step(self, ids, steps):
        """Make a step of each stream, from bytes to bytes."""
        X = np.frombuffer(steps, "<f4").reshape(len(ids), -1)
        return memoryview(self.pool.step(ids, X).astype("<f4", copy=False)).cast("B")

    async def serve(self, host, port):
        """Listen, print where, and serve until cancelled."""
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(lambda: Connection(self), host, port, backlog=4096)
        async with listener:
            for socket in listener.sockets:
                print("listening on {}:{}".format(*socket.getsockname()), flush=True)
            await self.make_batches()


async def main(options):
    try:
        model = load_model(options.model)
        if model.features_in is None:
            raise ValueError(f"one that takes tokens or any width: it begins with {model.layers[0]!r}")
        server = Server(model)
    except (ValueError, OSError) as error:
        raise SystemExit(f"server.py: expected a model that can be served, got: {error}") from None
    try:
        await server.serve(options.host, options.port)
    except (OSError, OverflowError) as error:  # OverflowError: not a port number
        raise SystemExit(f"server.py: {error}") from None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", help="a saved model that does not take tokens")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--port", type=int, default=7070, help="port to listen on; 0 for any that is free (default 7070)"
    )
    try:
        asyncio.run(main(parser.parse_args()))
    except KeyboardInterrupt:
        pass
