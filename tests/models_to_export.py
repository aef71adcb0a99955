"""Small versions of well-known recurrent models, of torch layers with random weights.

Each computes what the public model in its docstring computes, at toy sizes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from export_case import Case, collector, falling, tokens
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

CASES: dict[str, Case] = {}
case = collector(CASES)


class SincFilters(nn.Module):
    """Band-pass filters from two parameters each."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__()
        self.low = nn.Parameter(torch.linspace(30, 3000, count).unsqueeze(1))
        self.band = nn.Parameter(torch.full((count, 1), 120.0))
        half = size // 2
        self.register_buffer("window", 0.54 - 0.46 * torch.cos(2 * math.pi * torch.arange(half) / size))
        self.register_buffer("n", 2 * math.pi * torch.arange(-half, 0).view(1, -1) / 16000)

    def forward(self, x: Tensor) -> Tensor:
        low = 50 + torch.abs(self.low)
        high = torch.clamp(low + 50 + torch.abs(self.band), 50, 8000)
        band = (high - low)[:, 0]
        side = (torch.sin(high @ self.n) - torch.sin(low @ self.n)) / (self.n / 2) * self.window
        filters = torch.cat([side, 2 * band.view(-1, 1), torch.flip(side, dims=[1])], dim=1)
        return F.conv1d(x, (filters / (2 * band[:, None])).view(-1, 1, side.shape[1] * 2 + 1), stride=5)


@case(
    "pyannote",
    inputs=lambda B, T: (torch.randn(B, 1, T) * 0.1,),
    sizes={"B": 2, "T": 900},
    other={"B": 3, "T": 1205},
    dynamic=({0: "B", 2: "T"},),
)
class PyanNet(nn.Module):
    """pyannote-audio: PyanNet."""

    def __init__(self) -> None:
        super().__init__()
        self.wave_norm = nn.InstanceNorm1d(1, affine=True)
        self.convs = nn.ModuleList([SincFilters(8, 51), nn.Conv1d(8, 6, 5), nn.Conv1d(6, 6, 5)])
        self.pools = nn.ModuleList(nn.MaxPool1d(3, stride=3) for _ in range(3))
        self.norms = nn.ModuleList(nn.InstanceNorm1d(size, affine=True) for size in (8, 6, 6))
        self.lstm = nn.LSTM(6, 10, 2, bidirectional=True, batch_first=True)
        self.linears, self.classifier = (
            nn.ModuleList([nn.Linear(20, 12), nn.Linear(12, 12)]),
            nn.Linear(12, 7),
        )

    def forward(self, waveforms: Tensor) -> Tensor:
        x = self.wave_norm(waveforms)
        for index, (conv, pool, norm) in enumerate(zip(self.convs, self.pools, self.norms, strict=True)):
            x = conv(x)
            if index == 0:
                x = torch.abs(x)
            x = F.leaky_relu(norm(pool(x)))
        x, _ = self.lstm(x.permute(0, 2, 1))
        for linear in self.linears:
            x = F.leaky_relu(linear(x))
        return F.log_softmax(self.classifier(x), dim=-1)


@case(
    "deepfilternet",
    inputs=lambda B, T: (torch.randn(B, 1, T, 20, 2), torch.randn(B, 1, T, 16), torch.randn(B, 2, T, 12)),
    sizes={"B": 1, "T": 6},
    other={"B": 3, "T": 10},
    dynamic=({0: "B", 2: "T"}, {0: "B", 2: "T"}, {0: "B", 2: "T"}),
)
class DeepFilterNet(nn.Module):
    """Rikorose/DeepFilterNet: DeepFilterNet3, with one convolution a stage."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ConstantPad2d((0, 0, 2, 0), 0.0)
        self.erb_conv = nn.Sequential(nn.Conv2d(1, 4, 3, padding=(0, 1)), nn.BatchNorm2d(4), nn.ReLU())
        self.erb_down = nn.Sequential(
            nn.Conv2d(4, 4, (1, 3), stride=(1, 2), padding=(0, 1), groups=4, bias=False),
            nn.Conv2d(4, 4, 1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
        )
        self.df_conv = nn.Sequential(nn.Conv2d(2, 4, (3, 3), padding=(0, 1)), nn.BatchNorm2d(4), nn.ReLU())
        self.groups = nn.Parameter(torch.randn(4, 12, 8) * 0.2)
        self.gru, self.df_gru = nn.GRU(32, 32, batch_first=True), nn.GRU(32, 24, 2, batch_first=True)
        self.erb_fc, self.mask = nn.Linear(32, 32), nn.Conv2d(4, 1, (1, 3), padding=(0, 1))
        self.erb_up = nn.ConvTranspose2d(4, 4, (1, 3), (1, 2), (0, 1), output_padding=(0, 1), groups=4)
        self.df_out, self.df_skip = nn.Linear(24, 12 // 2 * 2 * 3), nn.Linear(32, 24)
        self.lsnr = nn.Sequential(nn.Linear(32, 1), nn.Sigmoid())
        self.register_buffer("erb_inverse", torch.rand(16, 20))

    def forward(self, spec: Tensor, erb: Tensor, df: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        b, _, t, _ = erb.shape
        e0 = self.erb_conv(self.pad(erb))
        e1 = self.erb_down(e0)
        c0 = self.df_conv(self.pad(df)).permute(0, 2, 3, 1).flatten(2).unflatten(-1, (4, 12))
        x = torch.einsum("btgi,gih->btgh", c0, self.groups).flatten(2)
        x = x + self.erb_fc(e1.permute(0, 2, 3, 1).flatten(2))
        x, _ = self.gru(x)
        up = e1 * torch.sigmoid(x.view(b, t, 8, -1).permute(0, 3, 1, 2))
        mask = torch.sigmoid(self.mask(self.erb_up(up) + e0))
        gains = mask.matmul(self.erb_inverse)
        y, _ = self.df_gru(x)
        coefs = torch.tanh(self.df_out(y + self.df_skip(x))).view(b, t, 6, 3, 2)
        masked = torch.view_as_complex(spec * gains.unsqueeze(-1))
        low = F.pad(masked.squeeze(1)[..., :6], (0, 0, 2, 0)).unfold(1, 3, 1)
        filtered = torch.einsum("btfn,btfn->btf", low, torch.view_as_complex(coefs.contiguous()))
        out = torch.view_as_real(masked)
        out = out.clone()
        out[..., :6, :] = torch.view_as_real(filtered).unsqueeze(1)
        return out, mask, self.lsnr(x)


class Separation(nn.Module):
    """A mask from LSTMs."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.rnn1, self.rnn2 = nn.LSTM(inputs, 16, batch_first=True), nn.LSTM(16, 16, batch_first=True)
        self.dense = nn.Linear(16, inputs)

    def forward(self, x: Tensor, states: Any = (None, None)) -> Any:
        y, first = self.rnn1(x, states[0])
        y, second = self.rnn2(y, states[1])
        return torch.sigmoid(self.dense(y)), (first, second)


class InstantNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.gamma, self.beta = (
            nn.Parameter(torch.rand(1, 1, size) + 0.5),
            nn.Parameter(torch.zeros(1, 1, size)),
        )

    def forward(self, x: Tensor) -> Tensor:
        mean = torch.mean(x, dim=-1, keepdim=True)
        variance = torch.mean(torch.square(x - mean), dim=-1, keepdim=True)
        return (x - mean) / torch.sqrt(variance + 1e-7) * self.gamma + self.beta


class DtlnParts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.sep1, self.sep2 = Separation(33), Separation(24)
        self.encode, self.decode = nn.Conv1d(64, 24, 1, bias=False), nn.Conv1d(24, 64, 1, bias=False)
        self.norm = InstantNorm(24)


@case(
    "dtln",
    inputs=lambda B, N: (torch.randn(B, N) * 0.1,),
    sizes={"B": 2, "N": 256},
    other={"B": 3, "N": 400},
    dynamic=({0: "B", 1: "N"},),
)
class Dtln(DtlnParts):
    """breizhn/DTLN in its torch form: a whole signal."""

    def forward(self, x: Tensor) -> Tensor:
        batch, n = x.shape
        z = torch.stft(x, 64, 16, win_length=64, center=False, return_complex=True)
        magnitude, phase = torch.abs(z), torch.atan2(z.imag, z.real)
        mask, _ = self.sep1(magnitude.permute(0, 2, 1))
        estimate = magnitude * mask.permute(0, 2, 1)
        frames = torch.fft.irfft(estimate * torch.exp(1j * phase), dim=1)
        encoded = self.encode(frames).permute(0, 2, 1)
        mask, _ = self.sep2(self.norm(encoded))
        decoded = self.decode((mask * encoded).permute(0, 2, 1))
        return F.fold(decoded, (1, n), (1, 64), stride=(1, 16)).reshape(batch, -1)


@case(
    "dtln_frame",
    inputs=lambda B: (torch.randn(B, 64), torch.zeros(2, 1, B, 16, 2), torch.zeros(2, 1, B, 16, 2)),
    sizes={"B": 1},
    other={"B": 2},
    dynamic=({0: "B"}, {2: "B"}, {2: "B"}),
    state=((1, 1), (2, 2)),
)
class DtlnFrame(DtlnParts):
    """breizhn/DTLN frame by frame, as its ONNX models run: states in and out."""

    def forward(self, frame: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z = torch.fft.rfft(frame).unsqueeze(1)
        magnitude, phase = z.abs(), z.angle()
        mask, states = self.sep1(magnitude, self.apart(first))
        y = torch.fft.irfft(torch.polar(magnitude * mask, phase)).permute(0, 2, 1)
        encoded = self.encode(y).transpose(1, 2)
        mask, more = self.sep2(self.norm(encoded), self.apart(second))
        return (
            self.decode((mask * encoded).transpose(1, 2)).squeeze(-1),
            self.joined(states),
            self.joined(more),
        )

    @staticmethod
    def apart(states: Tensor) -> list[tuple[Tensor, Tensor]]:
        return [(s[..., 0].contiguous(), s[..., 1].contiguous()) for s in states]

    @staticmethod
    def joined(states: Any) -> Tensor:
        return torch.stack([torch.stack([h, c], dim=-1) for h, c in states])


class BothWays(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(size, size, num_layers=2, bidirectional=True)
        self.linear = nn.Linear(2 * size, size)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(2, 0, 1)
        return self.linear(self.lstm(x)[0]).permute(1, 2, 0)


def trimmed(x: Tensor, reference: Tensor) -> Tensor:
    delta = x.size(-1) - reference.size(-1)
    if delta < 0:
        raise ValueError("the reference is longer")
    return x[..., delta // 2 : -(delta - delta // 2)] if delta else x


@case(
    "demucs",
    inputs=lambda B, T: (torch.randn(B, 2, T),),
    sizes={"B": 1, "T": 404},
    other={"B": 2, "T": 600},
    dynamic=({0: "B", 2: "T"},),
)
class Demucs(nn.Module):
    """facebookresearch/demucs, version 2."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.ModuleList(), nn.ModuleList()
        inputs, channels = 2, 4
        for depth in range(3):
            self.encoder.append(
                nn.Sequential(
                    nn.Conv1d(inputs, channels, 8, 4),
                    nn.ReLU(),
                    nn.Conv1d(channels, 2 * channels, 1),
                    nn.GLU(dim=1),
                )
            )
            last = [nn.ReLU()] if depth else []
            outputs = inputs if depth else 8
            self.decoder.insert(
                0,
                nn.Sequential(
                    nn.Conv1d(channels, 2 * channels, 3),
                    nn.GLU(dim=1),
                    nn.ConvTranspose1d(channels, outputs, 8, 4),
                    *last,
                ),
            )
            inputs, channels = channels, 2 * channels
        self.lstm = BothWays(inputs)

    def forward(self, mix: Tensor) -> Tensor:
        mono = mix.mean(dim=1, keepdim=True)
        mean, std = mono.mean(dim=-1, keepdim=True), mono.std(dim=-1, keepdim=True)
        x = (mix - mean) / (1e-5 + std)
        saved = [x]
        for encode in self.encoder:
            x = encode(x)
            saved.append(x)
        x = self.lstm(x)
        for decode in self.decoder:
            skip = trimmed(saved.pop(-1), x)
            x = decode(x + skip)
        x = x * std + mean
        return x.view(x.size(0), 4, 2, x.size(-1))


class BatchRnn(nn.Module):
    def __init__(self, inputs: int, hidden: int, norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs) if norm else None
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if self.norm is not None:
            t, n = x.size(0), x.size(1)
            x = self.norm(x.view(t * n, -1)).view(t, n, -1)
        packed, _ = self.rnn(pack_padded_sequence(x, lengths))
        x, _ = pad_packed_sequence(packed)
        return x.view(x.size(0), x.size(1), 2, -1).sum(2).view(x.size(0), x.size(1), -1)


@case(
    "deepspeech",
    inputs=lambda B, T: (torch.randn(B, 1, 17, T), falling(B, T)),
    sizes={"B": 3, "T": 20},
    other={"B": 2, "T": 31},
    dynamic=({0: "B", 3: "T"}, {0: "B"}),
)
class DeepSpeech(nn.Module):
    """SeanNaren/deepspeech.pytorch: convolutions masked by lengths, packed BiLSTMs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 4, (5, 5), (2, 2), (2, 2)),
            nn.BatchNorm2d(4),
            nn.Hardtanh(0, 20, inplace=True),
            nn.Conv2d(4, 4, (3, 5), (2, 1), (1, 2)),
            nn.BatchNorm2d(4),
            nn.Hardtanh(0, 20, inplace=True),
        )
        self.rnns = nn.Sequential(BatchRnn(20, 12, False), BatchRnn(12, 12, True))
        self.fc = nn.Sequential(nn.BatchNorm1d(12), nn.Linear(12, 9, bias=False))

    def seq_lens(self, lengths: Tensor) -> Tensor:
        for part in self.conv:
            if isinstance(part, nn.Conv2d):
                taps = part.dilation[1] * (part.kernel_size[1] - 1)
                lengths = (lengths + 2 * part.padding[1] - taps - 1).true_divide(part.stride[1]) + 1
        return lengths.int()

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        lengths = lengths.cpu().int()
        outputs = self.seq_lens(lengths)
        for part in self.conv:
            x = part(x)
            mask = torch.arange(x.size(3))[None, :] >= outputs[:, None]
            x = x.masked_fill(mask[:, None, None, :], 0)
        b, c, h, t = x.size()
        x = x.view(b, c * h, t).transpose(1, 2).transpose(0, 1).contiguous()
        for rnn in self.rnns:
            x = rnn(x, outputs)
        t, n = x.size(0), x.size(1)
        x = self.fc(x.view(t * n, -1)).view(t, n, -1).transpose(0, 1)
        return F.softmax(x, dim=-1), outputs


class NormLstm(nn.Module):
    """An LSTM layer with layer norms, as a loop over time."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.x2g, self.p2g = (
            nn.Linear(inputs, 4 * hidden, bias=False),
            nn.Linear(hidden, 4 * hidden, bias=False),
        )
        self.g_norm, self.c_norm = nn.LayerNorm(4 * hidden), nn.LayerNorm(hidden)

    def forward(self, x: Tensor, state: list[Tensor] | None) -> tuple[Tensor, list[Tensor]]:
        if state is None:
            h = torch.zeros(x.size(1), self.c_norm.normalized_shape[0], device=x.device, dtype=x.dtype)
            c = torch.zeros(x.size(1), self.c_norm.normalized_shape[0], device=x.device, dtype=x.dtype)
        else:
            h, c = state
        gated = self.x2g(x)
        outputs = []
        for gates in gated.unbind(0):
            gates = self.g_norm(gates + self.p2g(h))
            i, f, g, o = gates.chunk(4, 1)
            c = self.c_norm(f.sigmoid() * c + i.sigmoid() * g.tanh())
            h = o.sigmoid() * c.tanh()
            outputs.append(h)
        return torch.stack(outputs, dim=0), [h, c]


@case(
    "rnnt",
    inputs=lambda B, T, U: (torch.randn(B, T, 6), falling(B, T), tokens(B, U, below=11)),
    sizes={"B": 2, "T": 8, "U": 4},
    other={"B": 3, "T": 14, "U": 6},
    dynamic=({0: "B", 1: "T"}, {0: "B"}, {0: "B", 1: "U"}),
)
class RnnTransducer(nn.Module):
    """pytorch/audio: conformer-free RNNT with time reduction, layer-norm LSTM predictor and joiner."""

    def __init__(self) -> None:
        super().__init__()
        self.transcriber = nn.ModuleList([NormLstm(12, 10), NormLstm(10, 10)])
        self.embedding, self.predictor = (
            nn.Embedding(11, 8),
            nn.ModuleList([NormLstm(8, 10), NormLstm(10, 10)]),
        )
        self.out, self.predict_out, self.joint = nn.Linear(10, 10), nn.Linear(10, 10), nn.Linear(10, 11)

    def forward(
        self, x: Tensor, lengths: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor, list[list[Tensor]]]:
        b, t, d = x.shape
        t = t // 2 * 2
        x = x[:, :t, :].contiguous().view(b, t // 2, d * 2).permute(1, 0, 2)
        for layer in self.transcriber:
            x, _ = layer(x, None)
        y = self.embedding(targets).permute(1, 0, 2)
        states = []
        for layer in self.predictor:
            y, state = layer(y, None)
            states.append(state)
        source, target = self.out(x.permute(1, 0, 2)), self.predict_out(y.permute(1, 0, 2))
        joined = source.unsqueeze(2).contiguous() + target.unsqueeze(1).contiguous()
        return self.joint(torch.tanh(joined)), lengths.div(2, rounding_mode="trunc"), states


@case(
    "rnnt_stream",
    inputs=lambda B, T: (
        torch.randn(T, B, 8),
        [[torch.randn(B, 10) * 0.1, torch.randn(B, 10) * 0.1] for _ in range(2)],
    ),
    sizes={"B": 2, "T": 4},
    other={"B": 1, "T": 7},
    dynamic=({0: "T", 1: "B"}, [[{0: "B"}, {0: "B"}], [{0: "B"}, {0: "B"}]]),
    state=((1, 1), (2, 2), (3, 3), (4, 4)),
)
class RnntStream(nn.Module):
    """pytorch/audio RNNT: the streaming transcriber, with a state of each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([NormLstm(8, 10), NormLstm(10, 10)])

    def forward(self, x: Tensor, state: list[list[Tensor]] | None) -> tuple[Tensor, list[list[Tensor]]]:
        new = []
        for index, layer in enumerate(self.layers):
            x, own = layer(x, None if state is None else state[index])
            new.append(own)
        return x, new
