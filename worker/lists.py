"""Recommendation lists: candidates of a user, ranked by the model, as they are cached and as they are logged."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from contract.encoding import Encoder, Served, apart
from contract.events import UserEvent
from contract.features import Block
from contract.hashing import hash_id
from contract.memory import Memory
from contract.rows import Packed, Recommendations, Recommended, Scored, pack_spans
from contract.settings import Lists
from contract.touches import Arrival
from worker import metrics
from worker.arrangement import arrange
from worker.candidates import FRESH, WHY, Candidates, Drawn
from worker.catalogue import Catalogue
from worker.challenger import Challenger, Lineup, finite, version_of
from worker.item_index import Numbers
from worker.runtime import Model, Scores, by_row

GROUPS = ("user", "context")
Logged = dict[str, tuple[float, ...]]
AT_ONCE: Final = 32  # lists whose pairs run through the graph together: more only take more memory


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


class Ranked(NamedTuple):
    """The items of many lists, one list after the other, each best first; list n ends where `ends[n]` says."""

    ends: list[int]
    numbers: Numbers
    items: list[Recommended]
    scores: dict[str, list[float]]  # as they are logged: NaN for what is not finite


class ListMaker:
    """Makes lists for many users at once: the user side once each, then all pairs in one run of the graph."""

    def __init__(self, *, lists: Lists, encoder: Encoder, catalogue: Catalogue, candidates: Candidates) -> None:
        self._lists, self._encoder, self._catalogue, self._candidates = lists, encoder, catalogue, candidates
        self._model: Model | None = None
        self._shadow: Challenger | None = None

    def serve(self, model: Model | None, challenger: Challenger | None = None) -> None:
        """Rank with this model; a challenger that is a shadow is asked about what stands on the lists."""
        lineup = Lineup(model, challenger).able("recommend")
        self._model, self._shadow = lineup.model, lineup.shadow

    def make(self, wishes: Sequence[Wish], memory: Memory, now_ms: int) -> list[tuple[Recommendations, Scored]]:
        """A list for each wish for which there is any candidate, with the scored row that logs it."""
        made = []
        for start in range(0, len(wishes), AT_ONCE):
            made += self._make(wishes[start : start + AT_ONCE], memory, now_ms)
        return made

    def _make(self, wishes: Sequence[Wish], memory: Memory, now_ms: int) -> list[tuple[Recommendations, Scored]]:
        found = self._draw(wishes, memory)
        blocks = self._encoder.after(memory, [wish.event for wish in wishes], GROUPS)
        ranked = self._rank(found, self._score(blocks, found))
        aside = self._ask(blocks, ranked)
        items = pack_spans(self._catalogue.block_of(ranked.numbers), ranked.ends)
        made, begin = [], 0
        for wish, groups, item, end in zip(wishes, apart(blocks), items, ranked.ends, strict=True):
            if end > begin:
                one = self._list(wish, tuple(ranked.items[begin:end]), now_ms)
                scores = {task: tuple(values[begin:end]) for task, values in ranked.scores.items()}
                beside = finite(aside, range(begin, end))
                made.append((one, self._row(wish, one, groups | {"item": item}, scores, beside)))
            begin = end
        metrics.DEGRADED.labels("list").inc(0 if ranked.scores else len(made))
        return made

    def _draw(self, wishes: Sequence[Wish], memory: Memory) -> list[Drawn]:
        users, times = [f"user:{wish.event.user_id}" for wish in wishes], [wish.event.ts_ms for wish in wishes]
        _, recent = memory.look(users, times)
        bought = [self._catalogue.find(sorted(wish.bought)) for wish in wishes]
        return self._candidates.draw(recent, bought, [wish.seed for wish in wishes])

    def _score(self, blocks: dict[str, Block], found: list[Drawn]) -> Scores:
        """Click and purchase of every pair, user by user; empty without a model."""
        numbers = np.concatenate([drawn.numbers for drawn in found])
        if not self._model or not len(numbers):
            return {}
        return self._run(self._model, blocks, numbers, [len(drawn.numbers) for drawn in found])

    def _ask(self, blocks: dict[str, Block], ranked: Ranked) -> Scores:
        """What a shadow says of the pairs that stand on the lists; of the candidates that do not nothing is logged."""
        if not self._shadow or not len(ranked.numbers):
            return {}
        counts = np.diff(ranked.ends, prepend=0).tolist()
        return self._shadow.say(
            len(ranked.numbers), lambda model: self._run(model, blocks, ranked.numbers, counts), step="refresh"
        )

    def _run(self, model: Model, blocks: dict[str, Block], numbers: Numbers, counts: Sequence[int]) -> Scores:
        """Click and purchase of items (P,), of which the first `counts[0]` are for the first user, and so on."""
        user = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        return model.run("recommend", blocks, item_part=self._catalogue.parts_of(numbers, model), user=user)

    def _rank(self, found: Sequence[Drawn], scores: Scores) -> Ranked:
        """The best candidates of each user, as a list names them."""
        value, begins = self._value(scores, found), np.cumsum([0, *(len(drawn.numbers) for drawn in found)]).tolist()
        best = [
            np.array(arrange(value[begin:end], drawn, self._catalogue, self._lists), np.int64) + begin
            for drawn, begin, end in zip(found, begins, begins[1:], strict=False)
        ]
        at = np.concatenate(best)
        numbers = np.concatenate([drawn.numbers for drawn in found])[at]
        why = np.concatenate([drawn.why for drawn in found])[at]
        chance = np.repeat([drawn.propensity for drawn in found], [len(places) for places in best])
        chosen = {task: values[at] for task, values in scores.items()}
        columns = (
            self._catalogue.names(numbers),
            value[at].tolist(),
            by_row(chosen, len(at)),
            why.tolist(),
            np.where(why == FRESH, chance, 1.0).tolist(),
        )
        items = [
            Recommended(item_id=item, score=worth, probability=own, why=WHY[code], propensity=propensity)
            for item, worth, own, code, propensity in zip(*columns, strict=True)
        ]
        logged = {task: np.where(np.isfinite(of), of, np.float32(np.nan)).tolist() for task, of in chosen.items()}
        return Ranked(np.cumsum([len(places) for places in best]).tolist(), numbers, items, logged)

    def _value(self, scores: Scores, found: Sequence[Drawn]) -> npt.NDArray[np.float32]:
        """What each candidate is worth: by the model, else by its place. What is not finite comes last."""
        if not scores:
            return np.concatenate([1 - np.arange(n := len(d.numbers), dtype=np.float32) / np.float32(n) for d in found])
        value = scores["click"] + self._lists.purchase_value * scores.get("purchase", np.zeros(1, np.float32))
        return np.nan_to_num(value, nan=-1.0, posinf=-1.0, neginf=-1.0)

    def _list(self, wish: Wish, items: tuple[Recommended, ...], now_ms: int) -> Recommendations:
        event = wish.event
        metrics.LIST_AGE.observe(max(0, now_ms - event.ts_ms) / 1000)
        return Recommendations(
            user_id=event.user_id,
            recommendation_id=f"r{wish.seed:016x}",
            items=items,
            model_version=self._model.version if self._model else "",
            computed_ms=now_ms,
            source_ms=event.ts_ms,
            degraded=not items[0].probability,
        )

    def _row(
        self, wish: Wish, made: Recommendations, groups: dict[str, Packed], scores: Logged, beside: Logged
    ) -> Scored:
        """The list as it is logged: one row for user and context, one for each item that is on it."""
        row = Served(self._encoder.features.digest, made.model_version, version_of(self._shadow)).row(
            "recommendation",
            wish.arrival,
            groups,
            event_id=made.recommendation_id,
            items=tuple(item.item_id for item in made.items),
            scores=scores,
            shadow=beside,
        )
        return replace(row, propensities=tuple(item.propensity for item in made.items))
