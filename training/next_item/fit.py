"""Learns the next-item part of a bundle from interactions: neighbours, item vectors, sequence network and ranker.

All of it is learned on the time before the hold-out first. The held-out cases decide which neighbours come first, how
many epochs the network takes and whether a ranker is better than the candidates' own order, which is measured on users
that the measured ranker has not seen; else the part keeps the untrained ranker, which is that order. Then tables and
network are learned from all interactions.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.arrays import Array, Integers
from contract.retrieval.item_table import ItemTable
from export.neighbours import find_popular
from model.sequence.encoder import SequenceEncoder
from model.sequence.next_item import NextItemPart
from model.sequence.ranker import NEIGHBOUR, CandidateRanker
from training.next_item.candidates import CHUNK_CASES, RankedCases, find_candidates, find_nearest, mark
from training.next_item.encoder_training import EncoderTraining, encode_users, train_encoder
from training.next_item.evaluation import as_own_order, compare_orders, is_worse, measure_order
from training.next_item.histories import Cases, History, build_cases, split_by_time
from training.next_item.item_tables import build_table, swap_sources, with_vectors
from training.next_item.ranker_training import score_pairs, train_ranker

FOLDS: Final = 5  # of the users of held-out cases; one of them selects
TEST_CASES: Final = 2_000
CASES_MIN: Final = 200
NEAREST: Final = 20
RECALL_CASES_MAX: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NextItemOptions:
    """`new_items_only`: lists never have items that the user had, so they count neither as targets.

    `report`: is called with a sentence after each step.
    """

    epochs: int = 4
    seed: int = 7
    new_items_only: bool = False
    report: Callable[[str], None] = lambda sentence: None


@dataclass(frozen=True, slots=True, kw_only=True)
class NextItemResult:
    """`reason`: a sentence that says why there is no `part`, or why its order is that of its neighbours; else empty.

    `evaluation`: of the part's order on held-out cases. `cpu_s`: time of the fit.
    """

    part: NextItemPart | None
    reason: str
    evaluation: dict[str, float]
    cpu_s: float


def fit_next_item(history: History, options: NextItemOptions) -> NextItemResult:
    """Learn the part, whose order is never worse than the candidates' own. Equal seeds give equal parts."""
    started_s = time.process_time()
    part, reason, evaluation = learn(history, options)
    return NextItemResult(
        part=part, reason=reason, evaluation=evaluation, cpu_s=round(time.process_time() - started_s, 2)
    )


def learn(history: History, options: NextItemOptions) -> tuple[NextItemPart | None, str, dict[str, float]]:
    is_held_out = split_by_time(history) if len(history) else np.zeros(0, np.bool_)
    cases = build_cases(history, is_held_out, new_items_only=options.new_items_only, seed=options.seed)
    if len(cases) < CASES_MIN:
        return None, f"Held-out interactions should give {CASES_MIN} cases to rank. Found {len(cases)}.", {}
    candidate_search = CandidateSearch(history.select(~is_held_out), cases, options)
    encoder, epochs = candidate_search.train_best_encoder()
    ranked = candidate_search.rank_cases(encoder)
    evaluation = cross_validate(ranked, candidate_search.fold, options.seed)
    options.report(f"ranker on held-out cases: {evaluation}")
    ranker = train_ranker(ranked.take(candidate_search.training), ranked.take(candidate_search.selection), options.seed)
    reason = ""
    if ranker is None:
        reason = "A ranker should order held-out candidates better than their sources. Found none."
    elif is_worse(evaluation):
        reason = "The ranked order should not be worse than the candidates' own. Found it worse."
    if ranker is None or reason:
        ranker, evaluation = CandidateRanker().eval(), as_own_order(evaluation)
    return refit(history, candidate_search, ranker, epochs, evaluation), reason, evaluation


def cross_validate(cases: RankedCases, fold: Integers, seed: int) -> dict[str, float]:
    """The metrics of rankers that were trained without the users on whom they are measured; `fold` (C,) of each case.

    All folds are measured in turn until there are `TEST_CASES`, since few cases say little.
    """
    tested, scores = list[Integers](), list[Array]()
    for number in range(FOLDS):
        test, selection = (np.flatnonzero(fold == (number + offset) % FOLDS) for offset in (0, 1))
        training = np.setdiff1d(np.arange(len(cases)), np.concatenate([test, selection]))
        ranker = train_ranker(cases.take(training), cases.take(selection), seed)
        tested.append(test)
        scores.append(score_pairs(ranker or CandidateRanker(), cases.take(test)))
        if sum(map(len, tested)) >= TEST_CASES:
            break
    return compare_orders(cases.take(np.concatenate(tested)), np.concatenate(scores))


def refit(
    history: History, search: "CandidateSearch", ranker: CandidateRanker, epochs: int, evaluation: dict[str, float]
) -> NextItemPart:
    """The part with tables and network of all interactions."""
    options = search.options
    table = build_table(history, seed=options.seed)
    table = swap_sources(table) if search.ease_first else table
    encoder = train_encoder(table.vectors, history, EncoderTraining(epochs, options.seed))
    return NextItemPart(
        items=history.names,
        table=with_vectors(table, encoder),
        popular=find_popular(history.to_interactions()),
        encoder=encoder,
        ranker=ranker,
        evaluation=evaluation,
    )


class CandidateSearch:
    """What the time before the hold-out gives, judged by held-out cases. The cases are split by user."""

    def __init__(self, before: History, cases: Cases, options: NextItemOptions) -> None:
        self.options = options
        self._before, self._cases = before, cases
        share = np.random.default_rng(options.seed).random(int(cases.user.max()) + 1)[cases.user]
        self.fold = (share * FOLDS).astype(np.int64)
        self.selection, self.training = np.flatnonzero(self.fold == 0), np.flatnonzero(self.fold > 0)
        self._popular = find_popular(before.to_interactions()).astype(np.int64)
        table = build_table(before, seed=options.seed)
        self.ease_first = self._is_ease_better(table)
        self._table = swap_sources(table) if self.ease_first else table

    def _is_ease_better(self, table: ItemTable) -> bool:
        """Whether the linear model orders the candidates of the selection better than following does."""
        if not table.other_neighbours.rows.shape[1]:
            return False
        following, ease = (self._measure_own_order(sources) for sources in (table, swap_sources(table)))
        self.options.report(f"NDCG@20 of neighbours by following {following:.4f}, by the linear model {ease:.4f}")
        return ease > following

    def _measure_own_order(self, table: ItemTable) -> float:
        users = np.zeros((len(self._cases), table.vectors.shape[1]), np.float32)
        ranked = self._find_candidates(table, users).take(self.selection)
        return float(measure_order(ranked, ranked.features[:, NEIGHBOUR])["ndcg_20"].mean())

    def train_best_encoder(self) -> tuple[SequenceEncoder, int]:
        """The network of the epoch with the highest recall in the selection, the start included, and the epoch."""
        start = train_encoder(self._table.vectors, self._before, EncoderTraining(0, self.options.seed))
        recalls = {0: self._measure_recall(start)}
        states = {0: start.state_dict()}

        def on_epoch(epoch: int, encoder: SequenceEncoder) -> None:
            recalls[epoch] = self._measure_recall(encoder)
            self.options.report(
                f"recall@20 by vector after epoch {epoch}: {recalls[epoch]:.4f}, at first {recalls[0]:.4f}"
            )
            if recalls[epoch] >= max(recalls.values()):
                states.clear()
                states[epoch] = {name: value.clone() for name, value in encoder.state_dict().items()}

        train_encoder(
            self._table.vectors, self._before, EncoderTraining(self.options.epochs, self.options.seed, on_epoch)
        )
        ((epoch, state),) = states.items()
        start.load_state_dict(state)
        return start.eval(), epoch

    def _measure_recall(self, encoder: SequenceEncoder) -> float:
        vectors, recalls = with_vectors(self._table, encoder).vectors, list[float]()
        for begin in range(0, min(len(self.selection), RECALL_CASES_MAX), CHUNK_CASES):
            cases = self._cases.take(self.selection[begin : begin + CHUNK_CASES])
            is_excluded = mark(cases.excluded, cases.excluded_starts, len(vectors))
            nearest = find_nearest(vectors, encode_users(encoder, cases), is_excluded)[:, :NEAREST]
            is_target = mark(cases.targets, cases.starts, len(vectors))
            hits = np.take_along_axis(is_target, np.maximum(nearest, 0), 1) & (nearest >= 0)
            recalls += (hits.sum(1) / np.diff(cases.starts)).tolist()
        return float(np.mean(recalls)) if recalls else 0.0

    def rank_cases(self, encoder: SequenceEncoder) -> RankedCases:
        """All cases with the candidates and features that this network gives."""
        return self._find_candidates(with_vectors(self._table, encoder), encode_users(encoder, self._cases))

    def _find_candidates(self, table: ItemTable, users: npt.NDArray[np.float32]) -> RankedCases:
        new_items_only = self.options.new_items_only
        return find_candidates(table, self._popular, self._cases, users, new_items_only=new_items_only)
