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
from worker.arrangement import arrange
from worker.candidates import FRESH, WHY, Candidates, Drawn
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

    @property
    def seed(self) -> int:
        """The same for the same event, whenever its list is made."""
        return hash_id(f"{self.arrival.topic} {self.event.event_id}")


class ListMaker:
    """Makes lists for many users at once: the user side once each, then all pairs in one run of the graph."""

    def __init__(self, *, lists: Lists, encoder: Encoder, catalogue: Catalogue, candidates: Candidates) -> None:
        self._lists, self._encoder, self._catalogue, self._candidates = lists, encoder, catalogue, candidates
        self._model: Model | None = None

    def serve(self, model: Model | None) -> None:
        self._model = model

    def make(self, wishes: Sequence[Wish], memory: Memory, now_ms: int) -> list[tuple[Recommendations, Scored]]:
        """A list for each wish for which there is any candidate, with the scored row that logs it."""
        found = self._draw(wishes, memory)
        blocks = self._encoder.after(memory, [wish.event for wish in wishes], GROUPS)
        scores = self._score(blocks, found)
        made, end = [], 0
        for n, (wish, drawn) in enumerate(zip(wishes, found, strict=True)):
            start, end = end, end + len(drawn.numbers)
            if len(drawn.numbers):
                own = {task: values[start:end] for task, values in scores.items()}
                value = self._value(own, len(drawn.numbers))
                best = arrange(value, drawn, self._catalogue, self._lists)
                recommendations = self._list(wish, items_of(drawn, best, own, value, self._catalogue), now_ms)
                one = {group: block.take([n]) for group, block in blocks.items()}
                one["item"] = self._catalogue.block_of(drawn.numbers[best])
                made.append((recommendations, self._row(wish, recommendations, one)))
        return made

    def _draw(self, wishes: Sequence[Wish], memory: Memory) -> list[Drawn]:
        users, times = [f"user:{wish.event.user_id}" for wish in wishes], [wish.event.ts_ms for wish in wishes]
        _, recent = memory.look(users, times)
        bought = [self._catalogue.find(sorted(wish.bought)) for wish in wishes]
        return self._candidates.draw(recent, bought, [wish.seed for wish in wishes])

    def _score(self, blocks: dict[str, Block], found: list[Drawn]) -> Scores:
        """Click and purchase of every pair, user by user; empty without a model."""
        numbers = np.concatenate([drawn.numbers for drawn in found])
        if not self._model or not self._model.can("recommend") or not len(numbers):
            return {}
        user = np.repeat(np.arange(len(found), dtype=np.int64), [len(drawn.numbers) for drawn in found])
        return self._model.run("recommend", blocks, item_part=self._catalogue.parts_of(numbers), user=user)

    def _list(self, wish: Wish, items: tuple[Recommended, ...], now_ms: int) -> Recommendations:
        event, degraded = wish.event, not items[0].probability
        metrics.LIST_AGE.observe(max(0, now_ms - event.ts_ms) / 1000)
        metrics.DEGRADED.labels("list").inc(degraded)
        return Recommendations(
            user_id=event.user_id,
            recommendation_id=f"r{wish.seed:016x}",
            items=items,
            model_version=self._model.version if self._model else "",
            computed_ms=now_ms,
            source_ms=event.ts_ms,
            degraded=degraded,
        )

    def _value(self, scores: Scores, candidates: int) -> npt.NDArray[np.float32]:
        """What each candidate is worth: by the model, else by its place. What is not finite comes last."""
        if not scores:
            return 1 - np.arange(candidates, dtype=np.float32) / np.float32(candidates)
        value = scores["click"] + self._lists.purchase_value * scores.get("purchase", np.zeros(1, np.float32))
        return np.nan_to_num(value, nan=-1.0, posinf=-1.0, neginf=-1.0)

    def _row(self, wish: Wish, recommendations: Recommendations, blocks: dict[str, Block]) -> Scored:
        """The list as it is logged: one row for user and context, one for each item that is on it."""
        items = recommendations.items
        scores = {
            task: tuple(item.probability.get(task, float("nan")) for item in items) for task in items[0].probability
        }
        return Served(self._encoder.features.digest, recommendations.model_version).row(
            "recommendation",
            wish.arrival,
            blocks,
            event_id=recommendations.recommendation_id,
            items=tuple(item.item_id for item in items),
            scores=scores,
            propensities=tuple(item.propensity for item in items),
        )


def items_of(
    drawn: Drawn, best: list[int], scores: Scores, value: npt.NDArray[np.float32], catalogue: Catalogue
) -> tuple[Recommended, ...]:
    """The candidates at these places, as a list names them."""
    columns = {task: values[best].tolist() for task, values in scores.items()}
    finite = {task: np.isfinite(values[best]).tolist() for task, values in scores.items()}
    return tuple(
        Recommended(
            item_id=item_id,
            score=worth,
            probability={task: values[n] for task, values in columns.items() if finite[task][n]},
            why=WHY[why],
            propensity=drawn.propensity if why == FRESH else 1.0,
        )
        for n, (item_id, worth, why) in enumerate(
            zip(catalogue.names(drawn.numbers[best]), value[best].tolist(), drawn.why[best].tolist(), strict=True)
        )
    )
