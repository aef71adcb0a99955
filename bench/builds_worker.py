"""One build of fastrnn, timed on request: the process that `bench.builds` starts for each of its two builds.

It runs as a script with the build on PYTHONPATH, and uses nothing of fastrnn but its public names, so that a
build of any age will do. Requests come on stdin and answers go to stdout, both as JSON, one a line.
"""

import gc
import json
import signal
import sys
import time
from functools import partial
from itertools import repeat

import numpy as np


def main():
    """Say which build this is, then answer requests until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    try:
        import fastrnn
    except Exception as error:  # whatever is wrong with the build
        _answer({"error": _words_of(error)})
        return
    _answer({"file": fastrnn.__file__, "version": fastrnn.__version__})
    call = None
    for line in sys.stdin:
        request = json.loads(line)
        if "count" in request:
            _answer({"seconds": seconds(call, request["warm_up"], request["count"])})
            continue
        call = None  # its weights go before the next ones come
        try:
            call, output = prepare(fastrnn, **request["case"])
            outputs = []
            for _ in range(request["compared"]):
                call()
                outputs.append(output.copy())
            np.save(request["outputs"], np.stack(outputs))
            _answer({})
        except Exception as error:  # what a build cannot do, the other one may
            _answer({"error": _words_of(error)})


def prepare(fastrnn, file, kind, mode, options):
    """A call that does one unit of a case's work, and the array that it writes its output into.

    `file` is an .npz: x (T, B, I), ``lengths`` of the rows where they differ, and the layer's tensors, each
    name after ``layer.``.
    """
    with np.load(file) as arrays:
        tensors = {name.removeprefix("layer."): arrays[name] for name in arrays if name.startswith("layer.")}
        x = arrays["x"]
        lengths = arrays["lengths"] if "lengths" in arrays else None
    layer = getattr(fastrnn, kind).from_state_dict(tensors, **options)
    if mode == "sequence":
        out = layer(x, lengths=lengths)[0]
        return partial(layer, x, lengths=lengths, out=out), out
    model = fastrnn.Sequential(layer)
    B = x.shape[1]
    if mode == "pool":
        out = np.empty_like(model(x)[0][0])
        pool = model.pool(B)
        return partial(pool.step, np.array([pool.open() for _ in range(B)]), x[0], out), out
    stream = model.stream(None if B == 1 else B)
    x = x[:, 0] if B == 1 else x
    run, x = (stream.step, x[0]) if mode == "step" else (stream.run, x)
    out = np.empty_like(run(x))
    stream.reset()
    return partial(run, x, out), out


def seconds(call, warm_up, count):
    """The seconds of `count` calls, after some that are not timed."""
    gc.collect()
    gc.disable()
    try:
        for _ in repeat(None, warm_up):
            call()
        began = time.perf_counter()
        for _ in repeat(None, count):
            call()
        return time.perf_counter() - began
    finally:
        gc.enable()


def _words_of(error):
    return f"{type(error).__name__}: {str(error)[:200]}"


def _answer(answer):
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
