"""Small versions of well-known recurrent models of speech: keywords and synthesis, as in models_to_export."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from export_case import Case, collector, falling, tokens
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

CASES: dict[str, Case] = {}
case = collector(CASES)


@case(
    "edgecrnn",
    inputs=lambda B, T: (torch.randn(B, 1, 24, T),),
    sizes={"B": 2, "T": 40},
    other={"B": 3, "T": 61},
    dynamic=({0: "B", 3: "T"},),
)
class EdgeCrnn(nn.Module):
    """fan2goa/EdgeCRNN: shuffled depthwise units, pooling of the height, a recurrent layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(1, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.near = nn.Sequential(
            nn.Conv2d(8, 8, 3, 2, 1, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 1), nn.ReLU()
        )
        self.far = nn.Sequential(
            nn.Conv2d(8, 8, 1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 2, 1, groups=8),
            nn.BatchNorm2d(8),
        )
        self.conv5 = nn.Sequential(nn.Conv2d(16, 12, 1), nn.BatchNorm2d(12), nn.ReLU())
        self.average = nn.AvgPool2d((6, 1), stride=1)
        self.rnn, self.fc = nn.GRU(12, 10, bidirectional=True, batch_first=True), nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.conv1(x))
        x = torch.cat((self.near(x), self.far(x)), dim=1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, -1, h, w)
        x = self.average(self.conv5(x)).squeeze(2).permute(0, 2, 1)
        y, _ = self.rnn(x)
        return self.fc(y.mean(dim=1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.query, self.v = nn.Linear(16, 8, bias=False), nn.Linear(8, 1, bias=False)
        self.location, self.dense = nn.Conv1d(2, 4, 5, padding=2, bias=False), nn.Linear(4, 8, bias=False)

    def forward(self, query: Tensor, memory: Tensor, keys: Tensor, weights: Tensor, mask: Tensor) -> Any:
        place = self.dense(self.location(weights).transpose(1, 2))
        energy = self.v(torch.tanh(self.query(query.unsqueeze(1)) + place + keys)).squeeze(-1)
        weights = F.softmax(energy.masked_fill(mask, -float("inf")), dim=1)
        return torch.bmm(weights.unsqueeze(1), memory).squeeze(1), weights


@case(
    "tacotron",
    inputs=lambda B, T: (tokens(B, T, below=20), falling(B, T)),
    sizes={"B": 2, "T": 6},
    other={"B": 3, "T": 9},
    dynamic=({0: "B", 1: "T"}, {0: "B"}),
)
class Tacotron(nn.Module):
    """NVIDIA/tacotron2: encoder, a decoder of a fixed number of frames, postnet."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 12)
        self.convs = nn.ModuleList(
            nn.Sequential(nn.Conv1d(12, 12, 5, padding=2), nn.BatchNorm1d(12)) for _ in range(2)
        )
        self.lstm = nn.LSTM(12, 6, batch_first=True, bidirectional=True)
        self.prenet = nn.ModuleList([nn.Linear(5, 8, bias=False), nn.Linear(8, 8, bias=False)])
        self.attention_rnn, self.decoder_rnn = nn.LSTMCell(8 + 12, 16), nn.LSTMCell(16 + 12, 16)
        self.attention, self.memory_layer = Attention(), nn.Linear(12, 8, bias=False)
        self.projection, self.gate = nn.Linear(16 + 12, 5), nn.Linear(16 + 12, 1)
        self.postnet = nn.ModuleList(
            [
                nn.Sequential(nn.Conv1d(5, 8, 5, padding=2), nn.BatchNorm1d(8)),
                nn.Sequential(nn.Conv1d(8, 5, 5, padding=2), nn.BatchNorm1d(5)),
            ]
        )

    def encode(self, text: Tensor, lengths: Tensor) -> Tensor:
        x = self.embedding(text).transpose(1, 2)
        for conv in self.convs:
            x = F.dropout(F.relu(conv(x)), 0.5, self.training)
        packed = pack_padded_sequence(x.transpose(1, 2), lengths.cpu().numpy(), batch_first=True)
        self.lstm.flatten_parameters()
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True)[0]

    def forward(self, text: Tensor, lengths: Tensor) -> list[Tensor]:
        memory = self.encode(text, lengths)
        mask = ~(
            torch.arange(0, torch.max(lengths).item(), out=torch.LongTensor(int(lengths.max())))
            < lengths[:, None]
        )
        keys, b, t = self.memory_layer(memory), memory.size(0), memory.size(1)
        ah, ac, dh, dc = (memory.data.new(b, 16).zero_() for _ in range(4))
        weights, total, context = memory.new_zeros(b, t), memory.new_zeros(b, t), memory.new_zeros(b, 12)
        frame = memory.new_zeros(b, 5)
        frames, gates, alignments = [], [], []
        while len(frames) < 4:
            for linear in self.prenet:
                frame = F.relu(linear(frame))
            ah, ac = self.attention_rnn(torch.cat((frame, context), -1), (ah, ac))
            seen = torch.cat((weights.unsqueeze(1), total.unsqueeze(1)), dim=1)
            context, weights = self.attention(ah, memory, keys, seen, mask)
            total += weights
            dh, dc = self.decoder_rnn(torch.cat((ah, context), -1), (dh, dc))
            joined = torch.cat((dh, context), dim=1)
            frame = self.projection(joined)
            frames += [frame.squeeze(1)]
            gates += [self.gate(joined).squeeze(1)]
            alignments += [weights]
        mel = torch.stack(frames).transpose(0, 1).contiguous().transpose(1, 2)
        x = torch.tanh(self.postnet[0](mel))
        x = self.postnet[1](x) + mel
        return [mel, x, torch.stack(gates).transpose(0, 1), torch.stack(alignments).transpose(0, 1)]


class WaveResidual(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(size, size, 1, bias=False), nn.Conv1d(size, size, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm1d(size), nn.BatchNorm1d(size)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x))))) + x


@case(
    "wavernn",
    inputs=lambda B, T: (torch.randn(B, (T - 4) * 6), torch.randn(B, 8, T)),
    sizes={"B": 2, "T": 8},
    other={"B": 3, "T": 11},
    dynamic=({0: "B", 1: "N"}, {0: "B", 2: "T"}),
)
class WaveRnn(nn.Module):
    """fatchord/WaveRNN: upsampled conditions, two GRUs with residual sums."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_in, self.norm = nn.Conv1d(8, 8, 5, bias=False), nn.BatchNorm1d(8)
        self.blocks, self.conv_out = nn.ModuleList([WaveResidual(8), WaveResidual(8)]), nn.Conv1d(8, 16, 1)
        self.up = nn.ModuleList(nn.Conv2d(1, 1, (1, 2 * s + 1), padding=(0, s), bias=False) for s in (2, 3))
        self.rnn1, self.rnn2 = nn.GRU(16, 16, batch_first=True), nn.GRU(20, 16, batch_first=True)
        self.i, self.fc1, self.fc2, self.fc3 = (
            nn.Linear(13, 16),
            nn.Linear(20, 16),
            nn.Linear(20, 16),
            nn.Linear(16, 10),
        )

    @staticmethod
    def stretched(x: Tensor, factor: int) -> Tensor:
        b, c, h, w = x.size()
        x = x.unsqueeze(-1).unsqueeze(3)
        return x.repeat(1, 1, 1, 1, 1, factor).view(b, c, h, w * factor)

    def forward(self, x: Tensor, mels: Tensor) -> Tensor:
        h1 = torch.zeros(1, x.size(0), 16)
        h2 = torch.zeros(1, x.size(0), 16)
        aux = F.relu(self.norm(self.conv_in(mels)))
        for block in self.blocks:
            aux = block(aux)
        aux = self.stretched(self.conv_out(aux).unsqueeze(1), 6).squeeze(1).transpose(1, 2)
        m = mels.unsqueeze(1)
        for scale, conv in zip((2, 3), self.up, strict=True):
            m = conv(self.stretched(m, scale))
        m = m.squeeze(1)[:, :, 12:-12].transpose(1, 2)
        index = [4 * i for i in range(5)]
        a1, a2, a3, a4 = (aux[:, :, index[i] : index[i + 1]] for i in range(4))
        x = self.i(torch.cat([x.unsqueeze(-1), m, a1], dim=2))
        skip = x
        x, _ = self.rnn1(x, h1)
        x = x + skip
        skip = x
        x, _ = self.rnn2(torch.cat([x, a2], dim=2), h2)
        x = torch.cat([x + skip, a3], dim=2)
        x = torch.cat([F.relu(self.fc1(x)), a4], dim=2)
        return self.fc3(F.relu(self.fc2(x)))


@case(
    "wavernn_step",
    inputs=lambda B: (
        torch.randn(B, 1),
        torch.randn(B, 8),
        torch.randn(B, 16),
        torch.zeros(B, 16),
        torch.zeros(B, 16),
    ),
    sizes={"B": 2},
    other={"B": 5},
    dynamic=({0: "B"}, {0: "B"}, {0: "B"}, {0: "B"}, {0: "B"}),
    state=((3, 1), (4, 2)),
)
class WaveRnnStep(WaveRnn):
    """fatchord/WaveRNN: one sample, with GRU cells that share the weights of the layers."""

    def __init__(self) -> None:
        super().__init__()
        self.cell1, self.cell2 = self.cell(self.rnn1), self.cell(self.rnn2)

    def forward(
        self, x: Tensor, m: Tensor, aux: Tensor, h1: Tensor, h2: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        a1, a2, a3, a4 = aux.split(4, dim=1)
        x = self.i(torch.cat([x, m, a1], dim=1))
        h1 = self.cell1(x, h1)
        x = x + h1
        h2 = self.cell2(torch.cat([x, a2], dim=1), h2)
        x = torch.cat([x + h2, a3], dim=1)
        x = torch.cat([F.relu(self.fc1(x)), a4], dim=1)
        return F.softmax(self.fc3(F.relu(self.fc2(x))), dim=1), h1, h2

    @staticmethod
    def cell(gru: nn.GRU) -> nn.GRUCell:
        cell = nn.GRUCell(gru.input_size, gru.hidden_size)
        cell.weight_ih.data, cell.weight_hh.data = gru.weight_ih_l0.data, gru.weight_hh_l0.data
        cell.bias_ih.data, cell.bias_hh.data = gru.bias_ih_l0.data, gru.bias_hh_l0.data
        return cell
