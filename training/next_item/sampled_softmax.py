"""The loss of the next item among all items, or among a sample of them, with its gradient in one pass.

A sample of negatives is corrected by the logarithm of each one's probability to be in it, so that the normaliser of the
softmax, and with it the gradient, has no bias by how items are sampled (Bengio and Senécal 2008; Yi et al. 2019). The
target itself is always there and takes no correction. Products of chunks of rows replace the matrix of all logits,
which would be the largest array of training by far.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from contract.arrays import Integers
from contract.retrieval.features import TEMPERATURE

CHUNK_ROWS: Final = 128
EXCLUDED: Final = -1e9
POPULARITY_POWER: Final = 0.75  # half of the negatives are sampled by count to this power, half evenly


class Negatives(NamedTuple):
    """Sampled items (S,), ascending and distinct, and the log probability of each to be in the sample (S,)."""

    rows: Tensor
    log_probability: Tensor


class NegativeSampler:
    """Samples items by a mixture of their popularity and the even distribution. `counts` (M,)."""

    def __init__(self, counts: Integers, draws: int) -> None:
        popularity = counts.astype(np.float64) ** POPULARITY_POWER
        share = 0.5 * popularity / max(popularity.sum(), 1.0) + 0.5 / len(counts)
        self._cumulative, self._draws = np.cumsum(share / share.sum()), draws
        # Of being drawn at least once. An item in the sample counts once, however often it was drawn.
        self._log_probability = np.log(-np.expm1(draws * np.log1p(-np.minimum(share, 1 - 1e-12))))

    def sample(self, rng: np.random.Generator) -> Negatives:
        drawn = np.searchsorted(self._cumulative, rng.random(self._draws))
        rows = np.unique(np.minimum(drawn, len(self._cumulative) - 1))
        return Negatives(torch.from_numpy(rows), torch.from_numpy(self._log_probability[rows].astype(np.float32)))


def compute_loss(
    users: Tensor, targets: Tensor, negatives: Tensor, target_rows: Tensor, weights: Tensor, sample: Negatives | None
) -> Tensor:
    """The mean loss (), weighted: -log of the softmax of each user's target.

    users, targets (P, d): unit vectors. negatives (S, d): of the sample, or of all items if there is none.
    target_rows (P,): the rows of the targets. weights (P,).
    """
    if sample is None:
        column, log_probability = target_rows, None
    else:
        column = torch.searchsorted(sample.rows, target_rows).clamp(max=len(sample.rows) - 1)
        column = torch.where(sample.rows[column] == target_rows, column, -1)
        log_probability = sample.log_probability
    arrays = users, targets, negatives, column, log_probability, weights
    loss: Tensor = SampledSoftmax.apply(*arrays, torch.bfloat16)
    return loss


class SampledSoftmax(torch.autograd.Function):
    """-log of the target's share in exp(similarity / temperature) of the target and the negatives, weighted mean.

    `column` (P,): the target's column among the negatives, which is left out, or -1. `log_probability` (S,): of each
    negative to be sampled, None if all are there. `precision`: of the large products.
    """

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        targets: Tensor,
        negatives: Tensor,
        column: Tensor,
        log_probability: Tensor | None,
        weights: Tensor,
        precision: torch.dtype,
    ) -> Tensor:
        user_gradient, target_gradient = torch.empty_like(users), torch.empty_like(targets)
        negative_gradient, loss = torch.zeros_like(negatives), users.new_zeros(())
        rounded = negatives.to(precision)
        scaled = (rounded / TEMPERATURE).T.contiguous()
        shares = weights / weights.sum()
        for begin in range(0, len(users), CHUNK_ROWS):
            part = slice(begin, begin + CHUNK_ROWS)
            user, target, share = users[part], targets[part], shares[part]
            logits = (user.to(precision) @ scaled).float()
            if log_probability is not None:
                logits -= log_probability
            is_sampled = torch.nonzero(column[part] >= 0).squeeze(1)
            logits[is_sampled, column[part][is_sampled]] = EXCLUDED
            positive = (user * target).sum(1) / TEMPERATURE
            highest = torch.maximum(logits.amax(1), positive)
            exponentials = logits.sub_(highest[:, None]).exp_()
            positive_exponential = (positive - highest).exp()
            total = exponentials.sum(1) + positive_exponential
            loss += (share * (torch.log(total) + highest - positive)).sum()
            pull = exponentials.mul_((share / (total * TEMPERATURE))[:, None]).to(precision)
            push = ((positive_exponential / total - 1) * share / TEMPERATURE)[:, None]
            user_gradient[part] = (pull @ rounded).float() + push * target
            target_gradient[part] = push * user
            negative_gradient += (pull.T @ user.to(precision)).float()
        ctx.save_for_backward(user_gradient, target_gradient, negative_gradient)
        return loss

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        user_gradient, target_gradient, negative_gradient = ctx.saved_tensors
        return (
            gradient * user_gradient,
            gradient * target_gradient,
            gradient * negative_gradient,
            None,
            None,
            None,
            None,
        )
