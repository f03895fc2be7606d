"""Card precision: the precision of fraud investigators, who can check a hundred cards a day.

The definition is that of the handbook Reproducible Machine Learning for Credit Card Fraud Detection (Le Borgne et al.
2022). Each day cards are sorted by their most suspicious payment; the day's precision is the share of cards with a
fraud on that day among the first hundred. A compromised card that was found is blocked and left out on later days. The
metric is the mean over days.
"""

from typing import Final

import numpy as np

from contract.arrays import Array, Integers, Mask
from training.data.codes import factorize
from training.metrics.guard import require_finite

CARDS_PER_DAY: Final = 100


@require_finite
def card_precision(y: Array, p: Array, card: Array, day: Array, cards: int = CARDS_PER_DAY) -> float:
    """The mean over days of the share of compromised cards among the `cards` most suspicious ones of the day.

    y, p, card, day: (N,), one payment each, `day` a number. The caller removes rows of known cards, see
    `mask_known_cards`. A day with fewer cards is still divided by `cards`; of equal predictions the smaller card id
    comes first, whatever the label.
    """
    _, code = np.unique(np.asarray(card).astype(str), return_inverse=True)
    is_found = np.zeros(code.max() + 1, np.bool_)
    precision = list[float]()
    for date in np.unique(day):
        rows = np.flatnonzero((day == date) & ~is_found[code])
        hits = find_compromised(code[rows], p[rows], y[rows], cards)
        precision.append(len(hits) / cards)
        is_found[hits] = True
    return float(np.mean(precision))


def find_compromised(card: Integers, p: Array, y: Array, cards: int) -> Integers:
    """The cards with a fraud on that day among the day's `cards` most suspicious ones."""
    cards_of_day, index = np.unique(card, return_inverse=True)
    highest = np.full(len(cards_of_day), -np.inf)
    fraud = np.zeros(len(cards_of_day), np.bool_)
    np.maximum.at(highest, index, p)
    np.logical_or.at(fraud, index, y > 0.5)
    first = np.argsort(-highest, kind="stable")[:cards]
    return cards_of_day[first[fraud[first]]]


def mask_known_cards(y: Array, card: Array, day_start_ms: Array, known_ms: Array) -> Mask:
    """The rows (N,) of cards with a fraud that was known when the row's day began; NaN labels are ignored."""
    code = factorize(card)
    since = np.full(code.max(initial=-1) + 1, np.iinfo(np.int64).max, np.int64)
    fraud = y > 0.5
    np.minimum.at(since, code[fraud], known_ms[fraud])
    known: Mask = since[code] <= day_start_ms
    return known
