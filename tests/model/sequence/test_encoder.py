"""`model.sequence`: what the vector of a user depends on."""

import numpy as np
import pytest
import torch
from torch import Tensor

from model.sequence.encoder import LatestUserEncoder, SequenceEncoder
from model.sequence.ranker import NEIGHBOUR, NEIGHBOUR_SCALE, CandidateRanker

ITEMS, WIDTH, LENGTH = 20, 8, 6


@pytest.fixture
def encoder(seed: int) -> SequenceEncoder:
    torch.manual_seed(seed)
    encoder = SequenceEncoder(np.random.default_rng(seed).standard_normal((ITEMS, WIDTH)).astype(np.float32)).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
        encoder.items.weight[0] = 0
    return encoder


def draw_history(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    ages = np.sort(rng.exponential(5.0, (3, LENGTH)), axis=1).astype(np.float32)
    return (
        torch.from_numpy(rng.integers(1, ITEMS + 1, (3, LENGTH))),
        torch.from_numpy(rng.integers(1, 4, (3, LENGTH))),
        torch.from_numpy(ages),
    )


def test_the_vector_of_a_time_is_that_of_the_history_until_then(encoder: SequenceEncoder, seed: int) -> None:
    rows, actions, ages = draw_history(seed)
    vectors = encoder(rows, actions, ages)
    for position in range(LENGTH):
        earlier = rows[:, position:], actions[:, position:], ages[:, position:]
        torch.testing.assert_close(LatestUserEncoder(encoder)(*earlier), vectors[:, position], atol=1e-5, rtol=1e-5)


def test_padding_changes_no_vector(encoder: SequenceEncoder, seed: int) -> None:
    rows, actions, ages = draw_history(seed)
    padded = [torch.nn.functional.pad(array, (0, 4)) for array in (rows, actions, ages)]
    graph = LatestUserEncoder(encoder)
    torch.testing.assert_close(graph(*padded), graph(rows, actions, ages), atol=1e-5, rtol=1e-5)


def test_an_untrained_ranker_orders_as_the_neighbours_do() -> None:
    features = torch.randn(50, CandidateRanker().mean.shape[0])
    scores = CandidateRanker().eval()(features)
    torch.testing.assert_close(scores, NEIGHBOUR_SCALE * features[:, NEIGHBOUR])
