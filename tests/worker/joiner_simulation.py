"""A simulated shop on partitions, and the joiner run over it with crashes, without Kafka."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

from contract.events.model import Event, Judgement, Order
from contract.joining.row_store import RowStore, TableChanges
from contract.messages import Example, ScoredRow
from contract.settings.worker import FeedbackSettings
from contract.units import MINUTE_MS
from tests.contract.joining.builders import (
    FEEDBACK,
    FRAUD,
    make_click,
    make_impression,
    make_label,
    make_order,
    make_row,
    minutes_to_ms,
)
from transport.records import TopicPartition
from worker.joiner.commit_metadata import CommitMetadata
from worker.joiner.dedup import PublishedOutputs, example_key, judgement_key
from worker.joiner.partitioned_joiner import PartitionedJoiner
from worker.joiner.recovered_state import OrphanCounter
from worker.joiner.watermarks import RecordTime

Input: TypeAlias = ScoredRow | Event
TopicLogs: TypeAlias = dict[TopicPartition, list[Input]]
ITEMS: Final = tuple("abcdefgh")
USERS: Final = tuple(f"u{n}" for n in range(6))
END_MINUTES: Final = 100 * 60  # all windows have closed by then


def simulate_shop(seed: int, *, disorder: float = 0.0, hours: int = 20) -> TopicLogs:
    """Two partitions of each topic, ordered by event time plus up to `disorder` minutes."""
    rng = random.Random(seed)
    logs: TopicLogs = {
        TopicPartition(topic, n): []
        for topic in ("scored", "impressions", "clicks", "orders", "labels")
        for n in (0, 1)
    }
    for n in range(120):
        for topic, value in simulate_session(rng, str(n), hours):
            user_id = value.user_id if isinstance(value, ScoredRow) else getattr(value, "user_id", "")
            logs[TopicPartition(topic, USERS.index(user_id) % 2)].append(value)
    for (topic, n), values in logs.items():
        values.sort(key=lambda value: value.ts_ms + rng.uniform(0, disorder) * MINUTE_MS)
        values.append(make_last_record(topic, USERS[n]))
    return logs


def make_last_record(topic: str, user: str) -> Input:
    """A record that only advances the watermark of its partition to the end."""
    match topic:
        case "scored":
            return make_row("click", f"last-{user}", END_MINUTES, user=user)
        case "impressions":
            return make_impression(END_MINUTES, "none", recommendation_id=None, user=user)
        case "clicks":
            return make_click(END_MINUTES, "none", recommendation_id=None, user=user)
        case "orders":
            return make_order(END_MINUTES, "none", user=user)
        case _:
            return make_label(END_MINUTES, 0, judged_event_id="nothing", user=user)


def simulate_session(rng: random.Random, name: str, hours: int) -> Iterator[tuple[str, Input]]:
    """A list, a search or an order of one user with the events that follow, each with its topic."""
    user, start = rng.choice(USERS), rng.uniform(1, hours * 60)
    items = tuple(rng.sample(ITEMS, 4))
    match rng.choice(("list", "list", "search", "order")):
        case "list":
            yield "scored", make_row("recommendation", f"r{name}", start, items, user=user)
            shown_at = start + rng.uniform(0, 60)
            yield "impressions", make_impression(shown_at, *items[:3], recommendation_id=f"r{name}", user=user)
            for item in items[:2]:
                if rng.random() < 0.6:
                    clicked = shown_at + rng.choice((rng.uniform(0, 30), rng.uniform(30, 60)))
                    yield "clicks", make_click(clicked, item, recommendation_id=f"r{name}", user=user)
                    yield "orders", make_order(clicked + rng.choice((5, 50, 300, 700)), item, user=user)
        case "search":
            yield "scored", make_row("search", f"s{name}", start, items, user=user, query="q")
            for item in items[: rng.randrange(3)]:
                yield (
                    "clicks",
                    make_click(start + rng.uniform(0, 35), item, recommendation_id=None, user=user, query="q"),
                )
        case _:
            yield "scored", make_row("order", f"o{name}", start, user=user)
            yield "orders", make_order(start, *items, user=user)
            for n in range(rng.randrange(3)):
                ident, label_at = f"l{name}-{n}", start + rng.uniform(0, 1300)
                yield "labels", make_label(label_at, n % 2, judged_event_id=f"o{name}", user=user, ident=ident)
            if rng.random() < 0.3:
                yield "labels", make_label(start, 1, judged_event_id=f"gone{name}", user=user, ident=f"l{name}-gone")


class StoredRows(RowStore, Protocol):
    """A row store that can be written."""

    def commit(self, changes: Iterable[TableChanges], states: Mapping[str, bytes]) -> None: ...


@dataclass
class JoinerSimulation:
    """Joins logs in batches from partitions drawn at random; after a crash it restarts at the committed positions.

    `transactions`: outputs of the batch that crashes are aborted, and the next run loads the published outputs.
    `rows`: a store on disk or its twin, which is committed after some of the batches; a run goes on with it.
    """

    logs: TopicLogs
    rng: random.Random
    batch_max: int
    transactions: bool = False
    examples: list[Example] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    orphans: Counter[str] = field(default_factory=Counter)
    metadata: dict[TopicPartition, CommitMetadata] = field(default_factory=dict)
    rows: StoredRows | None = None
    feedback: FeedbackSettings = FEEDBACK

    def run(self, *, crashes: int = 0, batches: int = 40) -> "JoinerSimulation":
        """Run to the end after this number of crashes, each after fewer than `batches` batches."""
        committed = dict.fromkeys(self.logs, 0)
        for _ in range(crashes):
            self._run_once(committed, self.rng.randrange(1, batches))
        self._run_once(committed, None)
        return self

    def newest_examples(self) -> dict[str, Example]:
        return {e.example_id: e for e in sorted(self.examples, key=lambda e: e.revision)}

    def _run_once(self, committed: dict[TopicPartition, int], batches: int | None) -> None:
        """Read to the end, or crash when the last of `batches` is published and not committed."""
        joiner = PartitionedJoiner(feedback=self.feedback, tasks=[FRAUD], rows=self.rows)
        positions = committed | joiner.next_offsets()
        published = self._load_published()
        orphans = OrphanCounter(
            final=[metadata.orphans for metadata in self.metadata.values()], limit=1_000, rows=self.rows
        )
        joiner.restore(self.metadata)
        joiner.add_partitions(self.logs)
        while unread := [partition for partition, offset in positions.items() if offset < len(self.logs[partition])]:
            partition = self.rng.choice(unread)
            log = self.logs[partition]
            for offset in range(positions[partition], min(positions[partition] + self.batch_max, len(log))):
                joiner.push(partition, offset, log[offset], RecordTime(log[offset].ts_ms, log[offset].ts_ms))
                positions[partition] = offset + 1
            at_end = [p for p in positions if positions[p] == len(self.logs[p])]
            output = published.without_published(joiner.advance(at_end))
            batches = None if batches is None else batches - 1
            if batches == 0 and self.transactions:
                return
            self.examples += output.examples
            self.judgements += output.judgements
            if batches == 0:
                return
            orphans.add(output.orphans)
            safe = joiner.safe_offsets()
            committed |= {partition: max(offset, committed[partition]) for partition, offset in safe.items()}
            self.metadata.update(joiner.commit_metadata(orphans.finalize(committed), "writer"))
            if self.rows and self.rng.random() < 0.3:
                self.rows.commit(joiner.changes(), joiner.states() | orphans.states())
                joiner.confirm_commit()
        self.orphans = orphans.total()

    def _load_published(self) -> PublishedOutputs:
        published = PublishedOutputs(limit=100_000)
        if self.transactions:
            keys = [example_key(e.example_id, e.revision) for e in self.examples]
            published.add(keys, [e.example_id for e in self.examples if not e.item_id])
            published.add([judgement_key(j.judged_event_id, j.event_id, j.task) for j in self.judgements], [])
        published.freeze()
        return published


def compute_expected_labels(logs: TopicLogs) -> dict[str, dict[str, float | str]]:
    """The final labels by a full scan of all logs; shares no code with the joiner."""
    values = [value for log in logs.values() for value in log]
    labels: dict[str, dict[str, float | str]] = {}
    for row in (value for value in values if isinstance(value, ScoredRow)):
        match row.kind:
            case "recommendation":
                labels |= compute_list_labels(row, values)
            case "order":
                labels |= compute_order_labels(row, values)
            case "search":
                labels |= compute_search_labels(row, values)
            case _:
                pass
    return labels


def compute_list_labels(row: ScoredRow, values: list[Input]) -> dict[str, dict[str, float | str]]:
    labels: dict[str, dict[str, float | str]] = {}
    events = [value for value in values if getattr(value, "recommendation_id", None) == row.event_id]
    for impression in (event for event in events if hasattr(event, "items")):
        for item in impression.items:
            clicks = [
                event.ts_ms
                for event in events
                if getattr(event, "item_id", "") == item and event.ts_ms <= impression.ts_ms + minutes_to_ms(45)
            ]
            orders = [
                value.ts_ms
                for value in values
                if isinstance(value, Order)
                and value.user_id == row.user_id
                and item in [line.item_id for line in value.lines]
            ]
            is_bought = bool(clicks) and any(clicks[0] <= ms <= clicks[0] + minutes_to_ms(600) for ms in orders)
            labels[f"{row.event_id}~{item}"] = {"click": float(bool(clicks)), "purchase": float(is_bought)}
    return labels


def compute_order_labels(row: ScoredRow, values: list[Input]) -> dict[str, dict[str, float | str]]:
    fraud: float | str = 0.0
    end_ms = row.ts_ms + minutes_to_ms(1215)
    for value in values:
        if getattr(value, "judged_event_id", "") == row.event_id and value.ts_ms <= end_ms:
            fraud = value.value  # type: ignore[union-attr]
    return {row.event_id: {"fraud": fraud}}


def compute_search_labels(row: ScoredRow, values: list[Input]) -> dict[str, dict[str, float | str]]:
    same_query = [
        value
        for value in values
        if getattr(value, "query", None) == row.query and getattr(value, "user_id", "") == row.user_id
    ]
    searches = [value for value in same_query if isinstance(value, ScoredRow) and value.kind == "search"]
    clicked = set()
    for click in (value for value in same_query if not isinstance(value, ScoredRow)):
        item = getattr(click, "item_id", "")
        origins = [s for s in searches if s.ts_ms <= click.ts_ms <= s.ts_ms + minutes_to_ms(30) and item in s.items]
        if origins and max(origins, key=lambda s: s.ts_ms) is row:
            clicked.add(item)
    if not clicked:
        return {}
    return {f"{row.event_id}~{item}": {"relevance": float(item in clicked)} for item in row.items}
