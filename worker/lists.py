"""Recommendation lists: candidates of a user, ranked by the model, as they are cached and as they are logged."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from contract.encoding import Encoder, Served
from contract.events import UserEvent
from contract.features import Block
from contract.hashing import hash_id
from contract.memory import Memory
from contract.rows import Recommendations, Recommended, Scored
from contract.settings import Lists
from contract.touches import Arrival
from worker import metrics
from worker.candidates import Candidate, Candidates
from worker.catalogue import Catalogue
from worker.runtime import Model, Scores

GROUPS = ("user", "context")


class Wish(NamedTuple):
    """A list to be made: for the user of this event, as they are after the batch, without what they just bought."""

    arrival: Arrival
    bought: frozenset[str]

    @property
    def event(self) -> UserEvent:
        assert isinstance(self.arrival.event, UserEvent)
        return self.arrival.event


class ListMaker:
    """Makes lists for many users at once: the user side once each, then all pairs in one run of the graph."""

    def __init__(self, *, lists: Lists, encoder: Encoder, catalogue: Catalogue, candidates: Candidates) -> None:
        self._lists, self._encoder, self._catalogue, self._candidates = lists, encoder, catalogue, candidates
        self._model: Model | None = None

    def serve(self, model: Model | None) -> None:
        self._model = model

    def make(self, wishes: Sequence[Wish], memory: Memory, now_ms: int) -> list[tuple[Recommendations, Scored]]:
        """A list for each wish for which there is any candidate, with the scored row that logs it."""
        events = [wish.event for wish in wishes]
        found = self._draw(wishes, memory)
        blocks = self._encoder.after(memory, events, GROUPS)
        scores = self._score(blocks, found)
        made, end = [], 0
        for n, (wish, candidates) in enumerate(zip(wishes, found, strict=True)):
            start, end = end, end + len(candidates)
            if candidates:
                own = {task: values[start:end] for task, values in scores.items()}
                recommendations = self._list(wish, candidates, own, now_ms)
                one = {group: block.take([n]) for group, block in blocks.items()}
                made.append((recommendations, self._row(wish, recommendations, one)))
        return made

    def _draw(self, wishes: Sequence[Wish], memory: Memory) -> list[list[Candidate]]:
        users, times = [f"user:{wish.event.user_id}" for wish in wishes], [wish.event.ts_ms for wish in wishes]
        _, recent = memory.look(users, times)
        neighbours = self._model.neighbours if self._model else None
        return [
            self._candidates.of(links, wish.bought, neighbours)
            for wish, links in zip(wishes, recent.tolist(), strict=True)
        ]

    def _score(self, blocks: dict[str, Block], found: list[list[Candidate]]) -> Scores:
        """Click and purchase of every pair, user by user; empty without a model."""
        items = [candidate.item_id for candidates in found for candidate in candidates]
        if not self._model or not self._model.can("recommend") or not items:
            return {}
        user = np.repeat(np.arange(len(found), dtype=np.int64), [len(candidates) for candidates in found])
        return self._model.run("recommend", blocks, item_part=self._catalogue.parts(items), user=user)

    def _list(self, wish: Wish, candidates: list[Candidate], scores: Scores, now_ms: int) -> Recommendations:
        event = wish.event
        value = self._value(scores, len(candidates))
        best = np.argsort(-value, kind="stable")[: self._lists.length].tolist()
        metrics.LIST_AGE.observe(max(0, now_ms - event.ts_ms) / 1000)
        metrics.DEGRADED.labels("list").inc(not scores)
        return Recommendations(
            user_id=event.user_id,
            recommendation_id=f"r{hash_id(f'{wish.arrival.topic} {event.event_id}'):016x}",
            items=tuple(
                Recommended(
                    item_id=candidates[i].item_id,
                    score=float(value[i]),
                    probability={task: float(v[i]) for task, v in scores.items() if np.isfinite(v[i])},
                    why=candidates[i].why,
                )
                for i in best
            ),
            model_version=self._model.version if self._model else "",
            computed_ms=now_ms,
            source_ms=event.ts_ms,
            degraded=not scores,
        )

    def _value(self, scores: Scores, candidates: int) -> npt.NDArray[np.float32]:
        """What each candidate is worth: by the model, else by its place. What is not finite comes last."""
        if not scores:
            return 1 - np.arange(candidates, dtype=np.float32) / np.float32(candidates)
        value = scores["click"] + self._lists.purchase_value * scores.get("purchase", np.zeros(1, np.float32))
        return np.nan_to_num(value, nan=-1.0, posinf=-1.0, neginf=-1.0)

    def _row(self, wish: Wish, recommendations: Recommendations, one: dict[str, Block]) -> Scored:
        """The list as it is logged: one row for user and context, one for each item that is on it."""
        items = tuple(item.item_id for item in recommendations.items)
        scores = {
            task: tuple(item.probability.get(task, float("nan")) for item in recommendations.items)
            for task in recommendations.items[0].probability
        }
        return Served(self._encoder.features.digest, recommendations.model_version).row(
            "recommendation",
            wish.arrival,
            {**one, "item": self._catalogue.block(items)},
            event_id=recommendations.recommendation_id,
            items=items,
            scores=scores,
        )
