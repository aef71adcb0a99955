"""Whole models with a recurrent core, at the sizes of the public ones that they follow, with random weights.

Each is written from torch's layers after the inference code of a public model, which its docstring names.
None of their code or weights is here.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class Silero(nn.Module):
    """Voice activity of a chunk of 512 samples after 64 of context (snakers4/silero-vad)."""

    def __init__(self):
        super().__init__()
        self.stft = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        widths = [(129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1)]
        self.encoder = nn.ModuleList(nn.Conv1d(i, o, 3, stride=s, padding=1) for i, o, s in widths)
        self.cell = nn.LSTMCell(128, 128)
        self.head = nn.Conv1d(128, 1, 1)

    def forward(self, x, state):
        parts = self.stft(F.pad(x, (0, 64), mode="reflect").unsqueeze(1))
        real, imaginary = parts[:, :129], parts[:, 129:]
        x = torch.sqrt(real**2 + imaginary**2)
        for layer in self.encoder:
            x = F.relu(layer(x))
        h, c = self.cell(x.squeeze(-1), (state[0], state[1]))
        score = torch.sigmoid(self.head(F.relu(h.unsqueeze(-1))))
        return score.mean(dim=2), torch.stack((h, c))


class RecurrentPolicy(nn.Module):
    """A step of an agent: two layers of 64, an LSTM of 256, two heads (as in RecurrentPPO of sb3-contrib)."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(24, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh())
        self.lstm = nn.LSTM(64, 256)
        self.actor, self.critic = nn.Linear(256, 6), nn.Linear(256, 1)

    def forward(self, x, state, is_first):
        keep = (1.0 - is_first).view(1, -1, 1)
        y, state = self.lstm(self.body(x).unsqueeze(0), (keep * state[0], keep * state[1]))
        return self.actor(y[0]), self.critic(y[0]), state


class SubbandFeatures(nn.Module):
    """Each bin with its two neighbours, as channels."""

    def forward(self, x):
        B, C, T, W = x.shape
        return F.unfold(x, kernel_size=(1, 3), padding=(0, 1)).reshape(B, 3 * C, T, W)


class GroupedTemporal(nn.Module):
    """Half of the channels through three convolutions and an attention over time, shuffled with the rest."""

    def __init__(self, width, dilation, is_decoder):
        super().__init__()
        convolution = nn.ConvTranspose2d if is_decoder else nn.Conv2d
        self.look_back = 2 * dilation
        self.features = SubbandFeatures()
        self.first = nn.Sequential(convolution(width // 2 * 3, width, 1), nn.BatchNorm2d(width), nn.PReLU())
        padding = (self.look_back, 1) if is_decoder else (0, 1)
        self.depth = nn.Sequential(
            convolution(width, width, 3, padding=padding, dilation=(dilation, 1), groups=width),
            nn.BatchNorm2d(width),
            nn.PReLU(),
        )
        self.last = nn.Sequential(convolution(width, width // 2, 1), nn.BatchNorm2d(width // 2))
        self.gru = nn.GRU(width // 2, width, batch_first=True)
        self.gate = nn.Linear(width, width // 2)

    def forward(self, x):
        changed, kept = x.chunk(2, dim=1)
        y = self.first(self.features(changed))
        y = self.last(self.depth(F.pad(y, (0, 0, self.look_back, 0))))
        energy = y.pow(2).mean(dim=-1).transpose(1, 2)
        y = y * torch.sigmoid(self.gate(self.gru(energy)[0])).transpose(1, 2).unsqueeze(-1)
        B, C, T, W = y.shape
        return torch.stack((y, kept), dim=2).reshape(B, 2 * C, T, W)


class GroupedGru(nn.Module):
    """Two GRUs, each over half of the features."""

    def __init__(self, size, hidden_size, is_bidirectional):
        super().__init__()
        self.parts = nn.ModuleList(
            nn.GRU(size // 2, hidden_size // 2, batch_first=True, bidirectional=is_bidirectional)
            for _ in range(2)
        )

    def forward(self, x):
        return torch.cat(
            [gru(half)[0] for gru, half in zip(self.parts, x.chunk(2, dim=-1), strict=True)], dim=-1
        )


class DualPath(nn.Module):
    """Recurrent layers over frequency, then over time."""

    def __init__(self, size, bins):
        super().__init__()
        self.across, self.along = GroupedGru(size, size // 2, True), GroupedGru(size, size, False)
        self.linears = nn.ModuleList(nn.Linear(size, size) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm((bins, size), eps=1e-8) for _ in range(2))

    def forward(self, x):
        B, C, T, W = x.shape
        x = x.permute(0, 2, 3, 1)
        y = self.linears[0](self.across(x.reshape(B * T, W, C))).reshape(B, T, W, C)
        x = x + self.norms[0](y)
        y = self.linears[1](self.along(x.transpose(1, 2).reshape(B * W, T, C)))
        x = x + self.norms[1](y.reshape(B, W, T, C).transpose(1, 2))
        return x.permute(0, 3, 1, 2)


class Gtcrn(nn.Module):
    """Speech enhancement: a mask for spectra of 257 bins, 62.5 a second (Xiaobin-Rong/gtcrn)."""

    LOW = 65

    def __init__(self):
        super().__init__()
        self.merge, self.split = nn.Linear(192, 64, bias=False), nn.Linear(64, 192, bias=False)
        self.features = SubbandFeatures()
        down, up = self._down, self._up
        self.encoder = nn.ModuleList([down(9, 1), down(16, 2)])
        self.encoder += [GroupedTemporal(16, dilation, False) for dilation in (1, 2, 5)]
        self.core = nn.Sequential(DualPath(16, 33), DualPath(16, 33))
        self.decoder = nn.ModuleList(GroupedTemporal(16, dilation, True) for dilation in (5, 2, 1))
        self.decoder += [up(16, 2, nn.PReLU()), up(2, 1, nn.Tanh())]

    @staticmethod
    def _down(channels, groups):
        layer = nn.Conv2d(channels, 16, (1, 5), (1, 2), (0, 2), groups=groups)
        return nn.Sequential(layer, nn.BatchNorm2d(16), nn.PReLU())

    @staticmethod
    def _up(channels, groups, activation):
        layer = nn.ConvTranspose2d(16, channels, (1, 5), (1, 2), (0, 2), groups=groups)
        return nn.Sequential(layer, nn.BatchNorm2d(channels), activation)

    def forward(self, spectrum):
        real, imaginary = spectrum[..., 0].transpose(1, 2), spectrum[..., 1].transpose(1, 2)
        x = torch.stack((torch.sqrt(real**2 + imaginary**2 + 1e-12), real, imaginary), dim=1)
        x = self.features(torch.cat((x[..., : self.LOW], self.merge(x[..., self.LOW :])), dim=-1))
        skips = []
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)
        x = self.core(x)
        for layer in self.decoder:
            x = layer(x + skips.pop())
        mask = torch.cat((x[..., : self.LOW], self.split(x[..., self.LOW :])), dim=-1)
        y_real = real * mask[:, 0] - imaginary * mask[:, 1]
        y_imaginary = imaginary * mask[:, 0] + real * mask[:, 1]
        return torch.stack((y_real, y_imaginary), dim=-1).transpose(1, 2)


class OpenUnmix(nn.Module):
    """Source separation: the magnitudes of a target in those of a mix (sigsep/open-unmix-pytorch)."""

    BINS, CROPPED, WIDTH = 2049, 1487, 512

    def __init__(self):
        super().__init__()
        width = self.WIDTH
        self.first = nn.Sequential(nn.Linear(2 * self.CROPPED, width, bias=False), nn.BatchNorm1d(width))
        self.lstm = nn.LSTM(width, width // 2, num_layers=3, bidirectional=True)
        self.second = nn.Sequential(nn.Linear(2 * width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU())
        self.third = nn.Sequential(nn.Linear(width, 2 * self.BINS, bias=False), nn.BatchNorm1d(2 * self.BINS))
        self.input_shift, self.input_scale = (nn.Parameter(torch.rand(self.CROPPED)) for _ in range(2))
        self.output_shift, self.output_scale = (nn.Parameter(torch.rand(self.BINS)) for _ in range(2))

    def forward(self, x):
        mix = x.permute(3, 0, 1, 2)
        T, B, C, _ = mix.shape
        x = (mix[..., : self.CROPPED] + self.input_shift) * self.input_scale
        x = torch.tanh(self.first(x.reshape(T * B, C * self.CROPPED))).reshape(T, B, self.WIDTH)
        x = torch.cat((x, self.lstm(x)[0]), dim=-1)
        x = self.third(self.second(x.reshape(T * B, 2 * self.WIDTH))).reshape(T, B, C, self.BINS)
        x = F.relu(x * self.output_scale + self.output_shift)
        return (x * mix).permute(1, 2, 3, 0)


class DeepSpeech2(nn.Module):
    """Speech recognition: two convolutions, five BiLSTMs of 1024 (SeanNaren/deepspeech.pytorch)."""

    def __init__(self):
        super().__init__()
        self.front = nn.Sequential(
            nn.Conv2d(1, 32, (41, 11), stride=(2, 2), padding=(20, 5)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20),
            nn.Conv2d(32, 32, (21, 11), stride=(2, 1), padding=(10, 5)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20),
        )
        sizes = [32 * 41, 1024, 1024, 1024, 1024]
        self.norms = nn.ModuleList(nn.BatchNorm1d(size) for size in sizes[1:])
        self.lstms = nn.ModuleList(nn.LSTM(size, 1024, bidirectional=True) for size in sizes)
        self.head = nn.Sequential(nn.BatchNorm1d(1024), nn.Linear(1024, 29, bias=False))

    def forward(self, x):
        x = self.front(x)
        B, C, W, T = x.shape
        x = x.reshape(B, C * W, T).permute(2, 0, 1)
        for index, lstm in enumerate(self.lstms):
            if index:
                x = self.norms[index - 1](x.reshape(T * B, 1024)).reshape(T, B, 1024)
            x = lstm(x)[0].reshape(T, B, 2, 1024).sum(dim=2)
        x = self.head(x.reshape(T * B, 1024)).reshape(T, B, 29)
        return F.softmax(x, dim=-1).transpose(0, 1)


class Tacotron2Decoder(nn.Module):
    """A step of speech synthesis: two LSTMCells of 1024, attention over the text (NVIDIA/tacotron2)."""

    def __init__(self):
        super().__init__()
        self.prenet = nn.ModuleList([nn.Linear(80, 256, bias=False), nn.Linear(256, 256, bias=False)])
        self.attention_cell = nn.LSTMCell(256 + 512, 1024)
        self.decoder_cell = nn.LSTMCell(1024 + 512, 1024)
        self.query, self.energy = nn.Linear(1024, 128, bias=False), nn.Linear(128, 1, bias=False)
        self.location = nn.Conv1d(2, 32, 31, padding=15, bias=False)
        self.location_keys = nn.Linear(32, 128, bias=False)
        self.mel, self.stop = nn.Linear(1024 + 512, 80), nn.Linear(1024 + 512, 1)

    def forward(self, frame, memory, keys, attention, decoder, weights, context):
        for linear in self.prenet:
            frame = F.relu(linear(frame))
        attention = self.attention_cell(torch.cat((frame, context), dim=1), attention)
        location = self.location_keys(self.location(torch.stack(weights, dim=1)).transpose(1, 2))
        query = self.query(attention[0]).unsqueeze(1)
        now = F.softmax(self.energy(torch.tanh(query + location + keys)).squeeze(-1), dim=1)
        context = torch.bmm(now.unsqueeze(1), memory).squeeze(1)
        decoder = self.decoder_cell(torch.cat((attention[0], context), dim=1), decoder)
        y = torch.cat((decoder[0], context), dim=1)
        return self.mel(y), self.stop(y), attention, decoder, (now, weights[1] + now), context


class Tagger(nn.Module):
    """Scores of 20 tags for each word of sentences of different lengths (as in flair's sequence tagger)."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20_000, 100)
        self.lstm = nn.LSTM(100, 256, bidirectional=True, batch_first=True)
        self.head = nn.Linear(512, 20)

    def forward(self, words, lengths):
        packed = pack_padded_sequence(self.embedding(words), lengths, batch_first=True)
        y, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True)
        return F.log_softmax(self.head(y), dim=-1)


class Crnn(nn.Module):
    """Text in an image of 32 x 100: seven convolutions, two BiLSTMs of 256 (meijieru/crnn.pytorch)."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 128, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(128, 256, 3, padding=1), nn.BatchNorm2d(256), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, (2, 1), (0, 1))),
            *(nn.Conv2d(256, 512, 3, padding=1), nn.BatchNorm2d(512), nn.ReLU()),
            *(nn.Conv2d(512, 512, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2, (2, 1), (0, 1))),
            *(nn.Conv2d(512, 512, 2), nn.BatchNorm2d(512), nn.ReLU()),
        )
        self.lstms = nn.ModuleList(nn.LSTM(size, 256, bidirectional=True) for size in (512, 256))
        self.linears = nn.ModuleList(nn.Linear(512, size) for size in (256, 37))

    def forward(self, image):
        x = self.convolutions(image).squeeze(2).permute(2, 0, 1)
        for lstm, linear in zip(self.lstms, self.linears, strict=True):
            x = linear(lstm(x)[0])
        return x


class AwdLstm(nn.Module):
    """A token of a language model: three LSTMs of up to 1150 and 10,000 words (salesforce/awd-lstm-lm)."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10_000, 400)
        self.lstms = nn.ModuleList(nn.LSTM(i, o) for i, o in ((400, 1150), (1150, 1150), (1150, 400)))
        self.head = nn.Linear(400, 10_000)
        self.head.weight = self.embedding.weight

    def forward(self, tokens, states):
        x, after = self.embedding(tokens), []
        for lstm, state in zip(self.lstms, states, strict=True):
            x, state = lstm(x, state)
            after.append(state)
        return self.head(x), after


class SpeakerEncoder(nn.Module):
    """A voice as a unit vector: three LSTMs of 256 over 1.6 s (resemble-ai/Resemblyzer)."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(40, 256, 3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def forward(self, mels):
        _, (h, _) = self.lstm(mels)
        y = F.relu(self.linear(h[-1]))
        return y / torch.norm(y, dim=1, keepdim=True)


@dataclass(frozen=True)
class WholeModel:
    """A model, how to make it and its inputs; and the wanted ratio of the fastest peer's time to ours."""

    name: str
    module: Callable[[], nn.Module]
    inputs: Callable[[], tuple]
    target: float

    def make(self):
        """The module in evaluation mode and its arguments, the same numbers in every process."""
        torch.manual_seed(0)
        module = self.module().eval()
        for part in module.modules():
            if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
                part.running_mean.uniform_(-0.5, 0.5)
                part.running_var.uniform_(0.5, 1.5)
        return module, self.inputs()


def _states(*sizes, layers=()):
    return tuple(torch.randn(*layers, 1, size) * 0.1 for size in sizes)


MEMORY_STEPS = 100  # the characters of a sentence, for Tacotron 2

# The wanted geometric mean of the ratios.
GEOMETRIC_MEAN = 1.5

WHOLE_MODELS = (
    WholeModel("silero, a chunk", Silero, lambda: (torch.randn(1, 576) * 0.1, torch.zeros(2, 1, 128)), 2.0),
    WholeModel(
        "recurrent policy, a step",
        RecurrentPolicy,
        lambda: (torch.randn(1, 24), _states(256, 256, layers=(1,)), torch.zeros(1)),
        4.0,
    ),
    WholeModel("GTCRN, 1 s", Gtcrn, lambda: (torch.randn(1, 257, 63, 2),), 1.2),
    WholeModel("Open-Unmix, 3 s of stereo", OpenUnmix, lambda: (torch.rand(1, 2, 2049, 130),), 1.4),
    WholeModel("DeepSpeech2, 3 s", DeepSpeech2, lambda: (torch.randn(1, 1, 161, 300),), 1.03),
    WholeModel(
        "Tacotron 2 decoder, a step",
        Tacotron2Decoder,
        lambda: (
            torch.randn(1, 80),
            torch.randn(1, MEMORY_STEPS, 512),
            torch.randn(1, MEMORY_STEPS, 128),
            _states(1024, 1024),
            _states(1024, 1024),
            (torch.rand(1, MEMORY_STEPS), torch.rand(1, MEMORY_STEPS)),
            torch.randn(1, 512),
        ),
        1.15,
    ),
    WholeModel(
        "BiLSTM tagger, 32 sentences",
        Tagger,
        lambda: (torch.randint(0, 20_000, (32, 40)), torch.arange(40, 8, -1)),
        1.4,
    ),
    WholeModel("CRNN, an image", Crnn, lambda: (torch.randn(1, 1, 32, 100),), 1.0),
    WholeModel(
        "AWD-LSTM, a token",
        AwdLstm,
        lambda: (
            torch.randint(0, 10_000, (1, 1)),
            [_states(size, size, layers=(1,)) for size in (1150, 1150, 400)],
        ),
        1.15,
    ),
    WholeModel("speaker encoder, 1.6 s", SpeakerEncoder, lambda: (torch.rand(1, 160, 40),), 1.4),
)
