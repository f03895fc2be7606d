"""A simulated shop on partitions, and a reader that joins it as the process does, without Kafka."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from contract.events import Event, Judgement, Order
from contract.messages import Example, ScoredRow
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
from worker.joiner.orphan_counter import OrphanCounter
from worker.joiner.partitioned_joiner import PartitionedJoiner

Input: TypeAlias = ScoredRow | Event
TopicLogs: TypeAlias = dict[TopicPartition, list[Input]]
ITEMS: Final = tuple("abcdefgh")
USERS: Final = tuple(f"u{n}" for n in range(6))
END_MINUTES: Final = 100 * 60  # minutes: everything has been waited for by then


def simulate_shop(seed: int, *, disorder: float = 0.0, hours: int = 20) -> TopicLogs:
    """Two partitions of each topic, in the order of time give or take `disorder` minutes within a partition."""
    rng = random.Random(seed)
    log: TopicLogs = {
        TopicPartition(topic, n): []
        for topic in ("scored", "impressions", "clicks", "orders", "labels")
        for n in (0, 1)
    }
    for n in range(120):
        for topic, value in simulate_session(rng, str(n), hours):
            user_id = value.user_id if isinstance(value, ScoredRow) else getattr(value, "user_id", "")
            log[TopicPartition(topic, USERS.index(user_id) % 2)].append(value)
    for (topic, n), values in log.items():
        values.sort(key=lambda value: value.ts_ms + rng.uniform(0, disorder) * 60_000)
        values.append(make_last(topic, USERS[n]))
    return log


def make_last(topic: str, user: str) -> Input:
    """Something on each topic that says nothing but how late it is."""
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
    """A list or a search or an order of some user, and what follows from it, on its topics."""
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


@dataclass
class JoinerSimulation:
    """Reads a log in batches from partitions drawn at random; after a crash it goes on at its last positions.

    `transactions`: what the batch of a crash said is taken back, and the next life is told what was said before.
    """

    log: TopicLogs
    rng: random.Random
    batch_max: int
    transactions: bool = False
    examples: list[Example] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    orphans: Counter[str] = field(default_factory=Counter)
    notes: dict[TopicPartition, CommitMetadata] = field(default_factory=dict)

    def run(self, *, crashes: int = 0, batches: int = 40) -> "JoinerSimulation":
        """A life that crashes has fewer than that many batches."""
        committed = dict.fromkeys(self.log, 0)
        for _ in range(crashes):
            self._run_life(committed, self.rng.randrange(1, batches))
        self._run_life(committed, None)
        return self

    def newest(self) -> dict[str, Example]:
        return {e.example_id: e for e in sorted(self.examples, key=lambda e: e.revision)}

    def _run_life(self, committed: dict[TopicPartition, int], batches: int | None) -> None:
        """Read on from the positions until all is read, or until the last of `batches` is published, not committed."""
        joiner, reading = PartitionedJoiner(feedback=FEEDBACK, tasks=[FRAUD]), dict(committed)
        published, orphans = (
            self._load_published(),
            OrphanCounter(final=[note.orphans for note in self.notes.values()], limit=1_000),
        )
        joiner.restore(self.notes)
        joiner.add_partitions(self.log)
        while unread := [partition for partition, offset in reading.items() if offset < len(self.log[partition])]:
            partition = self.rng.choice(unread)
            for offset in range(reading[partition], min(reading[partition] + self.batch_max, len(self.log[partition]))):
                joiner.push(partition, offset, self.log[partition][offset])
                reading[partition] = offset + 1
            ended = [p for p in reading if reading[p] == len(self.log[p])]
            output = published.without_published(joiner.advance(ended))
            batches = None if batches is None else batches - 1
            if batches == 0 and self.transactions:
                return
            self.examples += output.examples
            self.judgements += output.judgements
            if batches == 0:
                return
            orphans.add(output.orphans)
            committed.update(joiner.safe_offsets())
            self.notes.update(joiner.commit_metadata(orphans.finalize(committed)))
        self.orphans = orphans.total()

    def _load_published(self) -> PublishedOutputs:
        published = PublishedOutputs(limit=100_000)
        if self.transactions:
            keys = [example_key(e.example_id, e.revision) for e in self.examples]
            published.add(keys, [e.example_id for e in self.examples if not e.item_id])
            published.add([judgement_key(j.judged_event_id, j.event_id, j.task) for j in self.judgements], [])
        published.freeze()
        return published


def expected_labels(log: TopicLogs) -> dict[str, dict[str, float | str]]:
    """The final labels, by plainly looking at everything; shares no code with the joiner."""
    values = [value for part in log.values() for value in part]
    labels: dict[str, dict[str, float | str]] = {}
    for served in (value for value in values if isinstance(value, ScoredRow)):
        match served.kind:
            case "recommendation":
                labels |= expected_list_labels(served, values)
            case "order":
                labels |= expected_order_labels(served, values)
            case "search":
                labels |= expected_search_labels(served, values)
            case _:
                pass
    return labels


def expected_list_labels(served: ScoredRow, values: list[Input]) -> dict[str, dict[str, float | str]]:
    labels: dict[str, dict[str, float | str]] = {}
    inputs_of_list = [t for t in values if getattr(t, "recommendation_id", None) == served.event_id]
    for impression in (t for t in inputs_of_list if hasattr(t, "items")):
        for item in impression.items:
            clicks = [
                t.ts_ms
                for t in inputs_of_list
                if getattr(t, "item_id", "") == item and t.ts_ms <= impression.ts_ms + minutes_to_ms(45)
            ]
            bought = [
                t.ts_ms
                for t in values
                if isinstance(t, Order) and t.user_id == served.user_id and item in [line.item_id for line in t.lines]
            ]
            sold = any(clicks[0] <= ms <= clicks[0] + minutes_to_ms(600) for ms in bought) if clicks else False
            labels[f"{served.event_id}~{item}"] = {"click": float(bool(clicks)), "purchase": float(sold)}
    return labels


def expected_order_labels(served: ScoredRow, values: list[Input]) -> dict[str, dict[str, float | str]]:
    value: float | str = 0.0
    for candidate in values:
        if getattr(
            candidate, "judged_event_id", ""
        ) == served.event_id and candidate.ts_ms <= served.ts_ms + minutes_to_ms(1215):
            value = candidate.value  # type: ignore[union-attr]
    return {served.event_id: {"fraud": value}}


def expected_search_labels(served: ScoredRow, values: list[Input]) -> dict[str, dict[str, float | str]]:
    searches = [
        t
        for t in values
        if isinstance(t, ScoredRow) and t.kind == "search" and t.user_id == served.user_id and t.query == served.query
    ]
    clicked = set()
    for value in values:
        if getattr(value, "query", None) == served.query and getattr(value, "user_id", "") == served.user_id:
            if isinstance(value, ScoredRow):
                continue
            item = getattr(value, "item_id", "")
            origins = [s for s in searches if s.ts_ms <= value.ts_ms <= s.ts_ms + minutes_to_ms(30) and item in s.items]
            if origins and max(origins, key=lambda s: s.ts_ms) is served:
                clicked.add(item)
    if not clicked:
        return {}
    return {f"{served.event_id}~{item}": {"relevance": float(item in clicked)} for item in served.items}
