"""Learnable examples: families of rows with their own groups and labels, as the joiner makes them."""

from collections.abc import Iterable

import numpy as np
from msgspec import structs

from contract.features.declaration import Block
from contract.features.packing import pack
from contract.messages import Example
from contract.settings.training import TrainingConfig
from contract.tasks import Task
from contract.units import DAY_MS
from tests.model.small import CLASSES, FEATURES, TASKS, draw_blocks
from training.data.examples import Examples, from_rows
from training.data.labels import RawLabel

START_MS = 1_700_000_000_000
PLAN = TrainingConfig(batch=64, epochs=3, keep=100, held_out=0.25)
GROUPS_BY_FAMILY = {
    0: ("user", "context", "item"),
    1: ("user", "order", "context"),
    2: ("query", "item", "user"),
    3: ("item",),
}


def make_examples(rows: int, seed: int, tasks: tuple[Task, ...] = TASKS, prefix: str = "e") -> Examples:
    """Half clicks, then orders, searches and products; each label depends on one feature of its row."""
    return from_rows(make_rows(rows, seed, prefix), FEATURES, tasks, CLASSES if len(tasks) == len(TASKS) else None)


def make_rows(rows: int, seed: int, prefix: str = "e") -> list[Example]:
    rng = np.random.default_rng(seed)
    blocks = draw_blocks(rows, seed)
    family = rng.choice(4, rows, p=[0.5, 0.2, 0.15, 0.15])
    return [make_row(n, int(family[n]), blocks, rng, prefix) for n in range(rows)]


def postpone(rows: Iterable[Example], days: int) -> list[Example]:
    """These rows as others that happened some days later."""
    return [
        structs.replace(
            row,
            example_id=f"later {row.example_id}",
            ts_ms=row.ts_ms + days * DAY_MS,
            known_ms={task: ms + days * DAY_MS for task, ms in row.known_ms.items()},
        )
        for row in rows
    ]


def make_row(n: int, family: int, blocks: dict[str, Block], rng: np.random.Generator, prefix: str) -> Example:
    labels = {task: value for task, value in make_labels(n, family, blocks, rng).items() if value is not None}
    ts_ms = START_MS + n * DAY_MS // 100
    return Example(
        example_id=f"{prefix}{n}",
        revision=0,
        event_id=f"{prefix}v{n // 5}",
        user_id=f"u{n % 7}",
        item_id=f"i{n % 11}" if family != 1 else "",
        ts_ms=ts_ms,
        model_version="",
        features=FEATURES.digest,
        groups={group: pack(blocks[group].take([n])) for group in GROUPS_BY_FAMILY[family]},
        labels=labels,
        known_ms=dict.fromkeys(labels, ts_ms + 5),
    )


def make_labels(n: int, family: int, blocks: dict[str, Block], rng: np.random.Generator) -> dict[str, RawLabel]:
    """The labels of a row; some are missing, as in production."""
    clicks, amount = np.nan_to_num(blocks["user"].numbers[n, 0]), np.nan_to_num(blocks["order"].numbers[n, 0])
    price, noise = np.nan_to_num(blocks["item"].numbers[n, 0]), rng.normal(0, 0.3)
    if family == 0:
        click = float(clicks + noise > 1)
        return {"click": click, "purchase": click * float(rng.random() < 0.5) if n % 5 else None}
    if family == 1:
        return {"fraud": float(amount + noise > 2)}
    if family == 2:
        return {"relevance": float(price + noise > 1)}
    return {"category": CLASSES["category"][int(min(price, 2))]}
