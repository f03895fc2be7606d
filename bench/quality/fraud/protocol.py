"""The Handbook's protocol: training and test payments of a week, and the figures.

The test payments of a week exclude those of cards that are known as compromised when their day begins (by labels that
have arrived, of payments since the Handbook's own training week, which ends seven days before). A model is trained on
days whose labels had all arrived when the week began.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import numpy as np
from msgspec import Struct

from bench.quality.fraud.dataset import DELAY_MS, Payments
from contract.arrays import Floats, Integers
from contract.features.declaration import GROUPS, Block, FeatureSet
from contract.tasks import Task
from contract.units import DAY_MS
from training.data.examples import NO_PLACE, Examples
from training.metrics.fraud import card_precision, mask_known_cards
from training.metrics.ranking import auc, average_precision

WEEK_DAYS: Final = 7
TEST_WEEKS: Final = ("2018-07-25", "2018-08-01", "2018-08-08", "2018-08-15")
DELAY_DAYS: Final = DELAY_MS // DAY_MS


class FraudFigures(Struct, frozen=True):
    """Quality of the probabilities of a week, or the mean over weeks."""

    average_precision: float
    auc: float
    card_precision_100: float


@dataclass(frozen=True, slots=True)
class WeekSplit:
    """Rows of the training payments, the latest of them one label delay before the week, and of the test payments."""

    train: Integers
    test: Integers


def parse_day(date: str) -> int:
    """The day number of a date, YYYY-MM-DD, as in `Payments.day`."""
    return int(datetime.fromisoformat(date).replace(tzinfo=UTC).timestamp()) * 1_000 // DAY_MS


def split_week(payments: Payments, start: int, history: int) -> WeekSplit:
    """The week that begins on day `start`, with `history` days of training payments."""
    day, train_end = payments.day, start - DELAY_DAYS
    learning = np.flatnonzero((day >= train_end - history) & (day < train_end))
    recent = np.flatnonzero((day >= train_end - WEEK_DAYS) & (day < start + WEEK_DAYS))
    is_known = mask_known_cards(
        payments.fraud[recent],
        payments.customer[recent],
        day[recent] * DAY_MS,
        payments.ts_ms[recent] + DELAY_MS,
    )
    return WeekSplit(learning, recent[(day[recent] >= start) & ~is_known])


def evaluate_predictions(payments: Payments, rows: Integers, p: Floats) -> FraudFigures:
    """The figures of probabilities (N,) for the payments of these rows (N,)."""
    y = payments.fraud[rows]
    customer = payments.customer[rows]
    day = payments.day[rows]
    return FraudFigures(average_precision(y, p), auc(y, p), card_precision(y, p, customer, day))


def average_figures(weeks: Sequence[FraudFigures]) -> FraudFigures:
    return FraudFigures(
        *(float(np.mean([getattr(week, name) for week in weeks])) for name in FraudFigures.__struct_fields__)
    )


def select_columns(
    blocks: Mapping[str, Block], features: FeatureSet, wanted: FeatureSet, rows: Integers
) -> dict[str, Block]:
    """Some rows of blocks of `features`, in the columns of the subset `wanted`; other groups are empty."""
    selected = {group: wanted.empty_block(group, len(rows)) for group in GROUPS}
    for group, block in blocks.items():
        columns_by_name = {feature.name: column for column, feature in enumerate(features.numbers(group))}
        numbers = [columns_by_name[feature.name] for feature in wanted.numbers(group)]
        spans = {span.feature.name: range(span.start, span.start + span.width) for span in features.spans(group)}
        ids = [column for span in wanted.spans(group) for column in spans[span.feature.name]]
        row_block = block.take(rows)
        selected[group] = Block(
            np.ascontiguousarray(row_block.numbers[:, numbers]), np.ascontiguousarray(row_block.ids[:, ids])
        )
    return selected


def build_examples(
    payments: Payments, rows: Integers, blocks: Mapping[str, Block], features: FeatureSet, task: Task
) -> Examples:
    """The payments of these rows (N,) as examples; `blocks` (N rows) are in the columns of `features`."""
    names = np.array([f"payment-{row}" for row in rows.tolist()], np.object_)
    return Examples(
        features=features,
        tasks=(task,),
        classes={},
        blocks=blocks,
        labels={task.name: payments.fraud[rows].astype(np.float32)},
        known_ms={task.name: payments.ts_ms[rows] + DELAY_MS},
        example_id=names,
        revision=np.zeros(len(rows), np.int64),
        event_id=names,
        user_id=payments.customer[rows].astype(str).astype(np.object_),
        item_id=np.full(len(rows), "", np.object_),
        ts_ms=payments.ts_ms[rows],
        place=np.full(len(rows), NO_PLACE, np.int64),
    )
