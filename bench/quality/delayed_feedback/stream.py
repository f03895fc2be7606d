"""A stream with known final labels: features determine the probability of a purchase and its delay after the click.

Impulse purchases come within minutes, considered ones within days; the kind and the delay depend on the features, some
of which also influence the probability of a purchase. The purchase rate oscillates. In a stream of clicks each row has
a purchase or none; in a stream of lists most rows are never clicked.
"""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit

from contract.arrays import Floats, Integers, Mask
from contract.features.declaration import GROUPS, Block, Feature, FeatureSet
from contract.settings.worker import FeedbackSettings
from contract.tasks import Task
from contract.units import DAY_MS, MINUTE_MS
from training.data.examples import NO_PLACE, Examples

StreamKind: TypeAlias = Literal["clicks", "lists"]
Method: TypeAlias = Literal["oracle", "naive", "waiting", "ours"]

FEEDBACK: Final = FeedbackSettings()
DELAY: Final = FEEDBACK.delays_by_task()["purchase"]
SILENCE_MS: Final = FEEDBACK.click_wait_s * 1_000
CYCLE_DAYS: Final = 18  # of the purchase rate
ITEM_KINDS: Final = 8
FEATURES: Final = FeatureSet(
    [
        Feature("eager", "user", "number", "column.eager"),
        Feature("rich", "user", "number", "column.rich"),
        Feature("price", "item", "number", "column.price"),
        Feature("fit", "item", "number", "column.fit"),
        Feature("kind", "item", "category", "column.kind"),
    ]
)
CLICK: Final = Task("click", "binary", ("user", "item"), "recommend")
PURCHASE: Final = Task("purchase", "binary", ("user", "item"), "recommend")
TASKS: Final[dict[StreamKind, tuple[Task, ...]]] = {
    "clicks": (PURCHASE,),
    "lists": (CLICK, Task("purchase", "binary", ("user", "item"), "recommend", through="click")),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class DelayStream:
    """N rows in the order of their times, with features and all outcomes; arrays (N,)."""

    kind: StreamKind
    numbers: npt.NDArray[np.float32]  # (N, 4)
    item: Integers
    ts_ms: Integers
    click: Mask
    click_ms: Integers  # of rows without a click, the time of the negative label
    buy: Mask
    buy_ms: Integers

    def select_examples(self, rows: Integers, purchase: Floats, known_at_ms: Integers, *, is_click: Mask) -> Examples:
        """Some rows as examples, with click labels where `is_click`, and purchase labels known at `known_at_ms`."""
        ids = rows.astype(str).astype(object)
        blocks = {group: FEATURES.empty_block(group, len(rows)) for group in GROUPS}
        blocks["user"] = Block(self.numbers[rows, :2], np.zeros((len(rows), 0), np.int64))
        blocks["item"] = Block(self.numbers[rows, 2:], self.item[rows, None])
        labels = {"click": np.where(is_click, self.click[rows], np.nan), "purchase": purchase}
        known_ms = {"click": self.click_ms[rows], "purchase": known_at_ms}
        tasks = TASKS[self.kind]
        return Examples(
            features=FEATURES,
            tasks=tasks,
            classes={},
            blocks=blocks,
            labels={task.name: labels[task.name].astype(np.float32) for task in tasks},
            known_ms={task.name: known_ms[task.name] for task in tasks},
            example_id=ids,
            revision=np.zeros(len(rows), np.int64),
            event_id=ids,
            user_id=ids,
            item_id=ids,
            ts_ms=self.ts_ms[rows],
            place=np.full(len(rows), NO_PLACE, np.int64),
        )

    def select_final_examples(self, rows: Integers) -> Examples:
        """Some rows with their final labels."""
        return self.select_examples(
            rows, self.buy[rows].astype(float), self.buy_ms[rows], is_click=np.ones(len(rows), bool)
        )


def simulate_stream(
    kind: StreamKind, seed: int, first_day: int, days: int, rows_a_day: int, *, drift: float = 0.4
) -> DelayStream:
    """`days` days of a stream from `first_day` on. `drift`: amplitude of the purchase rate, in logits."""
    rng, count = np.random.default_rng(seed), days * rows_a_day
    ts_ms = np.sort(rng.integers(first_day * DAY_MS, (first_day + days) * DAY_MS, count))
    numbers, item = rng.normal(0, 1, (count, 4)).astype(np.float32), rng.integers(0, ITEM_KINDS, count)
    eager, rich, price, fit = numbers.astype(np.float64).T
    item_effect = np.linspace(-0.6, 0.6, ITEM_KINDS)[item]
    click = rng.random(count) < expit(0.8 * fit + 0.3 * eager - 0.9) if kind == "lists" else np.ones(count, bool)
    cycle = drift * np.sin(2 * np.pi * ts_ms / (CYCLE_DAYS * DAY_MS))
    buy = click & (rng.random(count) < expit(0.7 * rich - 0.5 * price + 0.6 * eager + item_effect + cycle - 1.6))
    thinking_ms = 1.5 * DAY_MS * np.exp(0.4 * price)
    quantile = rng.random(count) * -np.expm1(-(DELAY.window_ms - 1) / thinking_ms)  # within the window
    is_impulse = rng.random(count) < expit(1.1 * eager - 0.9 * price + item_effect - 0.8)
    delay_ms = np.where(is_impulse, rng.exponential(20 * MINUTE_MS, count), -thinking_ms * np.log1p(-quantile))
    lag_ms = rng.integers(5_000, 10 * MINUTE_MS, count) if kind == "lists" else 0
    click_ms = np.where(click, ts_ms + lag_ms, ts_ms + SILENCE_MS)
    return DelayStream(
        kind=kind,
        numbers=numbers,
        item=item + 1,
        ts_ms=ts_ms,
        click=click,
        click_ms=click_ms,
        buy=buy,
        buy_ms=np.where(buy, click_ms + delay_ms.astype(np.int64), click_ms + DELAY.wait_ms),
    )


def build_examples(stream: DelayStream, method: Method) -> tuple[Examples, Integers]:
    """The labels that a method learns from, in order of their times (M,); `naive` and `ours` get corrections, too."""
    all_rows = np.arange(len(stream.ts_ms))
    click = stream.click
    buy = stream.buy
    no_labels, due_ms = np.full(len(all_rows), np.nan), stream.click_ms + DELAY.wait_ms
    is_late = buy & (stream.buy_ms > due_ms)
    unclicked = ~click
    waiting = click & (is_late | ~buy)
    bought = buy
    parts = [(all_rows, no_labels, stream.click_ms, True)] if stream.kind == "lists" else []
    if method == "waiting":
        parts += [(all_rows, buy.astype(float), stream.ts_ms + SILENCE_MS + DELAY.window_ms, False)]
    elif method == "oracle":
        at_ms = np.where(unclicked, stream.click_ms, np.minimum(stream.buy_ms, due_ms))
        parts += [(all_rows, buy.astype(float), at_ms, False)]
    else:
        parts += [
            (all_rows[rows], np.full(rows.sum(), label), at_ms[rows], False)
            for rows, label, at_ms in (
                (unclicked, 0.0, stream.click_ms),
                (waiting, 0.0, due_ms),
                (bought, 1.0, stream.buy_ms),
            )
        ]
    rows, purchase, known_ms = (np.concatenate([part[column] for part in parts]) for column in range(3))
    is_click = np.concatenate([np.full(len(part[0]), part[3]) for part in parts])
    order = np.argsort(known_ms, kind="stable")
    examples = stream.select_examples(rows[order], purchase[order], known_ms[order], is_click=is_click[order])
    return examples, known_ms[order]
