"""Small modules for how Python loops over time, packed sequences and states are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from export_case import Case, collector, falling, tokens
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

CASES: dict[str, Case] = {}
case = collector(CASES)

BATCH_FIRST: dict[str, Any] = {
    "inputs": lambda B, T: (torch.randn(B, T, 6),),
    "sizes": {"B": 2, "T": 5},
    "other": {"B": 3, "T": 8},
    "dynamic": ({0: "B", 1: "T"},),
}
RAGGED: dict[str, Any] = {
    "inputs": lambda B, T: (torch.randn(B, T, 6), falling(B, T).flip(0)),
    "sizes": {"B": 3, "T": 7},
    "other": {"B": 4, "T": 10},
    "dynamic": ({0: "B", 1: "T"}, {0: "B"}),
}
SORTED: dict[str, Any] = {**RAGGED, "inputs": lambda B, T: (torch.randn(B, T, 6), falling(B, T))}


def lstm_cell() -> nn.LSTMCell:
    return nn.LSTMCell(6, 8)


def forms(name: str, parts: Any, options: dict[str, Any] = BATCH_FIRST) -> Any:
    """A case of a function of a module with these parts, and of arguments."""

    def add(function: Any) -> Any:
        class Form(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                for part, made in parts().items():
                    if isinstance(made, Tensor) and not isinstance(made, nn.Parameter):
                        self.register_buffer(part, made)
                    else:
                        setattr(self, part, made)

            forward = function

        Form.__name__ = Form.__qualname__ = name
        case(name, make=Form, **options)(Form)
        return function

    return add


# ---------------------------------------------------------------- loops over time


@forms("cells_append", lambda: {"cell": lstm_cell()})
def cells_append(self: Any, x: Tensor) -> Any:
    h, c = torch.zeros(x.size(0), 8), torch.zeros(x.size(0), 8)
    out = []
    for t in range(x.size(1)):
        h, c = self.cell(x[:, t], (h, c))
        out.append(h)
    return torch.stack(out, dim=1), (h, c)


@forms("cells_unbind", lambda: {"cell": nn.GRUCell(6, 8), "fc": nn.Linear(8, 3)})
def cells_unbind(self: Any, x: Tensor) -> Any:
    h = x.new_zeros(x.shape[0], 8)
    out = []
    for step in x.unbind(1):
        h = self.cell(step, h)
        out.append(self.fc(h).unsqueeze(1))
    return torch.cat(out, dim=1)


@forms("cells_split", lambda: {"cell": nn.RNNCell(6, 8, nonlinearity="relu")})
def cells_split(self: Any, x: Tensor) -> Any:
    h = None
    out = ()
    for step in x.split(1, dim=1):
        h = self.cell(step.squeeze(1), h)
        out += (h,)
    return torch.stack(out, 1), h


@forms("cells_chunk", lambda: {"cell": nn.GRUCell(6, 8)})
def cells_chunk(self: Any, x: Tensor) -> Any:
    h = torch.zeros(x.size(0), 8).to(x)
    out = []
    for step in x.chunk(x.size(1), dim=1):
        h = self.cell(step[:, 0], h)
        out.append(h)
    return torch.stack(out)


@forms("cells_stacked", lambda: {"cells": nn.ModuleList([nn.LSTMCell(6, 8), nn.LSTMCell(8, 8)])})
def cells_stacked(self: Any, x: Tensor) -> Any:
    hs = [torch.zeros(x.size(0), 8) for _ in self.cells]
    cs = [torch.zeros(x.size(0), 8) for _ in self.cells]
    out = []
    for t in range(x.size(1)):
        y = x[:, t, :]
        for i, cell in enumerate(self.cells):
            hs[i], cs[i] = cell(y, (hs[i], cs[i]))
            y = hs[i]
        out.append(y)
    return torch.stack(out, 1), torch.stack(hs), torch.stack(cs)


@forms("cells_buffer", lambda: {"cell": nn.GRUCell(6, 8)})
def cells_buffer(self: Any, x: Tensor) -> Any:
    out = torch.empty(x.size(0), x.size(1), 8)
    h = torch.zeros(x.size(0), 8)
    for t in range(x.size(1)):
        h = self.cell(x[:, t], h)
        out[:, t] = h
    return out


@forms("cells_buffer_from_one", lambda: {"cell": nn.GRUCell(6, 8)})
def cells_buffer_from_one(self: Any, x: Tensor) -> Any:
    out = torch.zeros(x.size(1) + 1, x.size(0), 8)
    for t in range(x.size(1)):
        out[t + 1] = self.cell(x[:, t], out[t])
    return out[1:].transpose(0, 1)


@forms("cells_short", lambda: {"cell": nn.GRUCell(6, 6)})
def cells_short(self: Any, x: Tensor) -> Any:
    h = x[:, 0]
    out = [h]
    for t in range(x.size(1) - 1):
        h = self.cell(x[:, t + 1], h)
        out.append(h)
    return torch.stack(out, dim=1)


@forms("cells_backward", lambda: {"cell": nn.GRUCell(6, 8)})
def cells_backward(self: Any, x: Tensor) -> Any:
    h = torch.zeros(x.size(0), 8)
    out: list[Tensor] = []
    for t in range(x.size(1) - 1, -1, -1):
        h = self.cell(x[:, t], h)
        out.insert(0, h)
    return torch.stack(out, dim=1)


@forms("cells_flipped", lambda: {"ahead": nn.LSTMCell(6, 8), "back": nn.LSTMCell(6, 8)})
def cells_flipped(self: Any, x: Tensor) -> Any:
    results = []
    for cell, data in ((self.ahead, x), (self.back, torch.flip(x, [1]))):
        h = c = torch.zeros(x.size(0), 8)
        out = []
        for t in range(data.size(1)):
            h, c = cell(data[:, t], (h, c))
            out.append(h)
        results.append(out)
    return torch.cat([torch.stack(results[0], 1), torch.stack(results[1][::-1], 1)], dim=2)


@forms("cells_both", lambda: {"ahead": nn.LSTMCell(6, 8), "back": nn.LSTMCell(6, 8)})
def cells_both(self: Any, x: Tensor) -> Any:
    zeros = torch.zeros(x.size(0), 8)
    a, b = (zeros, zeros), (zeros, zeros)
    ahead, back = [], []
    for t in range(x.size(1)):
        a = self.ahead(x[:, t], a)
        b = self.back(x[:, -1 - t], b)
        ahead.append(a[0])
        back.append(b[0])
    return torch.stack([torch.cat(pair, 1) for pair in zip(ahead, reversed(back), strict=True)], 1)


@forms(
    "halves",
    lambda: {"lstm": nn.LSTM(6, 8, batch_first=True)},
    {**BATCH_FIRST, "inputs": lambda B, T: (torch.randn(B, 2 * T, 6),)},
)
def halves(self: Any, x: Tensor) -> Any:
    half = x.size(1) // 2
    first, state = self.lstm(x[:, :half])
    second, _ = self.lstm(x[:, half:], state)
    return first + second


@forms(
    "strided",
    lambda: {"lstm": nn.GRU(12, 8, batch_first=True)},
    {**BATCH_FIRST, "inputs": lambda B, T: (torch.randn(B, 2 * T + 1, 6),)},
)
def strided(self: Any, x: Tensor) -> Any:
    length = x.size(1) // 2 * 2
    x = x[:, :length]
    return self.lstm(torch.cat([x[:, ::2], x[:, 1::2]], dim=-1))[0]


@forms(
    "zip_enumerate",
    lambda: {"cell": nn.GRUCell(6, 8)},
    {
        **BATCH_FIRST,
        "inputs": lambda B, T: (torch.randn(T, B, 6), (torch.rand(T, B, 1) < 0.7).float()),
        "dynamic": ({0: "T", 1: "B"}, {0: "T", 1: "B"}),
    },
)
def zip_enumerate(self: Any, x: Tensor, mask: Tensor) -> Any:
    h = torch.zeros(x.size(1), 8)
    out = torch.zeros(len(x), x.size(1), 8)
    for i, (step, keep) in enumerate(zip(x, mask, strict=True)):
        h = keep * self.cell(step, h) + (1 - keep) * h
        out[i] = h
    return out, h


@forms(
    "teacher_forcing",
    lambda: {
        "encoder": nn.GRU(6, 8, batch_first=True),
        "embed": nn.Embedding(9, 6),
        "decoder": nn.GRU(6, 8, batch_first=True),
        "fc": nn.Linear(8, 9),
    },
    {
        "inputs": lambda B, T, U: (torch.randn(B, T, 6), tokens(B, U, below=9)),
        "sizes": {"B": 2, "T": 5, "U": 4},
        "other": {"B": 3, "T": 8, "U": 6},
        "dynamic": ({0: "B", 1: "T"}, {0: "B", 1: "U"}),
    },
)
def teacher_forcing(self: Any, x: Tensor, targets: Tensor) -> Any:
    _, h = self.encoder(x)
    out = []
    for t in range(targets.size(1)):
        y, h = self.decoder(F.relu(self.embed(targets[:, t : t + 1])), h)
        out.append(self.fc(y))
    return torch.cat(out, 1), h


@forms(
    "greedy",
    lambda: {"cell": nn.GRUCell(8, 8), "embed": nn.Embedding(9, 8), "fc": nn.Linear(8, 9)},
    {
        **BATCH_FIRST,
        "inputs": lambda B, T: (torch.randn(B, 8), tokens(B, T, below=9)),
        "dynamic": ({0: "B"}, {0: "B", 1: "T"}),
    },
)
def greedy(self: Any, h: Tensor, like: Tensor) -> Any:
    token = torch.zeros_like(like[:, 0])
    outputs = []
    for _ in range(like.size(1)):
        h = self.cell(self.embed(token), h)
        logits = self.fc(h)
        token = logits.argmax(-1)
        outputs.append(logits.log_softmax(-1))
    return torch.stack(outputs, 1)


@forms("running_sum", lambda: {"cell": nn.GRUCell(6, 6), "fc": nn.Linear(6, 6)})
def running_sum(self: Any, x: Tensor) -> Any:
    h, total, best = torch.zeros(x.size(0), 6), 0, None
    residual = []
    for t in range(x.size(1)):
        h = self.cell(x[:, t] + (residual[-1] if residual else 0), h)
        total = total + h
        best = h if best is None else torch.maximum(best, h)
        residual.append(self.fc(h))
    return total / x.size(1), best, residual[-1]


@forms("attend_past", lambda: {"cell": nn.GRUCell(6, 6)})
def attend_past(self: Any, x: Tensor) -> Any:
    h = torch.zeros(x.size(0), 6)
    before = torch.zeros(x.size(0), 6)
    out = []
    for t in range(x.size(1)):
        h, before = self.cell(x[:, t] + before, h), h
        out.append(h)
    return torch.stack(out, 1), before


@forms("two_outputs", lambda: {"lstm": nn.LSTM(6, 8, batch_first=True), "gate": nn.Linear(8, 1)})
def two_outputs(self: Any, x: Tensor) -> Any:
    state = None
    gates, outs = [], []
    for t in range(x.size(1)):
        y, state = self.lstm(x[:, t : t + 1], state)
        gates.append(torch.sigmoid(self.gate(y)).squeeze(-1))
        outs.append(y.squeeze(1))
    return {"y": torch.stack(outs, 1), "gate": torch.cat(gates, 1), "last": state[0]}


@forms("position", lambda: {"gru": nn.GRU(6, 6, batch_first=True), "table": torch.randn(1, 64, 6)})
def position(self: Any, x: Tensor) -> Any:
    b, t = x.shape[:2]
    places = torch.arange(t).float().view(1, -1, 1) / t
    return self.gru(x + self.table[:, :t] + places.expand(b, -1, -1))[0] * t**-0.5


@forms(
    "one_hot",
    lambda: {"gru": nn.GRU(9, 8, batch_first=True)},
    {**BATCH_FIRST, "inputs": lambda B, T: (tokens(B, T, below=9),)},
)
def one_hot(self: Any, ids: Tensor) -> Any:
    return self.gru(F.one_hot(ids, 9).float())[0]


@forms(
    "convlstm",
    lambda: {"conv": nn.Conv2d(2 + 3, 12, 3, padding=1)},
    {**BATCH_FIRST, "inputs": lambda B, T: (torch.randn(B, T, 2, 5, 4),)},
)
def convlstm(self: Any, x: Tensor) -> Any:
    b, t, _, height, width = x.shape
    h, c = torch.zeros(b, 3, height, width), torch.zeros(b, 3, height, width)
    out = []
    for step in range(t):
        i, f, o, g = torch.split(self.conv(torch.cat([x[:, step], h], dim=1)), 3, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        out.append(h)
    return torch.stack(out, dim=1), [h, c]


# ---------------------------------------------------------------- packed sequences


@forms("packed_sorted", lambda: {"lstm": nn.LSTM(6, 8, batch_first=True)}, SORTED)
def packed_sorted(self: Any, x: Tensor, lengths: Tensor) -> Any:
    packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=True)
    y, (h, c) = self.lstm(packed)
    y, lengths = pad_packed_sequence(y, batch_first=True)
    return y, h, c, lengths


@forms("packed_total", lambda: {"gru": nn.GRU(6, 8, 2, bidirectional=True, batch_first=True)}, RAGGED)
def packed_total(self: Any, x: Tensor, lengths: Tensor) -> Any:
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, h = self.gru(packed)
    y, _ = pad_packed_sequence(y, batch_first=True, total_length=x.size(1), padding_value=-1.0)
    return y, h


@forms(
    "packed_list",
    lambda: {"gru": nn.GRU(6, 8)},
    {
        **RAGGED,
        "inputs": lambda B, T: (torch.randn(T, B, 6), falling(B, T).flip(0)),
        "dynamic": ({0: "T", 1: "B"}, {0: "B"}),
    },
)
def packed_list(self: Any, x: Tensor, lengths: Tensor) -> Any:
    packed = pack_padded_sequence(x, lengths.tolist(), enforce_sorted=False)
    y, h = self.gru(packed)
    return pad_packed_sequence(y)[0], h


@forms("packed_numpy", lambda: {"rnn": nn.RNN(6, 8, batch_first=True)}, SORTED)
def packed_numpy(self: Any, x: Tensor, lengths: Tensor) -> Any:
    packed = pack_padded_sequence(x, lengths.cpu().numpy(), batch_first=True)
    return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]


@forms("packed_by_hand", lambda: {"lstm": nn.LSTM(6, 8, batch_first=True), "fc": nn.Linear(8, 3)}, RAGGED)
def packed_by_hand(self: Any, x: Tensor, lengths: Tensor) -> Any:
    lengths, order = torch.sort(lengths, descending=True)
    packed = pack_padded_sequence(x[order], lengths, batch_first=True)
    y, (h, _) = self.lstm(packed)
    y, _ = pad_packed_sequence(y, batch_first=True)
    _, back = torch.sort(order)
    return self.fc(y.index_select(0, back)), h[-1][back]


@forms(
    "packed_data",
    lambda: {"before": nn.Linear(6, 6), "gru": nn.GRU(6, 8, batch_first=True), "fc": nn.Linear(8, 3)},
    RAGGED,
)
def packed_data(self: Any, x: Tensor, lengths: Tensor) -> Any:
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    packed = PackedSequence(
        torch.tanh(self.before(packed.data)),
        packed.batch_sizes,
        packed.sorted_indices,
        packed.unsorted_indices,
    )
    y, _ = self.gru(packed)
    y = y._replace(data=F.log_softmax(self.fc(y.data), dim=-1))
    return pad_packed_sequence(y, batch_first=True)


@forms(
    "packed_state",
    lambda: {"lstm": nn.LSTM(6, 8, 2, batch_first=True), "h0": nn.Parameter(torch.randn(2, 1, 8))},
    RAGGED,
)
def packed_state(self: Any, x: Tensor, lengths: Tensor) -> Any:
    h0 = self.h0.expand(-1, x.size(0), -1).contiguous()
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    y, (h, c) = self.lstm(packed, (h0, torch.zeros_like(h0)))
    y, _ = pad_packed_sequence(y, batch_first=True)
    mask = torch.arange(y.size(1))[None, :] < lengths[:, None]
    pooled = (y * mask.unsqueeze(-1)).sum(1) / lengths.unsqueeze(1)
    peak = y.masked_fill(~mask.unsqueeze(-1), float("-inf")).max(dim=1).values
    return pooled, peak, h.transpose(0, 1).reshape(x.size(0), -1), c


@forms("last_by_length", lambda: {"lstm": nn.LSTM(6, 8, batch_first=True)}, RAGGED)
def last_by_length(self: Any, x: Tensor, lengths: Tensor) -> Any:
    y, _ = self.lstm(x)
    rows = torch.arange(x.size(0))
    return y[rows, lengths - 1], y.gather(1, (lengths - 1).view(-1, 1, 1).expand(-1, 1, y.size(2))).squeeze(1)


@forms("masked_cells", lambda: {"cell": lstm_cell()}, RAGGED)
def masked_cells(self: Any, x: Tensor, lengths: Tensor) -> Any:
    h = c = torch.zeros(x.size(0), 8)
    out = []
    for t in range(x.size(1)):
        new_h, new_c = self.cell(x[:, t], (h, c))
        keep = (t < lengths).unsqueeze(1)
        h, c = torch.where(keep, new_h, h), torch.where(keep, new_c, c)
        out.append(h * keep)
    return torch.stack(out, dim=1), h


# ---------------------------------------------------------------- attention beside recurrent layers


@forms(
    "multihead",
    lambda: {
        "gru": nn.GRU(6, 8, batch_first=True),
        "attention": nn.MultiheadAttention(8, 2, batch_first=True),
    },
    RAGGED,
)
def multihead(self: Any, x: Tensor, lengths: Tensor) -> Any:
    y, _ = self.gru(x)
    mask = torch.arange(x.size(1))[None] >= lengths[:, None]
    z, weights = self.attention(y, y, y, key_padding_mask=mask)
    return y + z, weights


@forms(
    "transformer",
    lambda: {
        "gru": nn.GRU(6, 8, batch_first=True),
        "encoder": nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
    },
)
def transformer(self: Any, x: Tensor) -> Any:
    return self.encoder(self.gru(x)[0])


@forms(
    "causal",
    lambda: {
        "gru": nn.GRU(6, 8, batch_first=True),
        "attention": nn.MultiheadAttention(8, 2, batch_first=True),
    },
)
def causal(self: Any, x: Tensor) -> Any:
    y, _ = self.gru(x)
    mask = torch.triu(torch.ones(x.size(1), x.size(1), dtype=torch.bool), diagonal=1)
    return self.attention(y, y, y, attn_mask=mask, need_weights=False)[0]


# ---------------------------------------------------------------- layers, arguments and results


@forms(
    "weight_norm",
    lambda: {"conv": weight_norm(nn.Conv1d(6, 6, 3, padding=1)), "gru": nn.GRU(6, 8, batch_first=True)},
)
def normed(self: Any, x: Tensor) -> Any:
    return self.gru(self.conv(x.transpose(1, 2)).transpose(1, 2))[0]


@forms("projected", lambda: {"lstm": nn.LSTM(6, 8, proj_size=4, batch_first=True, bidirectional=True)})
def projected(self: Any, x: Tensor) -> Any:
    return self.lstm(x)


class Pair(NamedTuple):
    y: Tensor
    state: Any


@dataclass
class Result:
    logits: Tensor
    hidden: Tensor
    note: str = "plain"


@forms("named_tuple", lambda: {"gru": nn.GRU(6, 8, batch_first=True)})
def named_tuple(self: Any, x: Tensor) -> Any:
    return Pair(*self.gru(x))


@forms("data_class", lambda: {"gru": nn.GRU(6, 8, batch_first=True)})
def data_class(self: Any, x: Tensor) -> Any:
    return Result(*self.gru(x))


@forms(
    "keywords",
    lambda: {"gru": nn.GRU(6, 8, batch_first=True)},
    {**BATCH_FIRST, "keywords": {"h": None, "scale": 2, "reverse": True}},
)
def keywords(self: Any, x: Tensor, h: Tensor | None = None, *, scale: int = 1, reverse: bool = False) -> Any:
    if reverse:
        x = x.flip(1)
    return self.gru(x * scale, h)[0]


@forms(
    "doubles",
    lambda: {"gru": nn.GRU(6, 8, batch_first=True).double()},
    {**BATCH_FIRST, "inputs": lambda B, T: (torch.randn(B, T, 6, dtype=torch.float64),)},
)
def doubles(self: Any, x: Tensor) -> Any:
    y, _ = self.gru(x)
    return F.normalize(y, dim=-1), y.std(1)


@forms("one_row", lambda: {"gru": nn.GRU(6, 8, batch_first=True)}, {**BATCH_FIRST, "sizes": {"B": 1, "T": 5}})
def one_row(self: Any, x: Tensor) -> Any:
    y, h = self.gru(x)
    return torch.cat([y, h.transpose(0, 1).expand_as(y)], dim=2)


# ---------------------------------------------------------------- states of modules


@forms(
    "counting",
    lambda: {"gru": nn.GRU(6, 8, batch_first=True), "h": torch.zeros(1, 2, 8), "seen": torch.zeros(1)},
    {**BATCH_FIRST, "other": {"B": 2, "T": 8}, "dynamic": ({1: "T"},)},
)
def counting(self: Any, x: Tensor) -> Any:
    y, h = self.gru(x, self.h)
    self.h.copy_(h.detach())
    self.seen.add_(x.size(1))
    return y / self.seen


# ---------------------------------------------------------------- what no program can do

REFUSED = "export the step"


@forms("stop", lambda: {"cell": nn.GRUCell(6, 6)}, {**BATCH_FIRST, "refused": REFUSED})
def stop(self: Any, x: Tensor) -> Any:
    h = x[:, 0]
    for _ in range(10):
        h = self.cell(h, h)
        if h.abs().max() < 0.3:
            break
    return h


@forms("stop_item", lambda: {"cell": nn.GRUCell(6, 6)}, {**BATCH_FIRST, "refused": REFUSED})
def stop_item(self: Any, x: Tensor) -> Any:
    h = self.cell(x[:, 0])
    return h if h.sum().item() > 0 else -h


@forms("stop_list", lambda: {"gru": nn.GRU(6, 8, batch_first=True)}, {**RAGGED, "refused": REFUSED})
def stop_list(self: Any, x: Tensor, lengths: Tensor) -> Any:
    y, _ = self.gru(x)
    return torch.stack([y[i, n - 1] for i, n in enumerate(lengths.tolist())])


@forms("stop_numpy", lambda: {"gru": nn.GRU(6, 8, batch_first=True)}, {**BATCH_FIRST, "refused": REFUSED})
def stop_numpy(self: Any, x: Tensor) -> Any:
    y, _ = self.gru(x)
    return y * float(y.detach().numpy().mean())


@forms("sampling", lambda: {"cell": nn.GRUCell(6, 6)}, {**BATCH_FIRST, "refused": "random"})
def sampling(self: Any, x: Tensor) -> Any:
    h = self.cell(x[:, 0])
    return torch.multinomial(h.softmax(-1), 1)
