"""The scorer of a lane: each event to the handler of its type, and the lane's answers by the clock.

A handler answers events of one type with one line-up of models. A canary has a handler of its own, see
`worker.scoring.canary_router`. `worker.scoring.handlers` has the table of handlers by lane.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from contract.events.model import Event
from contract.features.encoder import Encoder
from contract.graphs import Graph
from contract.profiles.entity_updates import Arrival
from contract.profiles.store import FoldedBatch, ProfileStore
from contract.settings.reading import Settings
from transport.records import TopicPartition
from worker.catalogue.catalogue import Catalogue
from worker.model.experiment import ActiveModels, TrialModel
from worker.model.onnx_model import Model
from worker.ops.steps import PROFILER
from worker.people.samples import PeopleStore
from worker.recommend.item_share import ItemShare
from worker.records.answers import Answer, AnswerKind
from worker.records.batch import Batch
from worker.scoring.canary_router import CanaryRouter
from worker.scoring.results import BatchResults
from worker.state.answer_cache import AnswerCache
from worker.state.user_histories import UserHistories

RowsByEvent = Mapping[type[Event], Sequence[int]]  # rows of a batch's arrivals by the type of their event


class Scorer(Protocol):
    """Answers one lane's events. It knows neither Kafka nor the clock."""

    @property
    def answer_kinds(self) -> Sequence[AnswerKind]:
        """The kinds of answers that this lane gives."""

    def kind_of(self, event: Event) -> AnswerKind | None:
        """The kind of answer that an event gets, None if it gets none."""

    def activate(self, model: Model | None, trial_model: TrialModel | None = None) -> None:
        """Answer with these models from now on; None: with rules and popular items."""

    def prepare(self, models: ActiveModels) -> bool:
        """Do a part of what these models need before they can answer without a pause; whether all is done."""

    def run_periodic(self, profiles: ProfileStore, now_ms: int) -> None:
        """Do what is due by the clock, about once a second; raises `Unavailable`."""

    def is_refresh_due(self, now_ms: int) -> bool:
        """Whether an answer by the clock is due."""

    def entities_to_read(self, batch: Batch, now_ms: int, refresh_max: int) -> list[str]:
        """Entities to read with the batch in addition to those of its arrivals, `refresh_max` of them to refresh."""

    def answer(self, batch: Batch, rows: Sequence[int], memory: FoldedBatch, now_ms: int) -> BatchResults:
        """The answers to the batch's arrivals `rows`."""

    def refresh(self, memory: FoldedBatch, now_ms: int, refresh_max: int) -> BatchResults:
        """At most `refresh_max` answers that are due by the clock to users who were read with the batch.

        Raises `Unavailable` before any is taken, so that it can be repeated, and `StaleState`.
        """

    def take_back(self) -> None:
        """The answers of the last `refresh` were not published: they are due again."""

    def end_delays(self) -> None:
        """The worker stops: what is due by the clock later is due now."""

    def find_waiting(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        """The first offset in each of these partitions whose user waits for an answer by the clock."""

    def wait_again(self, batch: Batch, arrivals: Sequence[Arrival], now_ms: int) -> None:
        """Users of these answered events wait, unless they have their answer already; raises `Unavailable`."""

    def release(self, partitions: Container[TopicPartition]) -> None:
        """Forget who waits because of an event of these partitions: their next owner makes them wait again."""

    def count_waiting(self) -> int:
        """The number of users that wait for an answer by the clock."""

    def forget(self, is_reread: Callable[[Arrival], bool]) -> None:
        """Forget the events that will be read again, here or by another worker: those give the answers by the clock."""

    def forget_erased(self, until_ms: Mapping[str, int]) -> None:
        """Forget what these users (by id) did up to these times: no later answer to them reflects it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringResources:
    """What handlers share, whichever model answers.

    Without `answer_cache` popular items are not written; without `user_histories` those are the items of the profile;
    without `people` items are popular by events.
    """

    settings: Settings
    encoder: Encoder
    catalogue: Catalogue
    answer_cache: AnswerCache | None = None
    user_histories: UserHistories | None = None
    people: PeopleStore | None = None


class EventHandler(Protocol):
    """Answers events of one type with one line-up of models."""

    def answer(self, batch: Batch, rows: list[int], memory: FoldedBatch) -> list[Answer]:
        """The answers to the batch's arrivals `rows`, in their order; an error fails them all."""


BuildHandler = Callable[[ScoringResources, ActiveModels, bool], EventHandler]


@dataclass(frozen=True, slots=True, kw_only=True)
class EventHandling:
    """How events of one type are answered.

    `graph` decides which models of a line-up take part. `build` gets them, and whether it builds a canary's handler.
    `accepts`: events that it is false for get no answer.
    """

    event: type[Event]
    kind: AnswerKind
    graph: Graph
    build: BuildHandler
    accepts: Callable[[Event], bool] | None = None


class Refresher(Protocol):
    """Gives answers by the clock, to users rather than to events, and watches the events for that."""

    def activate(self, models: ActiveModels) -> None: ...

    def prepare(self, models: ActiveModels) -> bool: ...

    def take_share(self, share: ItemShare) -> None:
        """Write this share of the lists that all users share from now on."""

    def run_periodic(self, profiles: ProfileStore, now_ms: int) -> None: ...

    def is_refresh_due(self, now_ms: int) -> bool: ...

    def entities_to_read(self, batch: Batch, now_ms: int, refresh_max: int) -> list[str]: ...

    def observe(self, batch: Batch, rows_by_event: RowsByEvent, memory: FoldedBatch, now_ms: int) -> None:
        """Take note of these arrivals of the batch, and of its watched events."""

    def refresh(self, memory: FoldedBatch, now_ms: int, refresh_max: int) -> BatchResults: ...

    def take_back(self) -> None: ...

    def end_delays(self) -> None: ...

    def find_waiting(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]: ...

    def wait_again(self, batch: Batch, arrivals: Sequence[Arrival], now_ms: int) -> None: ...

    def release(self, partitions: Container[TopicPartition]) -> None: ...

    def count_waiting(self) -> int: ...

    def forget(self, is_reread: Callable[[Arrival], bool]) -> None: ...

    def forget_erased(self, until_ms: Mapping[str, int]) -> None: ...


@dataclass(frozen=True, slots=True)
class LaneHandlers:
    """How one lane answers: its events by type, and what it gives by the clock with the kind of these answers."""

    events: tuple[EventHandling, ...]
    build_refresher: Callable[[ScoringResources], Refresher] | None = None
    refreshed_kind: AnswerKind | None = None

    @property
    def answer_kinds(self) -> tuple[AnswerKind, ...]:
        refreshed = (self.refreshed_kind,) if self.refreshed_kind else ()
        return (*(handling.kind for handling in self.events), *refreshed)

    @property
    def needed_graphs(self) -> tuple[str, ...]:
        """The graphs of what every event of a type gets; not every shop has events that some of a type get."""
        return tuple(handling.graph.name for handling in self.events if handling.accepts is None)


class LaneScorer:
    """The scorer composed of a lane's handlers."""

    def __init__(self, handlers: LaneHandlers, resources: ScoringResources) -> None:
        self.answer_kinds: Sequence[AnswerKind] = handlers.answer_kinds
        self._handlings, self._resources = handlers.events, resources
        self._kinds_by_event = {handling.event: handling.kind for handling in handlers.events}
        self.refresher = handlers.build_refresher(resources) if handlers.build_refresher else None
        self._routers = self._build_routers(ActiveModels())

    def kind_of(self, event: Event) -> AnswerKind | None:
        return self._kinds_by_event.get(type(event))

    def activate(self, model: Model | None, trial_model: TrialModel | None = None) -> None:
        models = ActiveModels(model, trial_model)
        if self.refresher:
            self.refresher.activate(models)
        self._routers = self._build_routers(models)

    def prepare(self, models: ActiveModels) -> bool:
        return self.refresher is None or self.refresher.prepare(models)

    def take_share(self, share: ItemShare) -> None:
        if self.refresher:
            self.refresher.take_share(share)

    def run_periodic(self, profiles: ProfileStore, now_ms: int) -> None:
        if self.refresher:
            self.refresher.run_periodic(profiles, now_ms)

    def is_refresh_due(self, now_ms: int) -> bool:
        return self.refresher is not None and self.refresher.is_refresh_due(now_ms)

    def entities_to_read(self, batch: Batch, now_ms: int, refresh_max: int) -> list[str]:
        return self.refresher.entities_to_read(batch, now_ms, refresh_max) if self.refresher else []

    def answer(self, batch: Batch, rows: Sequence[int], memory: FoldedBatch, now_ms: int) -> BatchResults:
        results = BatchResults()

        def reject_row(row: int, error: Exception, attempts: int) -> None:
            results.rejects.append(batch.to_reject(batch.arrivals[row], error, attempts))

        arrivals, rows_by_event = batch.arrivals, defaultdict[type[Event], list[int]](list)
        for row in rows:
            rows_by_event[type(arrivals[row].event)].append(row)
        for handling, router in zip(self._handlings, self._routers, strict=True):
            handled = rows_by_event.get(handling.event, [])
            if handling.accepts:
                handled = [row for row in handled if handling.accepts(arrivals[row].event)]
            if not handled:
                continue
            with PROFILER(f"score {handling.kind.name}s"):
                router.answer(
                    handled,
                    batch.user_id,
                    lambda handler, chunk: results.answers.extend(handler.answer(batch, chunk, memory)),
                    reject_row,
                )
        if self.refresher:
            with PROFILER("score visits"):
                self.refresher.observe(batch, rows_by_event, memory, now_ms)
        return results

    def refresh(self, memory: FoldedBatch, now_ms: int, refresh_max: int) -> BatchResults:
        return self.refresher.refresh(memory, now_ms, refresh_max) if self.refresher else BatchResults()

    def take_back(self) -> None:
        if self.refresher:
            self.refresher.take_back()

    def end_delays(self) -> None:
        if self.refresher:
            self.refresher.end_delays()

    def find_waiting(self, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
        return self.refresher.find_waiting(partitions) if self.refresher else {}

    def wait_again(self, batch: Batch, arrivals: Sequence[Arrival], now_ms: int) -> None:
        if self.refresher:
            self.refresher.wait_again(batch, arrivals, now_ms)

    def release(self, partitions: Container[TopicPartition]) -> None:
        if self.refresher:
            self.refresher.release(partitions)

    def count_waiting(self) -> int:
        return self.refresher.count_waiting() if self.refresher else 0

    def forget(self, is_reread: Callable[[Arrival], bool]) -> None:
        if self.refresher:
            self.refresher.forget(is_reread)

    def forget_erased(self, until_ms: Mapping[str, int]) -> None:
        if self.refresher:
            self.refresher.forget_erased(until_ms)

    def _build_routers(self, models: ActiveModels) -> list[CanaryRouter[EventHandler]]:
        return [self._build_router(handling, models) for handling in self._handlings]

    def _build_router(self, handling: EventHandling, models: ActiveModels) -> CanaryRouter[EventHandler]:
        supporting = models.supporting(handling.graph.name)
        canary = supporting.canary
        return CanaryRouter(
            handling.build(self._resources, supporting, False),
            (canary, handling.build(self._resources, ActiveModels(canary.model), True)) if canary else None,
        )
