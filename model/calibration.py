"""Calibration: the last, tiny layer of each task, which maps logits so that probabilities match observed rates.

It is fitted after training on held-out rows (`training.trainer.calibration`) and stored in the network as buffers, so
that checkpoints and exported graphs contain it and no gradient changes it. Each map is strictly increasing: it changes
probabilities, but not the order of rows.
"""

import math
from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contract.tasks import Task

PARAMETERS: Final = {
    "binary": ("low", "high", "shift"),
    "graded": ("low", "high", "shift"),
    "multiclass": ("sharpness",),
    "regression": ("slope", "offset"),
}
IDENTITY: Final = {"low": 1.0, "high": 1.0, "shift": 0.0, "sharpness": 1.0, "slope": 1.0, "offset": 0.0}
SLOPE_MIN: Final = 0.05  # every slope is at least this, so that two scores stay apart


class Calibrator(nn.Module):
    """The map of one task's logits, initially the identity.

    Binary and graded (beta calibration, Kull et al. 2017): low · log p - high · log (1 - p) + shift, where p is the
    sigmoid of the logit; with low = high it is Platt scaling. Multiclass (Guo et al. 2017): all logits times one
    sharpness, the inverse of a temperature. Regression: slope · z + offset, where z is the standardised value.
    `negative_rate`: see `contract.tasks`.
    """

    values: Tensor

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.names = PARAMETERS[task.kind]
        self.log_negative_rate = math.log(task.negative_rate)
        self.register_buffer("values", torch.tensor([IDENTITY[name] for name in self.names], dtype=torch.float32))

    def forward(self, logit: Tensor, *, sampled: bool = False) -> Tensor:
        """Calibrated logits (N,), or (N, classes).

        `sampled`: for rows as the examples have them, where negatives may be sampled. Otherwise sampling is corrected:
        p / (p + (1 - p) / rate), which is a shift of the logit (He et al. 2014).
        """
        if len(self.names) == 3:
            low, high, shift = self.values
            logit = high * F.softplus(logit) - low * F.softplus(-logit) + shift
        elif len(self.names) == 2:
            slope, offset = self.values
            logit = slope * logit + offset
        else:
            logit = logit * self.values
        return logit if sampled or not self.log_negative_rate else logit + self.log_negative_rate

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load the values; networks of former versions have none for regressions, which means the identity."""
        if not state_dict.get(f"{prefix}values", self.values).numel():
            state_dict[f"{prefix}values"] = torch.tensor([IDENTITY[name] for name in self.names])
        super()._load_from_state_dict(state_dict, prefix, *args)

    @torch.no_grad()
    def set_values(self, values: Sequence[float]) -> None:
        """Set the fitted parameters, in the order of `names`."""
        self.values.copy_(torch.tensor(values, dtype=torch.float32))

    def to_dict(self) -> dict[str, float]:
        """The parameters by name, for reports."""
        return {name: float(value) for name, value in zip(self.names, self.values, strict=True)}
