"""Torch modules over whole sequences that can run step by step. Needs torch."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class Case(NamedTuple):
    """A module to stream.

    Attributes
    ----------
    make : callable
    inputs : callable of B and T
    dynamic : tuple
        As in `fastrnn.export`.
    axis : int
        The axis of the first input that is time.
    lag : int
    """

    make: Callable
    inputs: Callable
    dynamic: tuple
    axis: int
    lag: int


CASES: dict[str, Case] = {}
BATCH_FIRST = ({0: "B", 1: "T"},)


def case(*sizes, lag=0, dynamic=None):
    """Add a module whose input has this shape; B and T stand for themselves."""

    def add(cls):
        def inputs(B, T):
            return (torch.randn(*({"B": B, "T": T}.get(size, size) for size in sizes)),)

        axis = sizes.index("T")
        forms = dynamic or ({sizes.index("B"): "B", axis: "T"},)
        CASES[cls.__name__] = Case(cls, inputs, forms, axis, lag)
        return cls

    return add


@case("B", 4, "T")
class CausalConvolutions(nn.Module):
    """Dilated convolutions with residuals, padded before the first step."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(4, 4, 3, dilation=d) for d in (1, 2, 4))
        self.out = nn.Conv1d(4, 3, 1)

    def forward(self, x):
        for conv in self.convs:
            x = x + torch.relu(conv(F.pad(x, (2 * conv.dilation[0], 0))))
        return self.out(x)


@case("B", 4, "T")
class Chomped(nn.Module):
    """Convolutions padded on both sides, whose last results are taken away."""

    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(4, 4, 3, dilation=d, padding=2 * d) for d in (1, 2))

    def forward(self, x):
        for conv in self.convs:
            x = x + F.gelu(conv(x)[:, :, : -conv.padding[0]])
        return x


@case("B", 8, "T")
class Gated(nn.Module):
    """Gated convolutions with skip connections."""

    def __init__(self):
        super().__init__()
        self.gates = nn.ModuleList(nn.Conv1d(8, 16, 2, dilation=2**i) for i in range(4))
        self.residuals = nn.ModuleList(nn.Conv1d(8, 8, 1) for _ in range(4))
        self.out = nn.Conv1d(8, 4, 1)

    def forward(self, x):
        skip = 0
        for gate, residual in zip(self.gates, self.residuals, strict=True):
            a, b = gate(F.pad(x, (gate.dilation[0], 0))).chunk(2, 1)
            y = torch.tanh(a) * torch.sigmoid(b)
            skip = skip + y
            x = x + residual(y)
        return self.out(torch.relu(skip))


@case("B", "T", 6)
class FrontEnd(nn.Module):
    """A causal convolution, two GRUs, a projection."""

    def __init__(self):
        super().__init__()
        self.conv, self.rnn = nn.Conv1d(6, 8, 4), nn.GRU(8, 8, 2, batch_first=True)
        self.out = nn.Linear(8, 3)

    def forward(self, x):
        y = torch.relu(self.conv(F.pad(x.transpose(1, 2), (3, 0)))).transpose(1, 2)
        return torch.softmax(self.out(self.rnn(y)[0]), -1)


@case("B", "T", 6)
class Depthwise(nn.Module):
    """A causal depthwise convolution, an LSTM with its last state, a projection."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(6, 6, 5, groups=6, padding=4), nn.LayerNorm(6)
        self.rnn, self.out = nn.LSTM(6, 7, batch_first=True), nn.Linear(7, 3)

    def forward(self, x):
        y = self.conv(x.transpose(1, 2))[..., :-4].transpose(1, 2)
        y, state = self.rnn(self.norm(y))
        return self.out(y), state


@case("B", "T", 6)
class DelayLine(nn.Module):
    """Earlier steps beside the present one, from pads, slices and zeros before them."""

    def forward(self, x):
        three = torch.cat([torch.zeros(x.shape[0], 3, 6), x[:, :-3]], 1)
        two = F.pad(x, (0, 0, 2, 0))[:, :-2]
        return torch.tanh(x - 0.5 * three) * two


@case("B", "T", 6)
class Emphasis(nn.Module):
    """Differences to the step before; the first steps are as they are."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(6, 8, batch_first=True)

    def forward(self, x):
        x = torch.cat([x[:, :1], x[:, 1:] - 0.97 * x[:, :-1]], 1)
        return self.rnn(torch.cat([x[:, :3], x[:, 3:] * x[:, :-3]], 1))[0]


@case("B", "T", 6)
class StepBefore(nn.Module):
    """The step before, with zeros in the shape of the first step before it."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(12, 8, batch_first=True)

    def forward(self, x):
        before = torch.cat([torch.zeros_like(x[:, :1]), x[:, :-1]], 1)
        return self.rnn(torch.cat([x, before], -1))[0]


@case("B", "T", 6)
class SimpleUnit(nn.Module):
    """A simple recurrent unit as a loop, whose state has the shape of the first step."""

    def __init__(self):
        super().__init__()
        self.linear, self.bias = nn.Linear(6, 24, bias=False), nn.Parameter(torch.randn(2, 6))

    def forward(self, x):
        z, f, r, skip = self.linear(x.transpose(0, 1)).unflatten(-1, (4, 6)).unbind(2)
        f, r = torch.sigmoid(f + self.bias[0]), torch.sigmoid(r + self.bias[1])
        c, outputs = torch.zeros_like(z[0]), []
        for t in range(x.size(1)):
            c = f[t] * c + (1 - f[t]) * z[t]
            outputs.append(r[t] * torch.tanh(c) + (1 - r[t]) * skip[t])
        return torch.stack(outputs, 1)


@case("B", 33, "T")
class Masking(nn.Module):
    """A mask for spectra, from GRUs over time."""

    def __init__(self):
        super().__init__()
        self.norm, self.rnn = nn.BatchNorm1d(33), nn.GRU(33, 16, 2, batch_first=True)
        self.out = nn.Linear(16, 33)

    def forward(self, x):
        y = self.norm(torch.log1p(x.abs())).transpose(1, 2)
        return torch.sigmoid(self.out(self.rnn(y)[0])).transpose(1, 2) * x


@case("B", 4, "T", lag=3)
class LooksAhead(nn.Module):
    """Convolutions centred on their step, a skip around them, a GRU after them."""

    def __init__(self):
        super().__init__()
        self.near, self.wide = nn.Conv1d(4, 6, 3, padding=1), nn.Conv1d(6, 4, 5, padding=2)
        self.rnn = nn.GRU(4, 5, batch_first=True)

    def forward(self, x):
        y = self.wide(torch.relu(self.near(x))) + x
        return self.rnn(y.transpose(1, 2))[0].transpose(1, 2) + y[:, :1]


@case("B", 1, "T")
class Strided(nn.Module):
    """A learned analysis and synthesis with an LSTM between them."""

    def __init__(self):
        super().__init__()
        self.into, self.rnn = nn.Conv1d(1, 8, 6, stride=4), nn.LSTM(8, 8, batch_first=True)
        self.back = nn.ConvTranspose1d(8, 1, 4, stride=4)

    def forward(self, x):
        y = self.into(F.pad(x, (2, 0))).transpose(1, 2)
        return self.back(self.rnn(y)[0].transpose(1, 2))


@case("B", 1, "T", lag=7)
class UNet(nn.Module):
    """Convolutions down and transposed ones up, with skips between them."""

    def __init__(self):
        super().__init__()
        self.down1, self.down2 = (nn.Conv1d(i, o, 4, stride=2, padding=1) for i, o in ((1, 4), (4, 8)))
        self.up1, self.up2 = (nn.ConvTranspose1d(i, o, 4, stride=2, padding=1) for i, o in ((8, 4), (4, 1)))

    def forward(self, x):
        a = torch.relu(self.down1(x))
        b = torch.relu(self.down2(a))
        return self.up2(torch.relu(self.up1(b)) + a) + x


@case("B", "T", 5)
class Stacked(nn.Module):
    """Three frames become one step of an LSTM, and three again."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(15, 8, batch_first=True), nn.Linear(8, 15)

    def forward(self, x):
        B, T, _ = x.shape
        return self.out(self.rnn(x.reshape(B, T // 3, 15))[0]).reshape(B, -1, 5)


@case("B", "T", 5)
class Context(nn.Module):
    """Each frame with the four before it, as one vector."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(25, 8)

    def forward(self, x):
        y = F.pad(x, (0, 0, 4, 0)).unfold(1, 5, 1)
        return torch.relu(self.out(y.reshape(y.shape[0], y.shape[1], -1)))


@case("B", "T", 5)
class Looped(nn.Module):
    """A cell in a Python loop, with its last state."""

    def __init__(self):
        super().__init__()
        self.cell, self.out = nn.GRUCell(5, 6), nn.Linear(6, 2)

    def forward(self, x):
        h, outputs = x.new_zeros(x.shape[0], 6), []
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
            outputs.append(self.out(h))
        return torch.stack(outputs, 1), h


@case("B", 3, "T", lag=1)
class Pools(nn.Module):
    """Pools that look back, to both sides, and over windows apart: results of three lengths."""

    def forward(self, x):
        back, both = F.max_pool1d(F.pad(x, (2, 0)), 3, 1), F.avg_pool1d(x, 3, 1, padding=1)
        return back + both, F.max_pool1d(x, 2), F.avg_pool1d(x, 4, 2)


@case("B", 2, "T", 8)
class Planes(nn.Module):
    """Convolutions over time and frequency, down and up again."""

    def __init__(self):
        super().__init__()
        self.both = nn.Conv2d(2, 4, (3, 3), padding=(0, 1))
        self.down = nn.Conv2d(4, 4, (1, 4), stride=(1, 2), padding=(0, 1))
        self.up = nn.ConvTranspose2d(4, 2, (2, 4), stride=(1, 2), padding=(0, 1))

    def forward(self, x):
        y = F.elu(self.both(F.pad(x, (0, 0, 2, 0))))
        return self.up(F.elu(self.down(y)))[:, :, :-1]


@case("B", 3, "T")
class Upsampled(nn.Module):
    """Each step twice, and a convolution over these."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 3, 3)

    def forward(self, x):
        return self.conv(F.pad(F.interpolate(x, scale_factor=2.0), (2, 0)))


@case("B", "T", 6)
class Summary(nn.Module):
    """The last step and the last state: what is known so far."""

    def __init__(self):
        super().__init__()
        self.rnn, self.out = nn.LSTM(6, 7, batch_first=True), nn.Linear(7, 3)

    def forward(self, x):
        y, (h, _) = self.rnn(x)
        return self.out(y[:, -1]), torch.relu(self.out(h[-1]))


@case("B", "T", 6)
class DualPath(nn.Module):
    """A GRU both ways over the bands of each frame, and an LSTM over the frames of each band."""

    def __init__(self):
        super().__init__()
        self.across = nn.GRU(2, 3, bidirectional=True, batch_first=True)
        self.along = nn.LSTM(6, 6, batch_first=True)

    def forward(self, x):
        B, T, _ = x.shape
        y = self.across(x.reshape(B * T, 3, 2))[0].reshape(B, T, 3, 6).transpose(1, 2)
        y = self.along(y.reshape(B * 3, T, 6))[0].reshape(B, 3, T, 6)
        return y.permute(0, 2, 1, 3).reshape(B, T, -1)


@case("B", 2, "T", lag=3)
class Shifted(nn.Module):
    """Differences of steps, windows without padding, and padding after the last step."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3)

    def forward(self, x):
        return self.conv(x) + x[:, :, 2:], x[:, :, 1:] - x[:, :, :-1], F.pad(x, (0, 3))


class TimeConvolution(nn.Module):
    """Half of the channels through a dilated depthwise convolution over time, forward or transposed."""

    def __init__(self, dilation, back):
        super().__init__()
        conv = nn.ConvTranspose2d if back else nn.Conv2d
        self.space = 2 * dilation
        padding = (self.space, 1) if back else (0, 1)
        self.into, self.norm = conv(12, 8, 1), nn.BatchNorm2d(8)
        self.depth = conv(8, 8, (3, 3), padding=padding, dilation=(dilation, 1), groups=8)
        self.out, self.slope = conv(8, 4, 1), nn.PReLU()
        self.gru, self.gate = nn.GRU(4, 8, batch_first=True), nn.Linear(8, 4)

    def forward(self, x):
        a, b = x.chunk(2, 1)
        near = F.unfold(a, (1, 3), padding=(0, 1)).reshape(a.shape[0], 12, a.shape[2], a.shape[3])
        a = self.slope(self.norm(self.into(near)))
        a = self.out(self.depth(F.pad(a, (0, 0, self.space, 0))))
        gate = self.gate(self.gru(a.pow(2).mean(-1).transpose(1, 2))[0]).transpose(1, 2)
        both = torch.stack([a * torch.sigmoid(gate)[..., None], b], 1).transpose(1, 2)
        return both.reshape(both.shape[0], -1, both.shape[3], both.shape[4])


@case("B", 9, "T", 2)
class Enhancer(nn.Module):
    """Speech enhancement with the parts of GTCRN: a complex mask from spectra."""

    def __init__(self):
        super().__init__()
        self.into = nn.Conv2d(2, 8, (1, 3), padding=(0, 1))
        self.parts = nn.ModuleList(
            TimeConvolution(d, back) for d, back in ((1, False), (2, False), (2, True))
        )
        self.across = nn.GRU(8, 4, bidirectional=True, batch_first=True)
        self.along, self.norm = nn.GRU(8, 8, batch_first=True), nn.LayerNorm((9, 8))
        self.back = nn.ConvTranspose2d(8, 2, (1, 3), padding=(0, 1))

    def forward(self, spectrum):
        B, bins, T, _ = spectrum.shape
        x = self.into(spectrum.permute(0, 3, 2, 1))
        first = x
        for part in self.parts[:2]:
            x = part(x)
        y = x.permute(0, 2, 3, 1)
        y = y + self.across(y.reshape(B * T, bins, 8))[0].reshape(B, T, bins, 8)
        z = y.permute(0, 2, 1, 3).reshape(B * bins, T, 8)
        h = torch.zeros(1, z.shape[0], 8)
        z = self.along(z, h)[0].reshape(B, bins, T, 8).permute(0, 2, 1, 3)
        x = self.parts[2]((y + self.norm(z)).permute(0, 3, 1, 2) + first)
        mask = torch.tanh(self.back(x)).permute(0, 3, 2, 1)
        real = spectrum[..., 0] * mask[..., 0] - spectrum[..., 1] * mask[..., 1]
        return torch.stack([real, spectrum[..., 1] * mask[..., 0] + spectrum[..., 0] * mask[..., 1]], -1)
