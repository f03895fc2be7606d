"""From a task's logits to logits whose probabilities are those that happen: the last, tiny layer of each task.

It is fitted after learning on rows that taught nothing (`training.trainer.calibration`) and stands in the network as buffers, so
a checkpoint carries it, every exported graph computes it, and no gradient moves it. Each map rises strictly: it changes
what a score says and never which of two rows has the higher one.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contract.tasks import Task

PARAMETERS: Final = {
    "binary": ("low", "high", "shift"),
    "graded": ("low", "high", "shift"),
    "multiclass": ("sharpness",),
    "regression": (),
}
IDENTITY: Final = {"low": 1.0, "high": 1.0, "shift": 0.0, "sharpness": 1.0}
SLOPE_MIN: Final = 0.05  # every slope is at least this, so that two scores stay apart


class Calibrator(nn.Module):
    """The map of one task's logits; at first it leaves them as they are.

    Binary and graded (beta calibration, Kull et al. 2017): low · log p - high · log (1 - p) + shift, where p is what
    the logit says; with low = high it is Platt's. Of classes (Guo et al. 2017): all logits times one sharpness. A
    regression has none. `negative_rate`: see `contract.tasks`.
    """

    values: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.names = PARAMETERS[task.kind]
        self.log_negative_rate = math.log(task.negative_rate)
        self.register_buffer("values", torch.tensor([IDENTITY[name] for name in self.names], dtype=torch.float32))

    def forward(self, logit: Tensor, *, sampled: bool = False) -> Tensor:
        """Logits (N,), or (N, classes), as calibrated ones.

        `sampled`: of rows as the examples have them, where negatives may be rarer than in life. Otherwise that is put
        right: p / (p + (1 - p) / rate), which is a shift of the logit (He et al. 2014).
        """
        if len(self.names) == 3:
            low, high, shift = self.values
            logit = high * F.softplus(logit) - low * F.softplus(-logit) + shift
        elif self.names:
            logit = logit * self.values
        return logit if sampled or not self.log_negative_rate else logit + self.log_negative_rate

    @torch.no_grad()
    def set_values(self, values: Sequence[float]) -> None:
        """Take up what was fitted, in the order of `names`."""
        self.values.copy_(torch.tensor(values, dtype=torch.float32))

    def to_dict(self) -> dict[str, float]:
        """What it does, for people."""
        return {name: float(value) for name, value in zip(self.names, self.values, strict=True)}
