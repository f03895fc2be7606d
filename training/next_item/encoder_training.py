"""Trains the sequence network: at each position of each history, the next item among all items."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contract.arrays import Integers
from contract.retrieval.features import HISTORY_MAX
from contract.units import DAY_MS
from model.sequence.encoder import LatestUserEncoder, SequenceEncoder
from training.next_item.histories import Cases, History, weigh_actions
from training.next_item.sampled_softmax import NegativeSampler, compute_loss

LEARNING_RATE: Final = 2e-3
BATCH_STEPS: Final = 2_048  # positions with a next item in one training step
ITEMS_FULL: Final = 16_000  # up to as many items all are negatives
DRAWS: Final = 2_048
WARMUP_STEPS: Final = 200
WARMUP_SHARE: Final = 0.05
RATE_MIN: Final = 0.02
ENCODE_ROWS: Final = 1_000


class EncoderTraining(NamedTuple):
    """`on_epoch` is called after each epoch, with the network in evaluation mode."""

    epochs: int
    seed: int
    on_epoch: Callable[[int, SequenceEncoder], None] = lambda epoch, encoder: None


class Windows(NamedTuple):
    """A batch, newest first: rows (N, L) plus 1, actions and ages (N, L), and next rows (N, L), -1 for none."""

    rows: Tensor
    actions: Tensor
    ages: Tensor
    next_rows: Tensor
    weights: Tensor


def train_encoder(vectors: npt.NDArray[np.float32], history: History, training: EncoderTraining) -> SequenceEncoder:
    """The network that starts from these item vectors (M, d), trained on the histories. Equal seeds, equal weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        encoder = SequenceEncoder(vectors)
        run_epochs(encoder, history, training)
    return encoder.eval()


def run_epochs(encoder: SequenceEncoder, history: History, training: EncoderTraining) -> None:
    rng = np.random.default_rng(training.seed)
    counts = history.count_items()
    sampler = NegativeSampler(counts, DRAWS) if len(counts) > ITEMS_FULL else None
    optimizer = torch.optim.Adam(encoder.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98))
    steps_total = max(1, sum(1 for _ in group_windows(history, np.random.default_rng(training.seed)))) * training.epochs
    step = 0
    for epoch in range(1, training.epochs + 1):
        encoder.train()
        for windows in iterate_windows(history, rng):
            warmup = min(1.0, (step + 1) / min(WARMUP_STEPS, WARMUP_SHARE * steps_total + 1))
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * warmup * max(RATE_MIN, 1 - step / steps_total)
            optimizer.zero_grad(set_to_none=True)
            measure_loss(encoder, windows, sampler, rng).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            step += 1
        training.on_epoch(epoch, encoder.eval())


def measure_loss(
    encoder: SequenceEncoder, windows: Windows, sampler: NegativeSampler | None, rng: np.random.Generator
) -> Tensor:
    """The mean loss () of the next items of a batch."""
    has_next = windows.next_rows >= 0
    users = encoder(windows.rows, windows.actions, windows.ages)[has_next]
    target_rows, weights = windows.next_rows[has_next], windows.weights[has_next]
    if sampler is None:
        negatives = encoder.item_vectors()
        return compute_loss(users, negatives[target_rows], negatives, target_rows, weights, None)
    sample = sampler.sample(rng)
    targets, negatives = encoder.item_vectors(target_rows + 1), encoder.item_vectors(sample.rows + 1)
    return compute_loss(users, targets, negatives, target_rows, weights, sample)


def iterate_windows(history: History, rng: np.random.Generator) -> Iterator[Windows]:
    """One epoch of batches. Interactions at the same time come in a new order in each epoch."""
    shuffled = history.select(np.lexsort((rng.random(len(history)), history.ts_ms, history.user)))
    for begins, ends in group_windows(shuffled, rng):
        yield build_windows(shuffled, begins, ends)


def group_windows(history: History, rng: np.random.Generator) -> Iterator[tuple[Integers, Integers]]:
    """Begins and ends of windows of similar length, in groups of about `BATCH_STEPS` steps, in random order.

    A window is a user's history, or a part of one that is longer than `HISTORY_MAX`, at a random offset.
    """
    begins, ends = list[int](), list[int]()
    bounds = np.append(np.flatnonzero(np.append(True, np.diff(history.user) != 0)), len(history)).tolist()
    for begin, end in pairwise(bounds):
        offset = int(rng.integers(HISTORY_MAX)) if end - begin > HISTORY_MAX + 1 else 0
        for start in range(begin - offset, end - 1, HISTORY_MAX):
            first, last = max(start, begin), min(start + HISTORY_MAX + 1, end)
            if last - first > 1:
                begins.append(first)
                ends.append(last)
    lengths = np.array(ends, np.int64) - np.array(begins, np.int64)
    order = np.argsort(lengths + 2 * rng.random(len(lengths)), kind="stable")
    groups = np.cumsum(lengths[order] - 1) // BATCH_STEPS
    parts = np.split(order, np.flatnonzero(np.diff(groups)) + 1) if len(order) else []
    for number in rng.permutation(len(parts)).tolist():
        yield np.array(begins, np.int64)[parts[number]], np.array(ends, np.int64)[parts[number]]


def build_windows(history: History, begins: Integers, ends: Integers) -> Windows:
    """The batch of these windows: the last item of each is only a target."""
    length = int((ends - begins).max()) - 1
    position = (ends - 2)[:, None] - np.arange(length)[None, :]  # newest first
    is_there = position >= begins[:, None]
    row = np.where(is_there, position, 0)
    newest_ms = history.ts_ms[ends - 2][:, None]
    arrays = (
        np.where(is_there, history.item[row] + 1, 0),
        np.where(is_there, history.action[row], 0).astype(np.int64),
        np.where(is_there, (newest_ms - history.ts_ms[row]) / DAY_MS, 0).astype(np.float32),
        np.where(is_there, history.item[row + 1], -1),
        weigh_actions(history.action[row + 1]),
    )
    return Windows(*map(torch.from_numpy, arrays))


@torch.no_grad()
def encode_users(encoder: SequenceEncoder, cases: Cases) -> npt.NDArray[np.float32]:
    """The vectors (C, d) of the users of cases, as the graph `sequence` gives them."""
    graph, vectors = LatestUserEncoder(encoder), [np.zeros((0, encoder.items.embedding_dim), np.float32)]
    for begin in range(0, len(cases), ENCODE_ROWS):
        part = slice(begin, begin + ENCODE_ROWS)
        inputs = cases.rows[part] + 1, cases.actions[part], cases.ages[part]
        vectors.append(graph(*map(torch.from_numpy, inputs)).numpy())
    return np.concatenate(vectors)
