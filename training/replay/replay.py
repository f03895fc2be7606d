"""Replay: history from before the first log becomes examples, by the code that serves.

Events are folded into profiles, encoded, written down as the rows that would have been logged, and joined with what
happened after them, all by `contract`; so features mean here what they mean in the worker.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from contract.events import Click, Event, Impression, Label, Order, Product
from contract.features.declaration import FeatureSet
from contract.features.encoder import Encoder
from contract.features.packing import pack
from contract.joining.joiner import Joiner
from contract.messages import Example
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import InMemoryProfileStore, fold
from contract.settings import FeedbackSettings
from contract.tasks import Task
from training.replay.event_reader import HistoricEvent
from training.replay.impression_attribution import ImpressionAttributor
from training.replay.scored_rows import ScoredRowLog

BATCH_MAX: Final = 500
Interaction = tuple[str, str, int]  # user_id, item_id, ts_ms


class Replay:
    """Takes history event by event, in the order of time, and gives examples; the newest revision of each counts."""

    def __init__(self, *, features: FeatureSet, tasks: Sequence[Task], feedback: FeedbackSettings) -> None:
        self.interactions: list[Interaction] = []  # what was clicked and bought
        self._features, self._tasks = features, tuple(tasks)
        self._catalogue: dict[str, Product] = {}
        self._row_log = ScoredRowLog(features=features, catalogue=self._catalogue)
        self._attributor = ImpressionAttributor(click_wait_ms=feedback.click_wait_s * 1000)
        self._joiner = Joiner(feedback=feedback, tasks=tasks)
        self._profiles = InMemoryProfileStore()
        self._examples: list[Example] = []
        self._batch: list[Arrival] = []
        self._active_users: set[str] = set()  # users who clicked or bought in this batch
        self._offsets: dict[str, int] = {}

    def run(self, history: Iterable[HistoricEvent]) -> list[Example]:
        """All examples of a history; products are examples of what they say of themselves."""
        for historic in history:
            self.add(historic)
        self.flush()
        return self._examples + self._product_examples()

    def add(self, historic: HistoricEvent) -> None:
        event = self._attributor.attribute(historic.event)
        if isinstance(event, Product):
            self.flush()  # rows before it show the item as it was
            self._catalogue[event.item_id] = event
            return
        if isinstance(event, Impression) and event.user_id in self._active_users:
            self.flush()  # the list that it shows was made after those clicks, and before those that it led to
        if isinstance(event, Click | Order):
            self._active_users.add(event.user_id)
            items = [event.item_id] if isinstance(event, Click) else [line.item_id for line in event.lines]
            self.interactions += [(event.user_id, item, event.ts_ms) for item in items]
        self._batch.append(self._to_arrival(historic.kind, event))
        if isinstance(event, Label) or len(self._batch) >= BATCH_MAX:  # what a label says is known to the next event
            self.flush()

    def flush(self) -> None:
        """Fold the batch, write down its rows, join them with its events; judgements open the next batch."""
        batch, self._batch, self._active_users = self._batch, [], set()
        if not batch:
            return
        updates = to_updates(batch)
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
        self._batch = [self._to_arrival("judgements", judgement) for judgement in ready.judgements]

    def _to_arrival(self, kind: str, event: Event) -> Arrival:
        offset = self._offsets.get(kind, 0)
        self._offsets[kind] = offset + 1
        return Arrival(f"{kind}/0", offset, event, kind, 0)

    def _product_examples(self) -> list[Example]:
        """For each task that asks for a field of a product: what the products say there."""
        task_names = [task.name for task in self._tasks if task.graph == "classify"]
        products = list(self._catalogue.values())
        block, examples = Encoder(self._features).encode_items(products), list[Example]()
        for n, product in enumerate(products):
            labels = {
                name: value for name in task_names if isinstance(value := getattr(product, name, None), str) and value
            }
            examples.append(
                Example(
                    example_id=f"product~{product.item_id}",
                    revision=0,
                    event_id=product.event_id,
                    user_id="",
                    ts_ms=product.ts_ms,
                    model_version="",
                    features=self._features.digest,
                    groups={"item": pack(block.take([n]))},
                    labels=dict(labels),
                    known_ms=dict.fromkeys(labels, product.ts_ms),
                    item_id=product.item_id,
                )
            )
        return examples
