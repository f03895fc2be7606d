"""The sequence network: a user's latest interactions in, a vector out that is close to those of likely next items.

One block of causal self-attention over the items (SASRec, Kang and McAuley 2018). The user's vector is a weighted sum
of the very item vectors that it is compared with (CORE, Hou et al. 2022), plus a linear part that starts at zero, so an
untrained network with good item vectors is a good start. Items are newest first; position i sees i and older ones.
"""

import math
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contract.retrieval.features import HISTORY_MAX

HEADS: Final = 2
DROPOUT: Final = 0.3
ITEM_DROPOUT: Final = 0.2
ACTIONS: Final = 4  # none, click, cart, order
DAYS_MAX: Final = 1e4
HIDDEN: Final = -1e9  # the attention score of a position that is not seen


class SequenceEncoder(nn.Module):
    """`items` (M, d): the vectors to start from."""

    def __init__(self, items: npt.NDArray[np.float32]) -> None:
        super().__init__()
        count, width = items.shape
        self.items = nn.Embedding(count + 1, width, padding_idx=0)  # row 0 is no item
        with torch.no_grad():
            self.items.weight[1:] = torch.from_numpy(items)
        self.actions = nn.Embedding(ACTIONS, width, padding_idx=0)
        nn.init.zeros_(self.actions.weight)
        self.input_norm, self.hidden_norm, self.output_norm = (nn.LayerNorm(width) for _ in range(3))
        self.attention, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.residual = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.residual.weight)
        self.distance_bias = nn.Parameter(torch.zeros(HEADS, HISTORY_MAX))
        self.pooling_bias = nn.Parameter(-torch.log(torch.arange(1, HISTORY_MAX + 1.0)))
        self.age_bias = nn.Parameter(torch.zeros(()))
        self.dropout, self.item_dropout = nn.Dropout(DROPOUT), nn.Dropout(ITEM_DROPOUT)

    def item_vectors(self, rows: Tensor | None = None) -> Tensor:
        """The unit vectors (M, d) of all items, or of some by their row in the table plus 1."""
        weight = self.items.weight[1:] if rows is None else self.items(rows)
        return F.normalize(self.item_dropout(weight), dim=-1)

    def forward(self, rows: Tensor, actions: Tensor, ages: Tensor) -> Tensor:
        """Vectors (N, L, d): at each position those of the user as they were then.

        rows, actions (N, L) int64 and ages (N, L) in days, as `contract.bundle` has them.
        """
        embedded = self.item_dropout(F.normalize(self.items(rows), dim=-1))
        distance, visible = self.compare_positions(rows)
        hidden = self.attend(embedded + self.actions(actions), distance, visible)
        scores = self.query(hidden) @ self.key(hidden).transpose(1, 2) / math.sqrt(hidden.shape[-1])
        days_before = (ages[:, None, :] - ages[:, :, None]).clamp(0, DAYS_MAX)
        scores = scores + self.pooling_bias[distance] - self.age_bias * torch.log1p(days_before)
        pooled = scores.masked_fill(~visible, HIDDEN).softmax(-1) @ embedded
        return F.normalize(pooled + self.residual(self.dropout(hidden)), dim=-1)

    def compare_positions(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """How many positions back each one is (L, L), and whether it is seen (N, L, L); each one sees itself."""
        position = torch.cumsum(torch.ones_like(rows[0]), 0) - 1
        back = position[None, :] - position[:, None]
        visible = (back >= 0)[None] & (rows > 0)[:, None, :] | (back == 0)[None]
        return back.clamp(0, HISTORY_MAX - 1), visible

    def attend(self, embedded: Tensor, distance: Tensor, visible: Tensor) -> Tensor:
        """The block of self-attention, pre-norm: (N, L, d) -> (N, L, d)."""
        length, width = embedded.shape[1:]
        parts = self.attention(self.input_norm(embedded)).reshape(-1, length, 3, HEADS, width // HEADS)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (N, HEADS, L, d / HEADS)
        scores = query @ key.transpose(2, 3) / math.sqrt(width // HEADS) + self.distance_bias[:, distance]
        mixed = scores.masked_fill(~visible[:, None], HIDDEN).softmax(-1) @ value
        hidden = self.input_norm(embedded) + self.dropout(self.projection(mixed.transpose(1, 2).flatten(2)))
        hidden = hidden + self.dropout(self.narrow(F.gelu(self.wide(self.hidden_norm(hidden)))))
        normalised: Tensor = self.output_norm(hidden)
        return normalised


class LatestUserEncoder(nn.Module):
    """The graph `sequence`: the vector (N, d) of each user now. Actions and rows outside the tables count as none."""

    def __init__(self, encoder: SequenceEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, rows: Tensor, actions: Tensor, ages: Tensor) -> Tensor:
        known = torch.where((rows > 0) & (rows < self.encoder.items.num_embeddings), rows, 0)
        usual = torch.where((actions > 0) & (actions < ACTIONS), actions, 0)
        vectors: Tensor = self.encoder(known, usual, torch.nan_to_num(ages, nan=0.0, posinf=DAYS_MAX, neginf=0.0))
        return vectors[:, 0]
