"""`training.next_item.sampled_softmax` against torch's cross entropy, and the correction of the sample."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from contract.retrieval.features import TEMPERATURE
from training.next_item.sampled_softmax import NegativeSampler, SampledSoftmax

USERS, ITEMS, WIDTH = 300, 40, 16  # more users than one chunk


@pytest.mark.parametrize(("precision", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_loss_and_gradient_equal_those_of_cross_entropy(precision: torch.dtype, tolerance: float) -> None:
    # given
    torch.manual_seed(5)
    users = F.normalize(torch.randn(USERS, WIDTH), dim=1).requires_grad_()
    items = F.normalize(torch.randn(ITEMS, WIDTH), dim=1).requires_grad_()
    targets, weights = torch.randint(0, ITEMS, (USERS,)), torch.randint(1, 4, (USERS,)).float()
    # when
    loss = SampledSoftmax.apply(users, items[targets], items, targets, None, weights, precision)
    actual = torch.autograd.grad(loss, (users, items))
    # then
    losses = F.cross_entropy(users @ items.T / TEMPERATURE, targets, reduction="none")
    plain = (losses * weights).sum() / weights.sum()
    expected = torch.autograd.grad(plain, (users, items))
    assert abs(loss.item() - plain.item()) < tolerance * plain.item()
    for gradient, other in zip(actual, expected, strict=True):
        assert (gradient - other).norm() < tolerance * other.norm()


def test_the_corrected_sample_estimates_the_normaliser_without_bias() -> None:
    # given
    rng = np.random.default_rng(11)
    counts, exponentials = rng.integers(0, 500, 30) ** 2 // 500, np.exp(rng.standard_normal(30))
    sampler = NegativeSampler(counts, draws=12)
    # when
    estimates, uncorrected = [], []
    for _ in range(6_000):
        sample = sampler.sample(rng)
        rows, log_probability = sample.rows.numpy(), sample.log_probability.numpy()
        estimates.append(np.exp(np.log(exponentials[rows]) - log_probability).sum())
        uncorrected.append(exponentials[rows].sum() * len(counts) / len(rows))
    # then
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - exponentials.sum()) < 4 * error
    assert abs(np.mean(uncorrected) - exponentials.sum()) > 4 * error


def test_a_target_in_the_sample_counts_once() -> None:
    users, items = torch.eye(4)[:1], torch.eye(4)
    column = torch.tensor([0])
    loss = SampledSoftmax.apply(users, items[:1], items, column, None, torch.ones(1), torch.float32)
    expected = F.cross_entropy(users @ items.T / TEMPERATURE, column)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
