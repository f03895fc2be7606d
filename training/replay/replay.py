"""Replay: turns historic events, from before the first log, into examples with the code that serves.

Events are folded into profiles, encoded as the rows that a worker would have logged, and joined with later events. All
of this is done by `contract`, so features have the same meaning as in the worker.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from contract.events.model import Click, Event, Impression, Label, Order, Product
from contract.features.declaration import FeatureSet
from contract.features.encoder import Encoder
from contract.features.packing import PackedBlock, pack
from contract.history.format import HistoricEvent
from contract.joining.joiner import Joiner
from contract.joining.output import ForeignLabel
from contract.messages import Example
from contract.profiles.entity_kinds import BUILT_IN_KINDS, EntityKinds
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import InMemoryProfileStore, fold
from contract.settings.worker import FeedbackSettings
from contract.tasks import Task
from training.replay.guest_interactions import GuestInteractions, Interaction
from training.replay.impression_attribution import ImpressionAttributor
from training.replay.scored_rows import ScoredRowLog

BATCH_MAX: Final = 500


class Replay:
    """Turns events, added in order of time, into examples; the newest revision of each example counts."""

    def __init__(
        self,
        *,
        features: FeatureSet,
        tasks: Sequence[Task],
        feedback: FeedbackSettings,
        entity_kinds: EntityKinds = BUILT_IN_KINDS,
    ) -> None:
        self.interactions: list[Interaction] = []  # clicks and orders; after `run` those of guests with their users
        self.foreign_labels: list[ForeignLabel] = []  # of another user than their event: joined to nothing
        self._guest_interactions = GuestInteractions()
        self._features, self._tasks, self._entity_kinds = features, tuple(tasks), entity_kinds
        self._catalogue: dict[str, Product] = {}
        self._row_log = ScoredRowLog(features=features, catalogue=self._catalogue)
        self._attributor = ImpressionAttributor(click_wait_ms=feedback.click_wait_s * 1000)
        self._joiner = Joiner(feedback=feedback, tasks=tasks)
        self._profiles = InMemoryProfileStore()
        self._examples: list[Example] = []
        self._batch: list[Arrival] = []
        self._active_users: set[str] = set()  # users with a click or order in this batch
        self._offsets: dict[str, int] = {}

    def run(self, history: Iterable[HistoricEvent]) -> list[Example]:
        """All examples of a history, those of products included."""
        for historic in history:
            self.add(historic)
        self.flush()
        self.interactions = self._guest_interactions.assign(self.interactions)
        return self._examples + self._product_examples()

    def add(self, historic: HistoricEvent) -> None:
        event = self._attributor.attribute(historic.event)
        if isinstance(event, Product):
            self.flush()  # earlier rows use the former version of the product
            self._catalogue[event.item_id] = event
            return
        if isinstance(event, Impression) and event.user_id in self._active_users:
            self.flush()  # the list was made after those clicks, and before those that follow it
        if isinstance(event, Click | Order) and event.user_id:
            self._active_users.add(event.user_id)
            items = [event.item_id] if isinstance(event, Click) else [line.item_id for line in event.lines]
            action = "click" if isinstance(event, Click) else "order"
            self.interactions += [(event.user_id, item, event.ts_ms, action) for item in items]
        self._guest_interactions.add(event)
        self._batch.append(self._to_arrival(historic.kind, event))
        if isinstance(event, Label) or len(self._batch) >= BATCH_MAX:  # a label is part of the next event's profiles
            self.flush()

    def flush(self) -> None:
        """Fold the batch, build its rows and join them with its events; judgements open the next batch."""
        batch, self._batch = self._batch, []
        self._active_users = set()
        if not batch:
            return
        updates = to_updates(batch, kinds=self._entity_kinds)
        memory = fold(self._profiles.read(updates.entities), updates)
        rows = self._row_log.build_rows(memory)
        self._profiles.merge(memory.slice_writes(), {}, {})
        for number, arrival in enumerate(batch):
            if number in rows:
                self._joiner.add_row(rows[number])
            self._joiner.add_event(arrival.event)
            self._joiner.advance(arrival.event.ts_ms)
        ready = self._joiner.drain()
        self._examples += ready.examples
        self.foreign_labels += ready.foreign
        self._batch = [self._to_arrival("judgements", judgement) for judgement in ready.judgements]

    def _to_arrival(self, kind: str, event: Event) -> Arrival:
        offset = self._offsets.get(kind, 0)
        self._offsets[kind] = offset + 1
        return Arrival(f"{kind}/0", offset, event, kind, 0)

    def _product_examples(self) -> list[Example]:
        """One example of each product; classification tasks are labelled by the product's field of the task's name."""
        products = list(self._catalogue.values())
        block = Encoder(self._features).encode_items(products)
        return [self._to_example(product, pack(block.take([row]))) for row, product in enumerate(products)]

    def _to_example(self, product: Product, block: PackedBlock) -> Example:
        names = [task.name for task in self._tasks if task.graph == "classify"]
        labels = {name: value for name in names if isinstance(value := getattr(product, name, None), str) and value}
        return Example(
            example_id=f"product~{product.item_id}",
            revision=0,
            event_id=product.event_id,
            user_id="",
            ts_ms=product.ts_ms,
            model_version="",
            features=self._features.digest,
            groups={"item": block},
            labels=dict(labels),
            known_ms=dict.fromkeys(labels, product.ts_ms),
            item_id=product.item_id,
        )
