"""Models that other people trained, written in torch as their READMEs describe them. Needs torch.

Each takes its state dict whole, under the names that the file has.
"""

import json

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class WalkerStep(nn.Module):
    """One step of a policy with three heads. The caller keeps the state of the cell."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(24, 128), nn.Linear(128, 128)
        self.fc3, self.fc4 = nn.Linear(128, 64), nn.Linear(64, 64)
        self.lstm = nn.LSTMCell(64, 128)
        self.critic_linear, self.actor_linear = nn.Linear(128, 1), nn.Linear(128, 4)
        self.actor_linear2 = nn.Linear(128, 4)

    def features(self, x):
        for layer in (self.fc1, self.fc2, self.fc3, self.fc4):
            x = functional.leaky_relu(layer(x), 0.1)
        return x

    def heads(self, h):
        return self.critic_linear(h), functional.softsign(self.actor_linear(h)), self.actor_linear2(h)

    def forward(self, observation, state):
        h, c = self.lstm(self.features(observation), state)
        return *self.heads(h), (h, c)


class Walker(WalkerStep):
    """The same policy over a recording: the cell in a loop."""

    def forward(self, observations):
        state, hidden = None, []
        for x in self.features(observations):
            state = self.lstm(x, state)
            hidden.append(state[0])
        return self.heads(torch.stack(hidden))


class Actuator(nn.Module):
    """What moves a joint. The scales are buffers of the model."""

    def __init__(self):
        super().__init__()
        self.register_buffer("in_scale", torch.zeros(1, 1, 2))
        self.register_buffer("out_scale", torch.zeros(1))
        self.lstm, self.linear = nn.LSTM(2, 8, 2), nn.Linear(8, 1)

    def forward(self, x, state):
        y, state = self.lstm(x * self.in_scale, state)
        return (self.linear(y) * self.out_scale).squeeze(-1), state


class SecondLargest(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(1, 22, nonlinearity="relu", bias=False)
        self.linear = nn.Linear(22, 10, bias=False)

    def forward(self, x):
        return self.linear(self.rnn(x)[1][-1])


class Under(nn.Module):
    """A module under a name."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


class Parser(nn.Module):
    """The two recurrent parts of a parser, of which the reference has the results, among its other layers."""

    def __init__(self):
        super().__init__()
        self._first_action_embedding = nn.Parameter(torch.zeros(10))
        self._first_attended_utterance = nn.Parameter(torch.zeros(80))
        self._utterance_embedder = Under(token_embedder_tokens=nn.Embedding(39, 20))
        self._encoder = Under(_module=nn.LSTM(20, 40, bidirectional=True))
        self._action_embedder = nn.Embedding(300, 11)
        self._output_action_embedder = nn.Embedding(300, 10)
        self._entity_type_decoder_embedding = nn.Embedding(2, 10)
        self._transition_function = Under(
            _input_projection_layer=nn.Linear(90, 80),
            _output_projection_layer=nn.Linear(160, 10),
            _decoder_cell=nn.LSTM(80, 80, 2),
        )

    def forward(self, words, word_state, actions, action_state):
        encoded, encoder_state = self._encoder._module(words, word_state)
        decoded, decoder_state = self._transition_function._decoder_cell(actions, action_state)
        return {"encoder": (encoded, *encoder_state), "decoder": (decoded, *decoder_state)}


class Beats(nn.Module):
    """A beat tracker that keeps its state in attributes from call to call."""

    def __init__(self):
        super().__init__()
        self.conv1, self.linear0 = nn.Conv1d(1, 2, 10), nn.Linear(262, 150)
        self.lstm, self.linear = nn.LSTM(150, 150, 2, batch_first=True), nn.Linear(150, 3)
        self.hidden, self.cell = torch.zeros(2, 1, 150), torch.zeros(2, 1, 150)

    def forward(self, frames):
        x = functional.max_pool1d(self.conv1(frames.reshape(-1, 1, 272)).relu(), 2)
        x = self.linear0(x.flatten(1)).reshape(frames.shape[0], frames.shape[1], 150)
        x, (self.hidden, self.cell) = self.lstm(x, (self.hidden, self.cell))
        return self.linear(x).softmax(-1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.Wa, self.Ua = nn.Linear(64, 32, bias=False), nn.Linear(64, 32, bias=False)
        self.va = nn.Linear(32, 1, bias=False)

    def forward(self, query, keys):
        weights = self.va(torch.tanh(self.Wa(query) + self.Ua(keys))).softmax(1)
        return (weights * keys).sum(1)


class Methylation(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(21, 32, batch_first=True, bidirectional=True)
        self._att3, self.fc1 = Attention(), nn.Linear(64, 1)

    def forward(self, sites, h0):
        keys, h = self.rnn(sites, h0)
        return self.fc1(self._att3(h.transpose(0, 1).reshape(-1, 1, 64), keys))


class ReactorStep(nn.Module):
    """A plant, of which the projected state is the output. The caller keeps the state, and may replace it."""

    def __init__(self):
        super().__init__()
        self.model = nn.LSTM(2, 16, proj_size=2)

    def forward(self, u, state):
        return self.model(u, state)


class Reactor(ReactorStep):
    """The same plant simulated: for 25 steps the measured output takes the place of the hidden state."""

    def forward(self, u, measured):
        c, outputs = u.new_zeros(1, u.shape[1], 16), []
        for t in range(25):
            y, (h, c) = self.model(u[t : t + 1], (measured[t : t + 1], c))
            outputs.append(y)
        y, state = self.model(u[25:], (h, c))
        return torch.cat([*outputs, y]), state


class Letters(nn.Module):
    """The first half of a speller: the state after a word."""

    def __init__(self):
        super().__init__()
        self.enc_emb, self.enc = nn.Embedding(29, 256), nn.GRU(256, 256)

    def forward(self, letters):
        return self.enc(self.enc_emb(letters))[1][0]


class PhonemeStep(nn.Module):
    """The other half: scores of the next phoneme. The caller chooses one and calls again."""

    def __init__(self):
        super().__init__()
        self.dec_emb, self.dec, self.fc = nn.Embedding(74, 256), nn.GRU(256, 256), nn.Linear(256, 74)

    def forward(self, phoneme, state):
        y, h = self.dec(self.dec_emb(phoneme)[None], state[None])
        return self.fc(y[0]), h[0]


class Streamflow(nn.Module):
    """From the weather as it is measured, with the numbers of the scaler file and of the catchment."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 126)
        self.head = Under(net=nn.Sequential(nn.Linear(126, 1)))

    def forward(self, forcing):
        catchment = torch.tensor([316.713505221, 5.07506774], dtype=torch.float64)
        centre = torch.tensor([0.14485099911689758, 284.62091064453125, 715.0357281553398, 45.73078805825243],
                              dtype=torch.float64)  # fmt: skip
        scale = torch.tensor([0.8656719923019409, 45.76715850830078, 772.9868594812874, 46.97479379837598],
                             dtype=torch.float64)  # fmt: skip
        x = torch.cat([forcing, catchment.expand(forcing.shape[0], forcing.shape[1], 2)], 2)
        y, _ = self.lstm(((x - centre) / scale).float())
        return (self.head.net(y) * 0.18175311386585236 + 0.07877858728170395).clamp(min=0)


class Digits(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.fc = nn.RNN(28, 128, 2, batch_first=True), nn.Linear(128, 10)

    def forward(self, images):
        return self.fc(self.rnn((images / 255 - 0.5) / 0.5)[0][:, -1])


class Pedal(nn.Module):
    def __init__(self, units):
        super().__init__()
        self.rec, self.lin = nn.GRU(1, units), nn.Linear(units, 1)

    def forward(self, sound):
        return self.lin(self.rec(sound)[0]) + sound


class TwoGrus(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru, self.gru2, self.dense = nn.GRU(1, 8), nn.GRU(8, 8, 3), nn.Linear(8, 1)

    def forward(self, x):
        return self.dense(self.gru2(self.gru(x)[0])[0])


class SpeechStep(nn.Module):
    """Whether a window of sound is speech. The caller keeps the state of the cell."""

    def __init__(self):
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, stride=128, bias=False)
        self.conv1, self.conv2 = nn.Conv1d(129, 128, 3, padding=1), nn.Conv1d(128, 64, 3, 2, 1)
        self.conv3, self.conv4 = nn.Conv1d(64, 64, 3, 2, 1), nn.Conv1d(64, 128, 3, padding=1)
        self.lstm_cell, self.final_conv = nn.LSTMCell(128, 128), nn.Conv1d(128, 1, 1)

    def features(self, windows):
        spectrum = self.stft_conv(functional.pad(windows, (0, 64), mode="reflect")[:, None])
        x = (spectrum[:, :129] ** 2 + spectrum[:, 129:] ** 2).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = layer(x).relu()
        return x.squeeze(-1)

    def score(self, h):
        return self.final_conv(h.relu()[..., None]).sigmoid()[:, 0, 0]

    def forward(self, window, state):
        h, c = self.lstm_cell(self.features(window), (state[0], state[1]))
        return self.score(h), torch.stack([h, c])


class Speech(SpeechStep):
    """The same over recordings, cut into windows here: 512 new samples each, after 64 of the one before."""

    def forward(self, sound):
        windows = sound.unfold(1, 576, 512)
        features = self.features(windows.flatten(0, 1)).unflatten(0, windows.shape[:2])
        state, scores = None, []
        for x in features.unbind(1):
            state = self.lstm_cell(x, state)
            scores.append(self.score(state[0]))
        return torch.stack(scores, 1)


# ---------------------------------------------------------------- weights


def read_torch(path):
    """A state dict as torch reads it, without the prefix of DataParallel."""
    content = torch.load(path, map_location="cpu", weights_only=True)
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def read_script(path):
    return torch.jit.load(path, map_location="cpu").state_dict()


def read_safetensors(path):
    from safetensors.torch import load_file

    return load_file(path)


def read_json(path):
    content = json.loads(path.read_text())
    return {name: torch.tensor(value) for name, value in content.get("state_dict", content).items()}


def read_speller(path):
    """An .npz, whose names are not torch's."""
    names = {
        f"{part}_{short}": f"{part}.{long}_l0"
        for part in ("enc", "dec")
        for short, long in (
            ("w_ih", "weight_ih"),
            ("w_hh", "weight_hh"),
            ("b_ih", "bias_ih"),
            ("b_hh", "bias_hh"),
        )
    }
    names |= {
        "enc_emb": "enc_emb.weight",
        "dec_emb": "dec_emb.weight",
        "fc_w": "fc.weight",
        "fc_b": "fc.bias",
    }
    with np.load(path) as arrays:
        return {names[name]: torch.from_numpy(arrays[name]) for name in arrays}


def loaded(module, state_dict, strict=True):
    """A module with a state dict. If not ``strict``, the module may be a part of the model."""
    found = module.load_state_dict(state_dict, strict=strict)
    assert not found.missing_keys
    return module.eval()
