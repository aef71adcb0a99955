"""What the steps of a pool are compared with: the same streams in random order, one by one, and elsewhere."""

from dataclasses import replace
from itertools import cycle

import numpy as np

from fastrnn.benchmark.engines import Fastrnn, Job, OnnxRuntime, make_model, pool_job


class Shuffled(Fastrnn):
    """The pool, with its streams given in random order."""

    name = "in random order"

    def build(self, work):
        return pool_job(make_model(work), work.x()[0], np.random.default_rng(0).permutation(work.B))


class Streams(Fastrnn):
    """A `Stream` for each sequence, stepped one after the other."""

    name = "streams one by one"

    def build(self, work):
        model, x = make_model(work), work.x()[0]
        streams = [model.stream() for _ in x]
        y = np.empty_like(model(x[None])[0][0])
        calls = [(stream.step, x[b], y[b]) for b, stream in enumerate(streams)]

        def step():
            for call, row, out in calls:
                call(row, out)

        return Job(step, lambda: y)


class OnnxByHand(OnnxRuntime):
    """ONNX Runtime as its users step many sequences: one at a time, with states carried by hand."""

    name = "onnxruntime by hand"

    def build(self, work):
        session, states = self.session(replace(work, B=1))
        x = work.x()
        outputs = ["y", *(f"{name}_out" for name in states)]
        zeros = {f"{name}_in": np.zeros(shape, x.dtype) for name, shape in states.items()}
        feeds = [{"x": x[:, b : b + 1], **zeros} for b in range(work.B)]
        y = [None] * work.B

        def step():
            for b, feed in enumerate(feeds):
                y[b], *after = session.run(outputs, feed)
                feed.update(zip(zeros, after, strict=True))

        return Job(step, lambda: np.concatenate(y))


class OnnxOneByOne(OnnxRuntime):
    """The same at its best: inputs, outputs and two sets of states are bound for each sequence beforehand."""

    name = "onnxruntime one by one"

    def build(self, work):
        session, states = self.session(replace(work, B=1))
        x = work.x()
        bound = [self.bind(session, x[:, b : b + 1], states, True) for b in range(work.B)]
        turns = cycle([[bindings[turn] for bindings, _ in bound] for turn in range(2)])
        run = session.run_with_iobinding

        def step():
            for binding in next(turns):
                run(binding)

        return Job(step, lambda: np.concatenate([y.numpy() for _, y in bound]))


SHUFFLED = Shuffled()
BESIDE_POOLS = (SHUFFLED, Streams(), OnnxByHand(), OnnxOneByOne())
