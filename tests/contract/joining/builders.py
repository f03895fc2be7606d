"""Builders of rows and events for tests of the joiner: times in minutes, a single user by default."""

from collections import Counter
from typing import Final

import numpy as np

from contract.events.model import Click, Event, Impression, Label, Line, Order
from contract.features.declaration import Block
from contract.features.packing import PackedBlock, pack
from contract.joining.joiner import Joiner
from contract.messages import Example, ScoredRow
from contract.settings.worker import FeedbackSettings
from contract.tasks import Task
from contract.units import MINUTE_MS

# Click 30 min, purchase 60 min within 10 h, fraud 20 h; a grace of 15 min.
FEEDBACK: Final = FeedbackSettings(
    impression_wait_s=2 * 3600,
    click_wait_s=30 * 60,
    purchase_wait_s=60 * 60,
    purchase_window_s=10 * 3600,
    fraud_window_s=20 * 3600,
    grace_s=15 * 60,
)
FRAUD: Final = Task("fraud", "binary", ("user", "order", "context"), "decide")
BRUSHING: Final = Task("brushing", "binary", ("user", "order", "context"), "decide")


def minutes_to_ms(minutes: float) -> int:
    return round(minutes * MINUTE_MS)


def make_block(rows: int, mark: float) -> PackedBlock:
    """Numbers and ids that identify their row."""
    marks = mark + np.arange(rows)
    return pack(Block(np.stack([marks, -marks], 1).astype(np.float32), marks.astype(np.int64).reshape(-1, 1)))


def make_row(
    kind: str, event_id: str, minutes: float, items: tuple[str, ...] = (), *, user: str = "u", query: str = ""
) -> ScoredRow:
    groups_by_kind = {
        "recommendation": ("user", "context"),
        "order": ("user", "order", "context"),
        "search": ("user", "query"),
        "review": ("user", "review", "item"),
        "product": ("item",),
    }
    groups = {group: make_block(1, 1000.0 + n) for n, group in enumerate(groups_by_kind.get(kind, ()))}
    if items:
        groups["item"] = make_block(len(items), 1.0)
    return ScoredRow(
        event_id=event_id,
        kind=kind,  # type: ignore[arg-type]
        user_id=user,
        ts_ms=minutes_to_ms(minutes),
        topic="shop.orders",
        partition=0,
        offset=0,
        model_version="m1",
        features="f1",
        groups=groups,
        items=items,
        entities=(f"user:{user}", "device:d"),
        query=query,
    )


def make_impression(minutes: float, *items: str, recommendation_id: str | None = "r", user: str = "u") -> Impression:
    event_id = f"i-{recommendation_id}-{minutes}"
    return Impression(
        event_id=event_id, ts_ms=minutes_to_ms(minutes), user_id=user, items=items, recommendation_id=recommendation_id
    )


def make_click(
    minutes: float,
    item: str,
    *,
    recommendation_id: str | None = "r",
    user: str = "u",
    query: str | None = None,
    ident: str = "",
) -> Click:
    return Click(
        event_id=ident or f"c-{item}-{minutes}",
        ts_ms=minutes_to_ms(minutes),
        user_id=user,
        item_id=item,
        recommendation_id=recommendation_id,
        query=query,
    )


def make_order(minutes: float, *items: str, user: str = "u") -> Order:
    lines = tuple(Line(item_id=item, quantity=1, unit_price=1.0) for item in items)
    return Order(
        event_id=f"o-{minutes}",
        ts_ms=minutes_to_ms(minutes),
        user_id=user,
        lines=lines,
        amount=1.0,
        currency="EUR",
        payment_method="card",
    )


def make_label(
    minutes: float,
    value: float | str,
    *,
    judged_event_id: str = "o",
    task: str = "fraud",
    user: str = "u",
    ident: str = "",
) -> Label:
    return Label(
        event_id=ident or f"l-{task}-{minutes}",
        ts_ms=minutes_to_ms(minutes),
        user_id=user,
        judged_event_id=judged_event_id,
        task=task,
        value=value,
    )


def make_joiner(
    *inputs: ScoredRow | Event, feedback: FeedbackSettings = FEEDBACK, tasks: tuple[Task, ...] = (FRAUD,)
) -> Joiner:
    """A joiner after these inputs, in this order."""
    joiner = Joiner(feedback=feedback, tasks=tasks)
    feed_joiner(joiner, *inputs)
    return joiner


def feed_joiner(joiner: Joiner, *inputs: ScoredRow | Event) -> None:
    for value in inputs:
        if isinstance(value, ScoredRow):
            joiner.add_row(value)
        else:
            joiner.add_event(value)


def take_labels(joiner: Joiner) -> list[tuple[str, int, dict[str, float | str]]]:
    """Id, revision and labels of the emitted examples, in order."""
    return [(e.example_id, e.revision, e.labels) for e in joiner.drain().examples]


def take_newest_examples(joiner: Joiner) -> dict[str, Example]:
    """The newest revision of each emitted example."""
    return {e.example_id: e for e in sorted(joiner.drain().examples, key=lambda e: e.revision)}


def count_outcomes(joiner: Joiner) -> dict[tuple[str, str], int]:
    """The outcomes that were counted, except "parked"."""
    return {(outcome, task): n for (outcome, task), n in Counter(joiner.counts).items() if outcome != "parked" and n}
