"""Small modules that keep their states as attributes."""

from __future__ import annotations

from collections import deque

import torch
from export_case import Case, collector
from loops_to_export import BATCH_FIRST
from torch import Tensor, nn

CASES: dict[str, Case] = {}
case = collector(CASES)


class Caching(nn.Module):
    """Caches of convolutions in a list and a deque, of tensors that each call replaces."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.cell = nn.Conv1d(6, 6, 3), nn.GRUCell(6, 8)
        self.cache, self.past = [torch.zeros(2, 6, 2)], deque([torch.zeros(2, 8)] * 2, maxlen=2)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.cache[0], x.transpose(1, 2)], dim=2)
        self.cache[0] = joined[:, :, -2:]
        y = self.conv(joined).mean(2)
        h = self.cell(y, self.past[0])
        self.past.append(h)
        return h


case(
    "caching", inputs=lambda T: (torch.randn(2, T, 6),), sizes={"T": 5}, other={"T": 8}, dynamic=({1: "T"},)
)(Caching)


class Resetting(nn.Module):
    """The state is an attribute that is made anew in every call."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.hidden = nn.LSTM(6, 8, batch_first=True), None

    def forward(self, x: Tensor) -> Tensor:
        self.hidden = (torch.zeros(1, x.size(0), 8), torch.zeros(1, x.size(0), 8))
        y, self.hidden = self.lstm(x, self.hidden)
        return y


case("resetting", **BATCH_FIRST)(Resetting)
