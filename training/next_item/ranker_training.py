"""Trains the ranker on held-out cases: a softmax over the candidates of each (ListNet, Cao et al. 2007).

The epoch with the lowest loss on cases of other users is kept. The untrained ranker, which is the candidates' own
order, is one of those that are compared.
"""

import copy
from typing import Final

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from contract.arrays import Array, Integers
from model.sequence.ranker import CandidateRanker
from training.next_item.candidates import RankedCases
from training.next_item.evaluation import measure_order

EPOCHS: Final = 12
LEARNING_RATE: Final = 3e-3
RATE_MIN: Final = 0.02
WEIGHT_DECAY: Final = 0.01
BATCH_CASES: Final = 128
STANDARD_PAIRS: Final = 400_000  # pairs from which means and deviations of features are taken


def train_ranker(training: RankedCases, selection: RankedCases, seed: int) -> CandidateRanker | None:
    """The best ranker by the selection, None if that is the start. Equal seeds give equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ranker = CandidateRanker()
        sample = training.features[:STANDARD_PAIRS]
        if len(sample):
            ranker.mean.copy_(torch.from_numpy(sample.mean(0)))
            ranker.deviation.copy_(torch.from_numpy(sample.std(0) + 1e-3))
        return select_epoch(ranker, training, selection, np.random.default_rng(seed))


def select_epoch(
    ranker: CandidateRanker, training: RankedCases, selection: RankedCases, rng: np.random.Generator
) -> CandidateRanker | None:
    groups = [
        {"params": list(ranker.correction.parameters()), "weight_decay": WEIGHT_DECAY},
        {"params": [ranker.scale], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    learnable = find_learnable(training)
    steps, step = EPOCHS * -(-len(learnable) // BATCH_CASES), 0
    start_quality, lowest = measure_ndcg(ranker, selection), measure_loss(ranker, selection)
    best: CandidateRanker | None = None
    for _ in range(EPOCHS):
        shuffled = rng.permutation(learnable)
        ranker.train()
        for begin in range(0, len(shuffled), BATCH_CASES):
            for group in optimizer.param_groups:
                group["lr"] = LEARNING_RATE * max(RATE_MIN, 1 - step / steps)
            optimizer.zero_grad(set_to_none=True)
            compute_loss(ranker, training, shuffled[begin : begin + BATCH_CASES]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
        loss = measure_loss(ranker, selection)
        if loss < lowest and measure_ndcg(ranker, selection) >= start_quality:
            best, lowest = copy.deepcopy(ranker).eval(), loss
    return best


def find_learnable(cases: RankedCases) -> Integers:
    """The cases with a target among their candidates."""
    case = np.repeat(np.arange(len(cases)), np.diff(cases.starts))
    return np.unique(case[cases.weights > 0])


def compute_loss(ranker: CandidateRanker, cases: RankedCases, chosen: Integers) -> Tensor:
    """The mean loss () of chosen cases: -log of the softmax of the targets, weighted by their actions."""
    lengths = np.diff(cases.starts)[chosen]
    column = np.arange(lengths.max())[None, :]
    is_there = torch.from_numpy(column < lengths[:, None])
    pairs = np.minimum(cases.starts[chosen][:, None] + column, len(cases.items) - 1)
    scores = ranker(torch.from_numpy(cases.features[pairs])).masked_fill(~is_there, -1e9)
    weights = torch.from_numpy(cases.weights[pairs]) * is_there
    losses = -(F.log_softmax(scores, 1) * weights).sum(1) / weights.sum(1)
    return losses.mean()


@torch.no_grad()
def measure_loss(ranker: CandidateRanker, cases: RankedCases) -> float:
    """The mean loss of the cases with a target; without one nothing is lower."""
    ranker.eval()
    learnable = find_learnable(cases)
    if not len(learnable):
        return -np.inf
    parts = np.array_split(learnable, -(-len(learnable) // BATCH_CASES))
    return float(sum(compute_loss(ranker, cases, part).item() * len(part) for part in parts) / len(learnable))


def measure_ndcg(ranker: CandidateRanker, cases: RankedCases) -> float:
    return float(measure_order(cases, score_pairs(ranker, cases))["ndcg_20"].mean()) if len(cases) else 0.0


@torch.no_grad()
def score_pairs(ranker: CandidateRanker, cases: RankedCases) -> Array:
    """The scores (P,) of all candidates."""
    scores: Array = ranker.eval()(torch.from_numpy(cases.features)).numpy()
    return scores
