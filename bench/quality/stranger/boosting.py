"""The rival: scikit-learn's gradient boosting on the same fields and simple counts by device."""

from collections import defaultdict
from typing import Final

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from bench.quality.stranger.orders import LABEL_DELAY_MS, OrderTable
from contract.arrays import Array, Floats
from contract.units import DAY_MS

CATEGORIES: Final = ("channel", "shipping", "payment", "store", "domain")
HOUR_MS: Final = 3_600_000


def build_columns(table: OrderTable) -> tuple[Floats, list[int]]:
    """Fields and counts of each order (N, columns), and the numbers of the columns that are categories."""
    columns: dict[str, Array] = {name: values.astype(np.float64) for name, values in table.columns.items()}
    columns["age_s"] = (table.ts_ms - table.since_ms) / 1000
    columns["hour"] = table.ts_ms // HOUR_MS % 24.0
    columns["weekday"] = table.ts_ms // DAY_MS % 7.0
    fields = np.column_stack(list(columns.values()))
    return np.hstack([fields, count_by_device(table)]), [list(columns).index(name) for name in CATEGORIES]


def count_by_device(table: OrderTable) -> Floats:
    """What was known of the device before each order: orders in all, of a day and of a week, seconds since the latest,
    customers, outcomes and bad outcomes that were known by then.
    """
    counts = np.full((len(table), 7), np.nan)
    rows_by_device: dict[int, list[int]] = defaultdict(list)
    for row, device in enumerate(table.device.tolist()):
        earlier = rows_by_device[device]
        ages = table.ts_ms[row] - table.ts_ms[earlier]
        known = ages >= LABEL_DELAY_MS
        counts[row] = (
            len(earlier),
            (ages < DAY_MS).sum(),
            (ages < 7 * DAY_MS).sum(),
            ages[-1] / 1000 if earlier else np.nan,
            len(set(table.customer[earlier].tolist())),
            known.sum(),
            table.bad[earlier][known].sum(),
        )
        earlier.append(row)
    return counts


def score_by_boosting(table: OrderTable, cut: int, seed: int) -> Floats:
    """Probabilities of the orders from row `cut` on, by a model of the earlier ones whose outcome was known then."""
    x, categories = build_columns(table)
    trained = np.flatnonzero(table.ts_ms + LABEL_DELAY_MS <= table.ts_ms[cut])
    boosting = HistGradientBoostingClassifier(categorical_features=categories, random_state=seed)
    with threadpool_limits(1):  # its threads wait actively: on cores that are shared more of them are slower
        boosting.fit(x[trained], table.bad[trained])
        p: Floats = boosting.predict_proba(x[cut:])[:, 1]
    return p
