"""The ranker of candidates: the strength of their neighbours, corrected by a small network of all features.

The correction starts at zero (residual learning, He et al. 2016), so the untrained ranker has the candidates' own
order, and training can only be kept where it improves on that.
"""

from typing import Final

import torch
from torch import Tensor, nn

from contract.retrieval.features import FEATURES

HIDDEN_WIDTH: Final = 32
DROPOUT: Final = 0.1
NEIGHBOUR: Final = FEATURES.index("neighbour")
NEIGHBOUR_SCALE: Final = 3.0  # from the feature back to the log strength


class CandidateRanker(nn.Module):
    """Features (…, F) -> scores (…), which order the candidates of a user. Features are standardised inside."""

    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        count = len(FEATURES)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.correction = nn.Sequential(
            nn.Linear(count, HIDDEN_WIDTH),
            nn.GELU(),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN_WIDTH, HIDDEN_WIDTH),
            nn.GELU(),
            nn.Linear(HIDDEN_WIDTH, 1),
        )
        for parameter in self.correction[-1].parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("mean", torch.zeros(count))
        self.register_buffer("deviation", torch.ones(count))

    def forward(self, features: Tensor) -> Tensor:
        correction: Tensor = self.correction((features - self.mean) / self.deviation).squeeze(-1)
        return self.scale * NEIGHBOUR_SCALE * features[..., NEIGHBOUR] + correction
