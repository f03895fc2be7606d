"""Position bias: items at the top of a list are clicked more often, whatever they are.

In training a learned number for each place is added to the logit of a click, so that the rest of the network need not
explain with items and users what the place explains (the shallow tower of Zhao et al. 2019; PAL, Guo et al. 2019). No
prediction reads it: predictions, calibration and graphs are of items without a place.
"""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from contract.graphs import RECOMMEND
from contract.tasks import Task

PLACES_MAX: Final = 64  # places from here on share the last number
SPEED: Final = 10.0  # the optimizer moves a bias this many times as fast: before other layers learn to stand in for it


def find_biased_tasks(tasks: Sequence[Task]) -> list[Task]:
    """The tasks of lists with a bias of their own; those that go through another have that of the other."""
    return [task for task in tasks if task.graph == RECOMMEND.name and task.kind == "binary" and task.through is None]


class PositionBias(nn.Module):
    """Logits (N,) or (N, k) and places (N,), -1 for unknown ones, which change nothing -> logits."""

    def __init__(self) -> None:
        super().__init__()
        self.by_place = nn.Parameter(torch.zeros(PLACES_MAX))

    def forward(self, logits: Tensor, place: Tensor) -> Tensor:
        bias = SPEED * self.by_place[place.clamp(0, PLACES_MAX - 1)] * (place >= 0)  # (N,)
        return logits + bias.reshape(-1, *(1,) * (logits.dim() - 1))
