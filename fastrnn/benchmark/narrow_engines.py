"""The engines at narrow precisions, each as its own makers offer it, with weights made ready beforehand."""

from __future__ import annotations

import os
import tempfile
import warnings
from typing import Any

from fastrnn.arrays import Array
from fastrnn.benchmark.engines import PEERS, Engine, Job, LeftOut, OnnxRuntime, OpenVino, Torch
from fastrnn.benchmark.work import Work, recurrent_shape
from fastrnn.spec import GATES


class TorchBfloat16(Torch):
    """torch with modules, inputs and states in bfloat16."""

    precision = "bfloat16"

    def prepare(self, module: Any) -> Any:
        import torch

        if isinstance(module, torch.nn.Module):
            return module.to(torch.bfloat16)
        return lambda x: module(x).to(torch.bfloat16)

    def tensor(self, x: Array) -> Any:
        import torch

        tensor = super().tensor(x)
        return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


class TorchInt8(Torch):
    """torch after `quantize_dynamic`: int8 weights, and activations that are quantised in each call."""

    precision = "int8"

    def build(self, work: Work) -> Job:
        for spec in work.specs:
            if spec.kind in GATES and recurrent_shape(spec).proj_size:
                raise LeftOut("no int8 with proj_size")
            if spec.kind == "RNN" and not (work.keeps_state and work.T == 1):
                raise LeftOut("no int8 of an RNN over sequences")
        return super().build(work)

    def prepare(self, module: Any) -> Any:
        import torch

        if not isinstance(module, torch.nn.Module):
            return module
        nn = torch.nn
        kinds = {nn.LSTM, nn.GRU, nn.LSTMCell, nn.GRUCell, nn.RNNCell, nn.Linear}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it will move to another package
            # In a container, since a module is not replaced by itself.
            return torch.ao.quantization.quantize_dynamic(nn.Sequential(module), kinds, torch.qint8)[0]


class OnnxRuntimeInt8(OnnxRuntime):
    """ONNX Runtime after `quantize_dynamic`: int8 weights with a scale for each row of them."""

    precision = "int8"

    def open(self, serialised: bytes, threads: int) -> Any:
        return super().open(_quantised(serialised), threads)


def _quantised(serialised: bytes) -> bytes:
    """A model with int8 weights. Raises LeftOut if a recurrent layer keeps its float32 weights."""
    import logging

    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logger = logging.getLogger()
    level = logger.level
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "int8.onnx")
        logger.setLevel(logging.ERROR)  # it advises to prepare the model, which changes nothing here
        try:
            model = onnx.load_from_string(serialised)
            quantize_dynamic(model, path, per_channel=True, weight_type=QuantType.QInt8)
        finally:
            logger.setLevel(level)
        with open(path, "rb") as file:
            quantised = file.read()
    left = {node.op_type for node in onnx.load_from_string(quantised).graph.node} & GATES.keys()
    if left:
        raise LeftOut(f"no int8 of {min(left)}")
    return quantised


class OpenVinoBfloat16(OpenVino):
    """OpenVINO with its inference precision set to bfloat16."""

    precision = "bfloat16"
    computes_in = "bf16"

    def build(self, work: Work) -> Job:
        import openvino

        if "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise LeftOut("no bfloat16 on this processor")
        return super().build(work)


class Absent(Engine):
    """An engine that does not have a precision."""

    def __init__(self, engine: Engine, precision: str, reason: str) -> None:
        self.name, self.needs, self.precision, self.reason = engine.name, engine.needs, precision, reason

    def build(self, work: Work) -> Job:
        raise LeftOut(self.reason)


_torch, _onnx_runtime, _openvino = PEERS
NARROW_PEERS: dict[str, tuple[Engine, ...]] = {
    "bfloat16": (
        TorchBfloat16(),
        Absent(_onnx_runtime, "bfloat16", "no bfloat16 on a CPU"),
        OpenVinoBfloat16(),
    ),
    "int8": (
        TorchInt8(),
        OnnxRuntimeInt8(),
        Absent(_openvino, "int8", "int8 only of models that NNCF has calibrated"),
    ),
}


def peers_at(precision: str) -> tuple[Engine, ...]:
    """The peers to compare a precision with: at the same one, or in float32 where they have none like it."""
    return NARROW_PEERS.get(precision, PEERS)
