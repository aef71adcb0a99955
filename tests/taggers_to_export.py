"""Small versions of well-known recurrent models of text, series, music and control."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from export_case import Case, collector, falling, tokens
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

CASES: dict[str, Case] = {}
case = collector(CASES)


class InChunks(nn.Module):
    """A BiLSTM that runs over long inputs in pieces, as inference does there."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True)
        self.hidden, self.step = hidden, 4

    def forward(self, x: Tensor) -> Tensor:
        batch, length = x.shape[0], x.shape[1]
        h, c = (torch.zeros(2, batch, self.hidden) for _ in range(2))
        output = torch.zeros(batch, length, 2 * self.hidden)
        slices = range(0, length, self.step)
        for start in slices:
            end = start + self.step
            output[:, start:end, :], (h, c) = self.rnn(x[:, start:end, :], (h, c))
        h.zero_()
        c.zero_()
        for start in reversed(slices):
            end = start + self.step
            result, (h, c) = self.rnn(x[:, start:end, :], (h, c))
            output[:, start:end, self.hidden :] = result[:, :, self.hidden :]
        return output


@case(
    "onsets",
    inputs=lambda B, T: (torch.rand(B, 4 * T, 24),),
    sizes={"B": 2, "T": 3},
    other={"B": 1, "T": 5},
    dynamic=({0: "B"},),
)
class Onsets(nn.Module):
    """jongwook/onsets-and-frames: convolutions, and BiLSTMs in chunks of time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d((1, 2)),
            nn.Dropout(0.25),
        )
        self.fc, self.rnn, self.out = nn.Linear(48, 10), InChunks(10, 6), nn.Linear(12, 8)
        self.frame, self.combined = nn.Linear(48, 8), InChunks(16, 6)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        x = self.conv(mel.view(mel.size(0), 1, mel.size(1), mel.size(2)))
        x = x.transpose(1, 2).flatten(-2)
        onset = torch.sigmoid(self.out(self.rnn(self.fc(x))))
        activation = torch.sigmoid(self.frame(x))
        frames = self.combined(torch.cat([onset.detach(), activation], dim=-1))
        return onset, torch.sigmoid(self.out(frames))


@case(
    "onsets_frames",
    inputs=lambda B, T: (torch.rand(B, 4 * T, 24),),
    sizes={"B": 2, "T": 3},
    other={"B": 1, "T": 5},
    dynamic=({0: "B", 1: "T"},),
)
class OnsetsFrames(Onsets):
    """The same, with a length that may change by whole chunks."""


class ClippedLstm(nn.Module):
    """An LSTM with a projection and clipped cells, as a loop over time, in one direction."""

    def __init__(self, inputs: int, hidden: int, backward: bool) -> None:
        super().__init__()
        self.forwards = not backward
        self.input, self.state = nn.Linear(inputs, 4 * hidden, bias=False), nn.Linear(inputs, 4 * hidden)
        self.project, self.hidden = nn.Linear(hidden, inputs, bias=False), hidden

    def forward(self, x: Tensor, lengths: list[int] | None = None) -> tuple[Tensor, Tensor, Tensor]:
        b, t, d = x.size()
        out = x.new_zeros(b, t, d)
        h, c = x.new_zeros(b, d), x.new_zeros(b, self.hidden)
        for step in range(t):
            index = step if self.forwards else t - step - 1
            gates, own = self.input(x[:, index]), self.state(h)
            n = self.hidden
            i = torch.sigmoid(gates[:, 0 * n : 1 * n] + own[:, 0 * n : 1 * n])
            f = torch.sigmoid(gates[:, 1 * n : 2 * n] + own[:, 1 * n : 2 * n])
            g = torch.tanh(gates[:, 2 * n : 3 * n] + own[:, 2 * n : 3 * n])
            o = torch.sigmoid(gates[:, 3 * n : 4 * n] + own[:, 3 * n : 4 * n])
            c = torch.clamp(i * g + f * c, -3.0, 3.0)
            h = torch.clamp(self.project(o * torch.tanh(c)), -3.0, 3.0)
            out[:, index] = h
        return out, h, c


class Highway(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(size, 2 * size) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            projected = layer(x)
            linear = x
            part, gate = projected.chunk(2, dim=-1)
            gate = torch.sigmoid(gate)
            x = gate * linear + (1 - gate) * F.relu(part)
        return x


@case(
    "elmo",
    inputs=lambda B, T: (tokens(B, T, 9, below=30),),
    sizes={"B": 2, "T": 5},
    other={"B": 3, "T": 8},
    dynamic=({0: "B", 1: "T"},),
)
class Elmo(nn.Module):
    """allenai/allennlp: ELMo, characters to a scalar mix of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.characters = nn.Embedding(30, 4)
        self.convs = nn.ModuleList(nn.Conv1d(4, count, width) for width, count in ((1, 4), (2, 4), (3, 8)))
        self.highway, self.project = Highway(16), nn.Linear(16, 8)
        self.forward_layers = nn.ModuleList(ClippedLstm(8, 12, False) for _ in range(2))
        self.backward_layers = nn.ModuleList(ClippedLstm(8, 12, True) for _ in range(2))
        self.mix, self.gamma = (
            nn.ParameterList([nn.Parameter(torch.randn(1)) for _ in range(3)]),
            nn.Parameter(torch.ones(1)),
        )

    def forward(self, ids: Tensor) -> dict[str, Any]:
        mask = ((ids > 0).sum(dim=-1) > 0).long()
        x = F.embedding(ids.view(-1, 9), self.characters.weight).transpose(1, 2)
        convs = [F.relu(torch.max(conv(x), dim=-1)[0]) for conv in self.convs]
        x = self.project(self.highway(torch.cat(convs, dim=-1))).view(ids.size(0), ids.size(1), -1)
        ahead, back = x, x
        layers = [torch.cat([x, x], dim=-1)]
        for index, (first, second) in enumerate(zip(self.forward_layers, self.backward_layers, strict=True)):
            kept = ahead, back
            ahead, back = first(ahead)[0], second(back)[0]
            if index:
                ahead, back = ahead + kept[0], back + kept[1]
            layers.append(torch.cat([ahead, back], dim=-1))
        weights = torch.split(F.softmax(torch.cat([p for p in self.mix]), dim=0), 1)
        mixed = self.gamma * sum(w * layer for w, layer in zip(weights, layers, strict=True))
        return {"mixed": mixed * mask.unsqueeze(-1).float(), "layers": layers, "mask": mask}


class Crf(nn.Module):
    """The best path through the tags of each step."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.randn(tags, tags))
        self.first, self.last = nn.Parameter(torch.randn(tags)), nn.Parameter(torch.randn(tags))

    def forward(self, emissions: Tensor) -> tuple[Tensor, Tensor]:
        score = self.first + emissions[0]
        history = []
        for t in range(1, emissions.size(0)):
            following = score.unsqueeze(2) + self.transitions + emissions[t].unsqueeze(1)
            score, indices = following.max(dim=1)
            history.append(indices)
        best, tag = (score + self.last).max(dim=1)
        path = [tag]
        for indices in reversed(history):
            tag = indices.gather(1, tag.unsqueeze(1)).squeeze(1)
            path.append(tag)
        path.reverse()
        return best, torch.stack(path, dim=1)


@case(
    "crf_fixed",
    inputs=lambda B: (tokens(B, 7, below=20),),
    sizes={"B": 2},
    other={"B": 4},
    dynamic=({0: "B"},),
)
@case(
    "crf",
    inputs=lambda B, T: (tokens(B, T, below=20),),
    sizes={"B": 2, "T": 7},
    other={"B": 4, "T": 10},
    dynamic=({0: "B", 1: "T"},),
)
class CrfTagger(nn.Module):
    """kmkurn/pytorch-crf after a BiLSTM: Viterbi with back-pointers."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.lstm = nn.Embedding(20, 8, padding_idx=0), nn.LSTM(8, 6, bidirectional=True)
        self.fc, self.crf = nn.Linear(12, 5), Crf(5)

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        y, _ = self.lstm(self.embedding(ids.transpose(0, 1)))
        return self.crf(self.fc(y))


@case(
    "flair",
    inputs=lambda B, T: (torch.randn(B, T, 10), falling(B, T)),
    sizes={"B": 3, "T": 7},
    other={"B": 4, "T": 10},
    dynamic=({0: "B", 1: "T"}, {0: "B"}),
)
class FlairTagger(nn.Module):
    """flairNLP/flair: reprojection, packed BiLSTM, and the forward scores of its CRF at each row's end."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding2nn, self.rnn = nn.Linear(10, 10), nn.LSTM(10, 8, batch_first=True, bidirectional=True)
        self.linear, self.transitions = nn.Linear(16, 6), nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        packed = pack_padded_sequence(self.embedding2nn(x), lengths, batch_first=True, enforce_sorted=False)
        x, out = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        scores = self.linear(x)
        forward = torch.full((x.size(0), 6), -100.0)
        forward[:, 4] = 0.0
        steps = []
        for t in range(x.size(1)):
            total = scores[:, t].unsqueeze(2) + self.transitions + forward.unsqueeze(1)
            top, _ = total.max(dim=2)
            forward = top + torch.log(torch.sum(torch.exp(total - top.unsqueeze(2)), dim=2))
            steps.append(forward)
        last = torch.stack(steps, 1).gather(1, (out - 1).view(-1, 1, 1).expand(-1, 1, 6)).squeeze(1)
        return scores, torch.logsumexp(last + self.transitions[5], dim=1), scores.max(dim=2)[1]


class Normal(NamedTuple):
    loc: Tensor
    scale: Tensor


@case(
    "deepar",
    inputs=lambda B, T: (
        torch.rand(B, T + 7) + 0.1,
        tokens(B, below=6),
        torch.randn(B, T, 3),
        torch.ones(B, T + 7),
    ),
    sizes={"B": 2, "T": 5},
    other={"B": 3, "T": 8},
    dynamic=({0: "B", 1: "L"}, {0: "B"}, {0: "B", 1: "T"}, {0: "B", 1: "L"}),
)
class DeepAr(nn.Module):
    """awslabs/gluonts: lags, mean scaling, an LSTM, and the parameters of a distribution."""

    lags = (1, 2, 3, 7)

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.rnn = nn.Embedding(6, 4), nn.LSTM(4 + 1 + 4 + 3, 16, num_layers=2, batch_first=True)
        self.loc, self.scale = nn.Linear(16, 1), nn.Linear(16, 1)

    def forward(
        self, past: Tensor, kind: Tensor, features: Tensor, observed: Tensor
    ) -> tuple[Normal, Tensor, Any]:
        steps = features.shape[1]
        count = torch.clamp_min(observed.sum(dim=1, keepdim=True), 1)
        scale = torch.clamp((past.abs() * observed).sum(dim=1, keepdim=True) / count, min=1e-3)
        scaled = past / scale
        lagged = []
        for lag in self.lags:
            begin, end = -lag - steps, -lag
            lagged.append(scaled[:, begin:end, ...])
        static = torch.cat([self.embed(kind), scale.log()], dim=1)
        repeated = static.unsqueeze(dim=1).expand(-1, steps, -1)
        y, state = self.rnn(torch.cat((torch.stack(lagged, dim=-1), repeated, features), dim=-1))
        loc, spread = self.loc(y).squeeze(-1), F.softplus(self.scale(y)).squeeze(-1)
        return Normal(loc * scale, spread * scale), scale, state


@case(
    "seq2seq_packed",
    inputs=lambda B, T: (tokens(B, T, below=20), falling(B, T)),
    sizes={"B": 3, "T": 7},
    other={"B": 4, "T": 10},
    dynamic=({0: "B", 1: "T"}, {0: "B"}),
)
class Seq2SeqPacked(nn.Module):
    """bentrevett/pytorch-seq2seq 4: packed encoder, masked attention, a fixed number of greedy steps."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.rnn = nn.Embedding(20, 8), nn.GRU(8, 8, bidirectional=True)
        self.fc, self.attn, self.v = nn.Linear(16, 8), nn.Linear(24, 8), nn.Linear(8, 1, bias=False)
        self.embed_out, self.decoder, self.out = nn.Embedding(15, 8), nn.GRU(16 + 8, 8), nn.Linear(32, 15)

    def forward(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.embedding(source.permute(1, 0))
        packed, hidden = self.rnn(pack_padded_sequence(embedded, lengths.to("cpu")))
        memory, _ = pad_packed_sequence(packed)
        hidden = torch.tanh(self.fc(torch.cat((hidden[-2, :, :], hidden[-1, :, :]), dim=1)))
        mask = (source != 0) & (torch.arange(source.shape[1])[None] < lengths[:, None])
        memory = memory.permute(1, 0, 2)
        batch, steps = memory.shape[0], memory.shape[1]
        outputs = torch.zeros(4, batch, 15)
        token = source.new_ones(batch)
        for t in range(1, 4):
            repeated = hidden.unsqueeze(1).repeat(1, steps, 1)
            energy = torch.tanh(self.attn(torch.cat((repeated, memory), dim=2)))
            attention = self.v(energy).squeeze(2).masked_fill(mask == 0, -1e10)
            a = F.softmax(attention, dim=1).unsqueeze(1)
            weighted = torch.bmm(a, memory).permute(1, 0, 2)
            embedded = self.embed_out(token.unsqueeze(0))
            y, h = self.decoder(torch.cat((embedded, weighted), dim=2), hidden.unsqueeze(0))
            prediction = self.out(torch.cat((y.squeeze(0), weighted.squeeze(0), embedded.squeeze(0)), dim=1))
            hidden = h.squeeze(0)
            outputs[t] = prediction
            token = prediction.argmax(1)
        return outputs, a.squeeze(1)


@case(
    "sb3",
    inputs=lambda B, T: (
        torch.randn(B * T, 6),
        (torch.zeros(1, B, 8), torch.zeros(1, B, 8)),
        (torch.rand(B * T) < 0.3).float(),
    ),
    sizes={"B": 2, "T": 4},
    other={"B": 3, "T": 6},
    dynamic=({0: "N"}, ({1: "B"}, {1: "B"}), {0: "N"}),
    state=((1, 3), (2, 4)),
)
class RecurrentPolicy(nn.Module):
    """Stable-Baselines3 contrib: RecurrentActorCriticPolicy, sequences by row."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 8)
        self.policy = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))
        self.value = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
        self.log_std = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, states: tuple[Tensor, Tensor], starts: Tensor) -> Any:
        n = states[0].shape[1]
        sequence = x.reshape((n, -1, self.lstm.input_size)).swapaxes(0, 1)
        starts = starts.reshape((n, -1)).swapaxes(0, 1)
        outputs = []
        for features, start in zip(sequence, starts, strict=True):
            hidden, states = self.lstm(
                features.unsqueeze(dim=0),
                ((1.0 - start).view(1, n, 1) * states[0], (1.0 - start).view(1, n, 1) * states[1]),
            )
            outputs += [hidden]
        latent = torch.flatten(torch.cat(outputs).transpose(0, 1), start_dim=0, end_dim=1)
        mean = self.policy(latent)
        std = torch.ones_like(mean) * self.log_std.exp()
        return torch.clip(mean, -1, 1), self.value(latent), std, states


@case(
    "amp_learned",
    inputs=lambda B, T: (torch.randn(B, T, 1) * 0.1,),
    sizes={"B": 2, "T": 12},
    other={"B": 3, "T": 20},
    dynamic=({0: "B", 1: "T"},),
)
class LearnedAmp(nn.Module):
    """sdatkinson/neural-amp-modeler: LSTM with learned first states."""

    def __init__(self) -> None:
        super().__init__()
        self.core, self.head = nn.LSTM(1, 8, 2, batch_first=True), nn.Linear(8, 1)
        self.h0, self.c0 = nn.Parameter(torch.randn(2, 8)), nn.Parameter(torch.randn(2, 8))

    def forward(self, x: Tensor) -> Tensor:
        batch = x.size(0)
        state = (
            self.h0[:, None].repeat(1, batch, 1),
            torch.tile(self.c0[:, None], (1, batch, 1)),
        )
        y, _ = self.core(x, state)
        return self.head(y)[:, :, 0] + x.squeeze(-1)


@case(
    "amp_hidden",
    inputs=lambda B, T: (torch.randn(T, B, 1) * 0.1,),
    sizes={"B": 2, "T": 12},
    other={"B": 2, "T": 20},
    dynamic=({0: "T"},),
)
class HiddenAmp(nn.Module):
    """Alec-Wright/Automated-GuitarAmpModelling: the state is an attribute, None at first."""

    def __init__(self) -> None:
        super().__init__()
        self.rec, self.lin, self.hidden = nn.LSTM(1, 8), nn.Linear(8, 1), None

    def forward(self, x: Tensor) -> Tensor:
        y, self.hidden = self.rec(x, self.hidden)
        return self.lin(y) + x

    def detach_hidden(self) -> None:
        self.hidden = tuple(h.clone().detach() for h in self.hidden)
