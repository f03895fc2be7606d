"""A simulated shop on partitions, and a reader that joins it as the process does, without Kafka."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from contract.events import Event, Judgement, Order
from contract.rows import Example, Scored
from tests.contract.joining.shop import FEEDBACK, FRAUD, at, click, label, order, row, shown
from worker.intake import Place
from worker.notes import Note
from worker.said import Said, example_key, judgement_key
from worker.tally import Tally
from worker.waiting import Waiting

Thing: TypeAlias = Scored | Event
Log: TypeAlias = dict[Place, list[Thing]]
ITEMS: Final = tuple("abcdefgh")
USERS: Final = tuple(f"u{n}" for n in range(6))
END: Final = 100 * 60  # minutes: everything has been waited for by then


def shop(seed: int, *, disorder: float = 0.0, hours: int = 20) -> Log:
    """Two partitions of each topic, in the order of time give or take `disorder` minutes within a partition."""
    draw = random.Random(seed)
    log: Log = {
        Place(topic, n): [] for topic in ("scored", "impressions", "clicks", "orders", "labels") for n in (0, 1)
    }
    for n in range(120):
        for topic, thing in visit(draw, str(n), hours):
            user_id = thing.user_id if isinstance(thing, Scored) else getattr(thing, "user_id", "")
            log[Place(topic, USERS.index(user_id) % 2)].append(thing)
    for (topic, n), things in log.items():
        things.sort(key=lambda thing: thing.ts_ms + draw.uniform(0, disorder) * 60_000)
        things.append(last(topic, USERS[n]))
    return log


def last(topic: str, user: str) -> Thing:
    """Something on each topic that says nothing but how late it is."""
    match topic:
        case "scored":
            return row("click", f"last-{user}", END, user=user)
        case "impressions":
            return shown(END, "none", of=None, user=user)
        case "clicks":
            return click(END, "none", of=None, user=user)
        case "orders":
            return order(END, "none", user=user)
        case _:
            return label(END, 0, of="nothing", user=user)


def visit(draw: random.Random, name: str, hours: int) -> Iterator[tuple[str, Thing]]:
    """A list or a search or an order of some user, and what follows from it, on its topics."""
    user, start = draw.choice(USERS), draw.uniform(1, hours * 60)
    items = tuple(draw.sample(ITEMS, 4))
    match draw.choice(("list", "list", "search", "order")):
        case "list":
            yield "scored", row("recommendation", f"r{name}", start, items, user=user)
            seen = start + draw.uniform(0, 60)
            yield "impressions", shown(seen, *items[:3], of=f"r{name}", user=user)
            for item in items[:2]:
                if draw.random() < 0.6:
                    clicked = seen + draw.choice((draw.uniform(0, 30), draw.uniform(30, 60)))
                    yield "clicks", click(clicked, item, of=f"r{name}", user=user)
                    yield "orders", order(clicked + draw.choice((5, 50, 300, 700)), item, user=user)
        case "search":
            yield "scored", row("search", f"s{name}", start, items, user=user, query="q")
            for item in items[: draw.randrange(3)]:
                yield "clicks", click(start + draw.uniform(0, 35), item, of=None, user=user, query="q")
        case _:
            yield "scored", row("order", f"o{name}", start, user=user)
            yield "orders", order(start, *items, user=user)
            for n in range(draw.randrange(3)):
                ident, late = f"l{name}-{n}", start + draw.uniform(0, 1300)
                yield "labels", label(late, n % 2, of=f"o{name}", user=user, ident=ident)
            if draw.random() < 0.3:
                yield "labels", label(start, 1, of=f"gone{name}", user=user, ident=f"l{name}-gone")


@dataclass
class Reader:
    """Reads a log in batches from partitions drawn at random; after a crash it goes on at its last positions.

    `transactions`: what the batch of a crash said is taken back, and the next life is told what was said before.
    """

    log: Log
    draw: random.Random
    batch_max: int
    transactions: bool = False
    examples: list[Example] = field(default_factory=list)
    judgements: list[Judgement] = field(default_factory=list)
    orphans: Counter[str] = field(default_factory=Counter)
    notes: dict[Place, Note] = field(default_factory=dict)

    def run(self, *, crashes: int = 0, batches: int = 40) -> "Reader":
        """A life that crashes has fewer than that many batches."""
        committed = dict.fromkeys(self.log, 0)
        for _ in range(crashes):
            self._live(committed, self.draw.randrange(1, batches))
        self._live(committed, None)
        return self

    def newest(self) -> dict[str, Example]:
        return {e.example_id: e for e in sorted(self.examples, key=lambda e: e.revision)}

    def _live(self, committed: dict[Place, int], batches: int | None) -> None:
        """Read on from the positions until all is read, or until the last of `batches` is published, not committed."""
        waiting, reading = Waiting(feedback=FEEDBACK, tasks=[FRAUD]), dict(committed)
        said, tally = self._said(), Tally(final=[note.orphans for note in self.notes.values()], limit=1_000)
        waiting.resume(self.notes)
        waiting.follow(self.log)
        while unread := [place for place, offset in reading.items() if offset < len(self.log[place])]:
            place = self.draw.choice(unread)
            for offset in range(reading[place], min(reading[place] + self.batch_max, len(self.log[place]))):
                waiting.give(place, offset, self.log[place][offset])
                reading[place] = offset + 1
            ended = [p for p in reading if reading[p] == len(self.log[p])]
            output = said.fresh(waiting.advance(ended))
            batches = None if batches is None else batches - 1
            if batches == 0 and self.transactions:
                return
            self.examples += output.examples
            self.judgements += output.judgements
            if batches == 0:
                return
            tally.add(output.orphans)
            committed.update(waiting.positions())
            self.notes.update(waiting.notes(tally.final(committed)))
        self.orphans = tally.total()

    def _said(self) -> Said:
        said = Said(limit=100_000)
        if self.transactions:
            keys = [example_key(e.example_id, e.revision) for e in self.examples]
            said.remember(keys, [e.example_id for e in self.examples if not e.item_id])
            said.remember([judgement_key(j.judged_event_id, j.event_id, j.task) for j in self.judgements], [])
        said.close()
        return said


def truth(log: Log) -> dict[str, dict[str, float | str]]:
    """The final labels, by plainly looking at everything; shares no code with the joiner."""
    things = [thing for part in log.values() for thing in part]
    found: dict[str, dict[str, float | str]] = {}
    for served in (thing for thing in things if isinstance(thing, Scored)):
        match served.kind:
            case "recommendation":
                found |= truth_of_list(served, things)
            case "order":
                found |= truth_of_order(served, things)
            case "search":
                found |= truth_of_search(served, things)
            case _:
                pass
    return found


def truth_of_list(served: Scored, things: list[Thing]) -> dict[str, dict[str, float | str]]:
    found: dict[str, dict[str, float | str]] = {}
    own = [t for t in things if getattr(t, "recommendation_id", None) == served.event_id]
    for seen in (t for t in own if hasattr(t, "items")):
        for item in seen.items:
            clicks = [t.ts_ms for t in own if getattr(t, "item_id", "") == item and t.ts_ms <= seen.ts_ms + at(45)]
            bought = [
                t.ts_ms
                for t in things
                if isinstance(t, Order) and t.user_id == served.user_id and item in [line.item_id for line in t.lines]
            ]
            sold = any(clicks[0] <= ms <= clicks[0] + at(600) for ms in bought) if clicks else False
            found[f"{served.event_id}~{item}"] = {"click": float(bool(clicks)), "purchase": float(sold)}
    return found


def truth_of_order(served: Scored, things: list[Thing]) -> dict[str, dict[str, float | str]]:
    value: float | str = 0.0
    for thing in things:
        if getattr(thing, "judged_event_id", "") == served.event_id and thing.ts_ms <= served.ts_ms + at(1215):
            value = thing.value  # type: ignore[union-attr]
    return {served.event_id: {"fraud": value}}


def truth_of_search(served: Scored, things: list[Thing]) -> dict[str, dict[str, float | str]]:
    searches = [
        t
        for t in things
        if isinstance(t, Scored) and t.kind == "search" and t.user_id == served.user_id and t.query == served.query
    ]
    clicked = set()
    for thing in things:
        if getattr(thing, "query", None) == served.query and getattr(thing, "user_id", "") == served.user_id:
            if isinstance(thing, Scored):
                continue
            item = getattr(thing, "item_id", "")
            origins = [s for s in searches if s.ts_ms <= thing.ts_ms <= s.ts_ms + at(30) and item in s.items]
            if origins and max(origins, key=lambda s: s.ts_ms) is served:
                clicked.add(item)
    if not clicked:
        return {}
    return {f"{served.event_id}~{item}": {"relevance": float(item in clicked)} for item in served.items}
