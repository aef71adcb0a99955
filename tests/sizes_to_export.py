"""Modules that do something at some sizes alone, and modules whose axes are hard to find. Needs torch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from export_case import Case, collector
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

CASES: dict[str, Case] = {}
case = collector(CASES)

SIZES: dict[str, Any] = {
    "inputs": lambda B, T: (torch.randn(B, T, 6),),
    "sizes": {"B": 2, "T": 7},
    "other": {"B": 3, "T": 12},
    "dynamic": ({0: "B", 1: "T"},),
}


class Recurrent(nn.Module):
    def __init__(self, inputs: int = 6) -> None:
        super().__init__()
        self.rnn = nn.GRU(inputs, 8, batch_first=True)


@case("pyramid", **SIZES)
class Pyramid(nn.Module):
    """A listener: two steps become one, and an odd last step gets a partner."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.LSTM(size, 8, batch_first=True, bidirectional=True) for size in (12, 32, 32)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            if x.size(1) % 2:
                x = F.pad(x, (0, 0, 0, 1))
            x, _ = layer(x.contiguous().view(x.size(0), x.size(1) // 2, 2 * x.size(2)))
        return x


@case("pyramid_drops", **SIZES)
class PyramidDrops(Recurrent):
    """An odd last step is dropped."""

    def __init__(self) -> None:
        super().__init__(12)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.size(1)
        if steps % 2:
            x = x[:, :-1]
            steps -= 1
        return self.rnn(x.reshape(x.size(0), steps // 2, -1))[0]


@case("filled_up", **SIZES)
class FilledUp(Recurrent):
    """Zeros up to a multiple of 4, whose steps become rows. The input itself is used again."""

    def forward(self, x: Tensor) -> Tensor:
        rows, steps, size = x.shape
        y = x
        if steps % 4 != 0:
            y = torch.cat([x, x.new_zeros(rows, 4 - steps % 4, size)], dim=1)
        y = y.view(rows, -1, 4, size).transpose(1, 2).reshape(rows * 4, -1, size)
        y = self.rnn(y)[0].view(rows, 4, -1, 8).transpose(1, 2).reshape(rows, -1, 8)
        return y[:, :steps] + x.sum(-1, keepdim=True)


@case("pad_both_ends", **SIZES)
class PadBothEnds(Recurrent):
    """Padding of a strided convolution as TensorFlow does it, half of it at each end."""

    def __init__(self) -> None:
        super().__init__(8)
        self.conv = nn.Conv1d(6, 8, 5, stride=3)

    def forward(self, x: Tensor) -> Tensor:
        steps = x.size(1)
        missing = max((-(-steps // 3) - 1) * 3 + 5 - steps, 0)
        x = F.pad(x.transpose(1, 2), (missing // 2, missing - missing // 2))
        return self.rnn(self.conv(x).transpose(1, 2))[0]


@case("frames", **SIZES)
class Frames(Recurrent):
    """Whole frames, with as many zeros at the end as they need."""

    def __init__(self) -> None:
        super().__init__(8)
        self.fc = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        end = 4 + -x.size(-1) % 4
        x = F.pad(x, (4, end))
        y = self.fc(self.rnn(x.unfold(-1, 8, 4))[0])
        return F.fold(y.transpose(1, 2), (1, x.size(-1)), (1, 8), stride=(1, 4))[:, 0, 0, 4:-end]


@case("pad_before_loop", **SIZES)
class PadBeforeLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(12, 8)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] % 2:
            x = F.pad(x, (0, 0, 0, 1))
        h, outputs = x.new_zeros(x.size(0), 8), []
        for t in range(0, x.size(1), 2):
            h = self.cell(x[:, t : t + 2].flatten(1), h)
            outputs.append(h)
        return torch.stack(outputs, 1)


@case(
    "spectrum", **{**SIZES, "inputs": lambda B, T: (torch.randn(B, 16 * T),), "dynamic": ({0: "B", 1: "N"},)}
)
class Spectrum(nn.Module):
    """A mask of a spectrum, and the signal back with a window that is a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.GRU(17, 12, batch_first=True), nn.Linear(12, 17)
        self.register_buffer("window", torch.hann_window(32))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.stft(x, 32, 16, 32, self.window, return_complex=True)
        size = spectrum.abs().clamp(min=1e-7)
        mask = torch.sigmoid(self.fc(self.rnn(torch.log1p(size).transpose(1, 2))[0])).transpose(1, 2)
        made = torch.polar(size * mask, spectrum.angle())
        return torch.istft(made, 32, 16, 32, self.window, length=x.shape[-1])


@case("made_of_others", **SIZES)
class MadeOfOthers(Recurrent):
    """Operators that torch makes of others, which are known."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y, _ = self.rnn(torch.diff(x, dim=1, prepend=x[:, :1]))
        return torch.tensordot(y, y[0, 0], dims=([2], [0])), torch.fliplr(y), torch.trapezoid(y, dim=1)


@case(
    "lengths_of_mask",
    inputs=lambda B, T: (
        torch.randn(B, T, 6),
        torch.stack([torch.arange(T) < max(1, T - 2 * i) for i in range(B)]),
    ),
    sizes={"B": 2, "T": 7},
    other={"B": 3, "T": 12},
    dynamic=({0: "B", 1: "T"}, {0: "B", 1: "T"}),
)
class LengthsOfMask(Recurrent):
    """The data may have more steps than the mask, and not the reverse: they are one size."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        ordered, order = mask.long().sum(-1).sort(0, descending=True)
        packed = pack_padded_sequence(x.index_select(0, order), ordered.tolist(), batch_first=True)
        y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        return y.index_select(0, order.argsort())


@case(
    "teacher_loop",
    inputs=lambda B, T: (torch.randn(B, T, 6), torch.randint(0, 9, (B, T))),
    sizes={"B": 2, "T": 7},
    other={"B": 3, "T": 12},
    dynamic=({0: "B", 1: "T"}, {0: "B", 1: "T"}),
)
class TeacherLoop(nn.Module):
    """As many steps as targets, of data that may have more."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.cell, self.out = nn.Embedding(9, 4), nn.GRUCell(10, 8), nn.Linear(8, 9)

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        h, token, outputs = x.new_zeros(x.size(0), 8), torch.zeros(x.size(0), dtype=torch.long), []
        for t in range(targets.size(1)):
            h = self.cell(torch.cat([x[:, t], self.embedding(token)], -1), h)
            outputs.append(self.out(h))
            token = targets[:, t]
        return torch.stack(outputs, 1)


@case(
    "packed_whole",
    inputs=lambda B, T: (torch.randn(B, T, 6), torch.tensor([max(1, T - 3 * i) for i in range(B)]).flip(0)),
    sizes={"B": 2, "T": 7},
    other={"B": 3, "T": 12},
    dynamic=({0: "B", 1: "T"}, {0: "B"}),
)
class PackedWhole(nn.Module):
    """torch takes features of another size if all rows are full: that is no axis that may change."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(6, 8, 2, batch_first=True, bidirectional=True), nn.Linear(16, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.size(1))
        return self.out(y)


@case("grown_table", **SIZES)
class GrownTable(Recurrent):
    """Positions in a table that grows when it is too short."""

    def __init__(self) -> None:
        super().__init__()
        self.table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.table is None or self.table.size(0) < x.size(1):
            self.table = torch.sin(torch.arange(x.size(1)).float()[:, None] / torch.arange(1, 7)[None])
        return self.rnn(x + self.table[: x.size(1)])[0]


@case("masks_by_length", **SIZES)
class MasksByLength(Recurrent):
    """Masks in a dict, one for each length."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        steps = x.size(1)
        if steps not in self.masks:
            self.masks[steps] = torch.triu(torch.full((steps, steps), float("-inf")), 1)
        y, _ = self.rnn(x)
        return torch.softmax(y @ y.transpose(1, 2) + self.masks[steps], -1) @ y


@case("last_length", **SIZES)
class LastLength(Recurrent):
    """A table for the length of the last call, which is kept beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.steps, self.cosines = 0, None

    def forward(self, x: Tensor) -> Tensor:
        if self.steps != x.size(1):
            self.steps = x.size(1)
            self.cosines = torch.cos(torch.arange(self.steps).float() / 3)[:, None]
        return self.rnn(x)[0] * self.cosines


@case("in_chunks", **{**SIZES, "other": {"B": 3, "T": 3}})
class InChunks(nn.Module):
    """Four steps at a time, and the rest. At other sizes there is only the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(6, 8, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        state, outputs = None, []
        for part in x.split(4, dim=1):
            y, state = self.rnn(part, state)
            outputs.append(y)
        return torch.cat(outputs, 1)


@case("written_and_read", **SIZES)
class WrittenAndRead(Recurrent):
    """A smoother that reads the step before from what it writes, and the input at first."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.exp()
        smooth = torch.zeros_like(x)
        for t in range(x.size(1)):
            smooth[:, t] = 0.9 * (smooth[:, t - 1] if t > 0 else x[:, 0]) + 0.1 * x[:, t]
        return self.rnn((x / (smooth + 1e-3)).sqrt())[0]


@case("least_length", **{**SIZES, "other": {"B": 3, "T": 25}})
class LeastLength(Recurrent):
    """Zeros up to 20 steps: longer sequences than all that the export would try have none."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(1) < 20:
            x = F.pad(x, (0, 0, 0, 20 - x.size(1)))
        return self.rnn(x)[0]


@case("exact_length", **{**SIZES, "other": {"B": 3, "T": 25}})
class ExactLength(Recurrent):
    """Zeros up to 20 steps, or the first 20."""

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(F.pad(x, (0, 0, 0, 20 - x.size(1))))[0]


@case("first_steps", **SIZES)
class FirstSteps(Recurrent):
    """At most 9 steps."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(1) > 9:
            x = x[:, :9]
        return self.rnn(x)[0]


@case("last_steps", **{**SIZES, "other": {"B": 3, "T": 25}})
class LastSteps(Recurrent):
    """The last 9 steps, if there are more."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(1) > 9:
            x = x[:, -9:]
        return self.rnn(x)[0]


@case("lengthened", **{**SIZES, "sizes": {"B": 2, "T": 4}})
class Lengthened(Recurrent):
    """Zeros up to 9 steps, which some of the sizes that the export tries have already."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(1) < 9:
            x = F.pad(x, (0, 0, 0, 9 - x.size(1)))
        return self.rnn(x)[0]
