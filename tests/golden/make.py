"""Record torch's outputs and files, so that tests can use them where torch is not installed.

    python tests/golden/make.py

writes beside this script layers.npz (weights, inputs, states and outputs of recurrent layers in float64),
others.npz (the same of the other layers), and the files in files/.
"""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn

HERE = Path(__file__).parent
FILES = HERE / "files"

# Name to class, options, batch size (None for unbatched) and lengths.
LAYERS = {
    "rnn_tanh": (nn.RNN, {}, 3, None),
    "rnn_relu_2_layers": (nn.RNN, {"nonlinearity": "relu", "num_layers": 2}, 2, None),
    "rnn_both_directions_lengths": (nn.RNN, {"bidirectional": True}, 4, [3, 9, 1, 6]),
    "gru": (nn.GRU, {}, None, None),
    "gru_no_bias_3_layers": (nn.GRU, {"bias": False, "num_layers": 3}, 2, None),
    "gru_2_layers_both_directions_lengths": (
        nn.GRU, {"num_layers": 2, "bidirectional": True}, 5, [2, 9, 4, 9, 1]),
    "lstm": (nn.LSTM, {}, 1, None),
    "lstm_2_layers_both_directions": (nn.LSTM, {"num_layers": 2, "bidirectional": True}, 3, None),
    "lstm_lengths": (nn.LSTM, {"num_layers": 2}, 4, [1, 2, 9, 5]),
    "lstm_proj": (nn.LSTM, {"proj_size": 4}, 3, None),
    "lstm_proj_all": (
        nn.LSTM, {"proj_size": 3, "num_layers": 2, "bidirectional": True, "bias": False}, 3, [9, 2, 7]),
}  # fmt: skip
T, INPUT_SIZE, H = 9, 5, 7


def draw(*shape):
    return torch.randn(*shape).double()


def record_layers():
    arrays = {}
    for name, (cls, options, batch_size, lengths) in LAYERS.items():
        module = cls(INPUT_SIZE, H, **options).double()
        rows = () if batch_size is None else (batch_size,)
        stack = module.num_layers * (2 if module.bidirectional else 1)
        h = draw(stack, *rows, getattr(module, "proj_size", 0) or H)
        state = (h, draw(stack, *rows, H)) if cls is nn.LSTM else h
        x = draw(T, *rows, INPUT_SIZE)
        with torch.no_grad():
            if lengths is None:
                y, after = module(x, state)
            else:
                packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
                packed, after = module(packed, state)
                y, _ = nn.utils.rnn.pad_packed_sequence(packed, total_length=T)
                arrays[f"{name}/lengths"] = np.array(lengths)
        for key, tensor in module.state_dict().items():
            arrays[f"{name}/weights/{key}"] = tensor.numpy()
        arrays[f"{name}/x"], arrays[f"{name}/y"] = x.numpy(), y.numpy()
        for end, tensors in (("0", state), ("n", after)):
            tensors = tensors if isinstance(tensors, tuple) else (tensors,)
            for letter, tensor in zip("hc", tensors, strict=False):
                arrays[f"{name}/{letter}{end}"] = tensor.numpy()
    np.savez_compressed(HERE / "layers.npz", **arrays)


def record_others():
    x = draw(4, 3, 6) * 5
    tokens = torch.randint(11, (4, 3))
    modules = {
        "Linear": nn.Linear(6, 4),
        "Linear_no_bias": nn.Linear(6, 4, bias=False),
        "LayerNorm": nn.LayerNorm(6, eps=1e-3),
        "Embedding": nn.Embedding(11, 6),
        "ReLU": nn.ReLU(),
        "Tanh": nn.Tanh(),
        "Sigmoid": nn.Sigmoid(),
        "Softmax": nn.Softmax(dim=-1),
        "LogSoftmax": nn.LogSoftmax(dim=1),
    }
    nn.init.normal_(modules["LayerNorm"].weight)
    nn.init.normal_(modules["LayerNorm"].bias)
    arrays = {"x": x.numpy(), "tokens": tokens.numpy()}
    for name, module in modules.items():
        module = module.double()
        with torch.no_grad():
            y = module(tokens if name == "Embedding" else x)
        arrays[f"{name}/y"] = y.numpy()
        for key, tensor in module.state_dict().items():
            arrays[f"{name}/weights/{key}"] = tensor.numpy()
    np.savez_compressed(HERE / "others.npz", **arrays)


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(11, 5)
        self.gru = nn.GRU(5, 6)
        self.fc = nn.Linear(6, 4)


def write_files():
    FILES.mkdir(exist_ok=True)
    legacy = {"_use_new_zipfile_serialization": False}
    weights = nn.LSTM(3, 4).state_dict()
    np.savez(FILES / "expected_lstm.npz", **{key: tensor.numpy() for key, tensor in weights.items()})
    torch.save(weights, FILES / "lstm_zip.pt")
    torch.save(weights, FILES / "lstm_legacy.pt", **legacy)
    # A training checkpoint has more than weights, such as an optimizer with tensors of the same shapes.
    module = nn.LSTM(3, 4)
    module.load_state_dict(weights)
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.zeros(2, 1, 3))[0].sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 7,
        "model_state_dict": weights,
        "optimizer": optimizer.state_dict(),
        "scaler_mean": torch.zeros(3),
        "kwargs": {"hidden": 4, "name": "x"},
        "history": np.arange(3.0),
    }
    torch.save(checkpoint, FILES / "checkpoint_zip.pt")
    torch.save(checkpoint, FILES / "checkpoint_legacy.pt", **legacy)
    torch.save({"a": weights, "b": nn.LSTM(3, 4).state_dict()}, FILES / "two_models.pt")
    torch.save(
        OrderedDict((f"module.{key}", tensor) for key, tensor in weights.items()), FILES / "parallel.pt"
    )
    for name, options in (("zip", {}), ("legacy", legacy)):
        base = torch.arange(24, dtype=torch.float32)
        odd = {
            "transposed": base.reshape(4, 6).t(),
            "offset": base[5:9],
            "strided": base[1::3],
            "shared": base,
            "scalar": torch.tensor(2.5),
            "empty": torch.zeros(0, 3),
            "bfloat16": torch.tensor([1.0, -2.5, 3e38]).bfloat16(),
            "float16": torch.tensor([0.5, -2.0]).half(),
            "int64": torch.tensor([2**40, -1]),
            "bool": torch.tensor([True, False]),
            "parameter": nn.Parameter(torch.ones(2)),
        }
        torch.save(odd, FILES / f"odd_tensors_{name}.pt", **options)
    # Only in the zip format: the legacy one would store the source code of every class of the module.
    torch.save(Tagger(), FILES / "whole_module.pt")


if __name__ == "__main__":
    torch.manual_seed(0)
    record_layers()
    record_others()
    write_files()
