"""A shop in few words for the tests of the joiner: rows and events at minutes, of one user unless told otherwise."""

from collections import Counter
from typing import Final

import numpy as np

from contract.events import Click, Event, Impression, Label, Line, Order
from contract.features import Block
from contract.joining.joiner import Joiner
from contract.rows import Example, Packed, Scored, pack
from contract.settings import Feedback
from contract.tasks import Task

MINUTE: Final = 60_000
HOUR: Final = 60 * MINUTE
# Click 30 min, purchase 60 min within 10 h, fraud 20 h; a grace of 15 min.
FEEDBACK: Final = Feedback(
    impression_wait_s=2 * 3600,
    click_wait_s=30 * 60,
    purchase_wait_s=60 * 60,
    purchase_window_s=10 * 3600,
    fraud_window_s=20 * 3600,
    grace_s=15 * 60,
)
FRAUD: Final = Task("fraud", "binary", ("user", "order", "context"), "decide")
BRUSHING: Final = Task("brushing", "binary", ("user", "order", "context"), "decide")


def at(minutes: float) -> int:
    return round(minutes * MINUTE)


def block(rows: int, mark: float) -> Packed:
    """Numbers and ids that tell which row they are."""
    marks = mark + np.arange(rows)
    return pack(Block(np.stack([marks, -marks], 1).astype(np.float32), marks.astype(np.int64).reshape(-1, 1)))


def row(
    kind: str, ident: str, minutes: float, items: tuple[str, ...] = (), *, user: str = "u", query: str = ""
) -> Scored:
    own = {
        "recommendation": ("user", "context"),
        "order": ("user", "order", "context"),
        "search": ("user", "query"),
        "review": ("user", "review", "item"),
        "product": ("item",),
    }
    groups = {group: block(1, 1000.0 + n) for n, group in enumerate(own.get(kind, ()))}
    if items:
        groups["item"] = block(len(items), 1.0)
    return Scored(
        event_id=ident,
        kind=kind,  # type: ignore[arg-type]
        user_id=user,
        ts_ms=at(minutes),
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


def shown(minutes: float, *items: str, of: str | None = "r", user: str = "u") -> Impression:
    ident = f"i-{of}-{minutes}"
    return Impression(event_id=ident, ts_ms=at(minutes), user_id=user, items=items, recommendation_id=of)


def click(
    minutes: float, item: str, *, of: str | None = "r", user: str = "u", query: str | None = None, ident: str = ""
) -> Click:
    return Click(
        event_id=ident or f"c-{item}-{minutes}",
        ts_ms=at(minutes),
        user_id=user,
        item_id=item,
        recommendation_id=of,
        query=query,
    )


def order(minutes: float, *items: str, user: str = "u") -> Order:
    lines = tuple(Line(item_id=item, quantity=1, unit_price=1.0) for item in items)
    return Order(
        event_id=f"o-{minutes}",
        ts_ms=at(minutes),
        user_id=user,
        lines=lines,
        amount=1.0,
        currency="EUR",
        payment_method="card",
    )


def label(
    minutes: float, value: float | str, *, of: str = "o", task: str = "fraud", user: str = "u", ident: str = ""
) -> Label:
    return Label(
        event_id=ident or f"l-{task}-{minutes}",
        ts_ms=at(minutes),
        user_id=user,
        judged_event_id=of,
        task=task,
        value=value,
    )


def joiner(*given: Scored | Event, feedback: Feedback = FEEDBACK, tasks: tuple[Task, ...] = (FRAUD,)) -> Joiner:
    """A joiner that was given these, in this order."""
    made = Joiner(feedback=feedback, tasks=tasks)
    give(made, *given)
    return made


def give(to: Joiner, *given: Scored | Event) -> None:
    for one in given:
        if isinstance(one, Scored):
            to.scored(one)
        else:
            to.event(one)


def said(by: Joiner) -> list[tuple[str, int, dict[str, float | str]]]:
    """Id, revision and labels of what is ready, in order."""
    return [(e.example_id, e.revision, e.labels) for e in by.take().examples]


def examples(by: Joiner) -> dict[str, Example]:
    """The newest revision of each example that is ready."""
    return {e.example_id: e for e in sorted(by.take().examples, key=lambda e: e.revision)}


def fates(by: Joiner) -> dict[tuple[str, str], int]:
    """What was counted, parking aside."""
    return {(fate, task): n for (fate, task), n in Counter(by.counts).items() if fate != "parked" and n}
