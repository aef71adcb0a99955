"""The engines with whole models: a program of this library beside torch, ONNX Runtime and OpenVINO.

Every engine has the module as its users export it, at fixed sizes, with inputs and outputs bound beforehand
where it can. A model that keeps a state gets the same state in every call.
"""

import io
import logging
import os
import sys
import time
import warnings
from contextlib import contextmanager
from functools import cached_property, partial

import numpy as np
import torch

import fastrnn
from bench.models import GEOMETRIC_MEAN, WHOLE_MODELS
from bench.run import geometric_mean
from fastrnn.benchmark import engines
from fastrnn.benchmark.engines import Job, LeftOut
from fastrnn.benchmark.measure import ROUNDS, machine, measure
from fastrnn.benchmark.table import left_out_notes, ratio_to_best, time_cell, versions
from fastrnn.terminal import print_table

RESULT_VERSION = 1
OPSET = 17
# How many calls decide which of two exports is the faster one.
TRIED = 3


class ModelWork:
    """One call of a whole model. What `measure` asks a work for."""

    mode = "sequence"
    keeps_state = False
    deadline = None
    dtype = np.dtype("float32")
    precision = "float32"

    def __init__(self, model, threads):
        self.name, self.target, self.threads = model.name, model.target, threads
        self.module, self.args = model.make()

    @cached_property
    def leaves(self):
        """The arguments as a flat list of arrays."""
        return [leaf.numpy() for leaf in torch.utils._pytree.tree_leaves(self.args)]

    @cached_property
    def onnx_files(self):
        """The module in ONNX by each of torch's exporters that takes it, or the reasons why none does."""
        files, reasons = [], []
        for is_new in (True, False):
            options = {"dynamo": True} if is_new else {"dynamo": False, "opset_version": OPSET}
            try:
                with io.BytesIO() as file, warnings.catch_warnings(), _silence():
                    warnings.simplefilter("ignore")
                    torch.onnx.export(self.module, self.args, file, **options)
                    files.append(file.getvalue())
            except Exception as error:  # whatever an exporter raises, it cannot do this model
                reasons.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
        if not files:
            raise LeftOut("; ".join(reasons))
        return files


@contextmanager
def _silence():
    """Show nothing that torch's exporters print, in Python or beneath it."""
    sys.stdout.flush()
    level = logging.root.manager.disable
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    logging.disable(logging.CRITICAL)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        sys.stdout.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
        logging.disable(level)


def _flat(leaves):
    """Arrays as one row of numbers."""
    return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])


def _fastest(jobs):
    """The job of the fastest of several exports."""

    def seconds(job):
        job.call()
        began = time.perf_counter()
        for _ in range(TRIED):
            job.call()
        return time.perf_counter() - began

    return min(jobs, key=seconds)


class Fastrnn(engines.Fastrnn):
    """A program of this library, called like the module."""

    def build(self, work):
        program = fastrnn.export(work.module, work.args, dynamic=())
        program = fastrnn.Program(program.spec, threads=work.threads)
        args = torch.utils._pytree.tree_map(lambda leaf: leaf.numpy(), work.args)
        call = partial(program, *args)
        return Job(call, lambda: _flat(torch.utils._pytree.tree_leaves(call())))


class Torch(engines.Torch):
    """The module in eager mode."""

    def build(self, work):
        torch.set_num_threads(work.threads)
        call = partial(work.module, *work.args)
        return Job(call, lambda: _flat(torch.utils._pytree.tree_leaves(call())))


class OnnxRuntime(engines.OnnxRuntime):
    """The faster of the two exports, with bound inputs and outputs."""

    def build(self, work):
        return _fastest([self._job(work, file) for file in work.onnx_files])

    def _job(self, work, file):
        import onnxruntime

        session = self.open(file, work.threads)
        make = onnxruntime.OrtValue.ortvalue_from_numpy
        binding = session.io_binding()
        for form, leaf in zip(session.get_inputs(), work.leaves, strict=True):
            binding.bind_ortvalue_input(form.name, make(leaf))
        names = [form.name for form in session.get_outputs()]
        outputs = [
            make(y)
            for y in session.run(
                names, {f.name: a for f, a in zip(session.get_inputs(), work.leaves, strict=True)}
            )
        ]
        for name, y in zip(names, outputs, strict=True):
            binding.bind_ortvalue_output(name, y)
        return Job(partial(session.run_with_iobinding, binding), lambda: _flat([y.numpy() for y in outputs]))


class OpenVino(engines.OpenVino):
    """The faster of the two exports, tuned for latency, with bound inputs."""

    def build(self, work):
        return _fastest([self._job(work, file) for file in work.onnx_files])

    def _job(self, work, file):
        import openvino

        compiled = self.compile(file, work.threads, [leaf.shape for leaf in work.leaves])
        request = compiled.create_infer_request()
        for index, leaf in enumerate(work.leaves):
            request.set_input_tensor(index, openvino.Tensor(leaf))
        call = partial(request.infer, share_outputs=True)

        def output():
            return _flat([request.get_output_tensor(i).data for i in range(len(compiled.outputs))])

        return Job(call, output)


OURS = Fastrnn()
PEERS = (Torch(), OnnxRuntime(), OpenVino())


def run(models=WHOLE_MODELS, rounds=ROUNDS, threads=1, report=lambda done, total: None):
    """Measure whole models. The result can be written as JSON."""
    result = {
        "version": RESULT_VERSION,
        "date": time.strftime("%Y-%m-%d"),
        **machine(),
        "threads": threads,
        "models": [],
    }
    for index, model in enumerate(models):
        times = measure(ModelWork(model, threads), PEERS, rounds, ours=OURS)
        ratio = ratio_to_best(times)
        entry = {"name": model.name, "target": model.target, "ratio": ratio, "engines": times}
        result["models"].append(entry)
        report(index + 1, len(models))
    result["geometric_mean"] = geometric_mean(
        [entry["ratio"] for entry in result["models"] if entry["ratio"]]
    )
    return result


def print_result(result):
    """Print the table of a result."""
    names = list(result["engines"])
    rows = [
        [
            entry["name"],
            *(time_cell(entry["engines"].get(name)) for name in names),
            "-" if entry["ratio"] is None else f"{entry['ratio']:.2f}",
            f"{entry['target']:.2f}",
        ]
        for entry in result["models"]
    ]
    threads = "1 thread" if result["threads"] == 1 else f"{result['threads']} threads"
    print(f"{result['date']}, {result['processor']}, {threads}; {versions(result)}\n")
    print_table(["model", *names, "ratio", "wanted"], rows, width=None)
    for line in left_out_notes({entry["name"]: entry["engines"] for entry in result["models"]}):
        print(line)
    if result["geometric_mean"]:
        print(f"\ngeometric mean {result['geometric_mean']:.2f} (wanted {GEOMETRIC_MEAN})")
