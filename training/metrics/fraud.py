"""Card precision: what fraud investigators see, who can look at a hundred cards a day.

The definition is that of the handbook Reproducible Machine Learning for Credit Card Fraud Detection (Le Borgne et al.
2022): each day the cards are ordered by their most suspicious payment, the first hundred are looked at, and the share
of those with a fraud on that day is the day's precision. A compromised card that was found is blocked, so it is left
out on later days. The figure is the mean over days.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from training.metrics.metrics import Array, factorize, require_finite

CARDS_PER_DAY: Final = 100  # looked at each day


@require_finite
def card_precision(y: Array, p: Array, card: Array, day: Array, cards: int = CARDS_PER_DAY) -> float:
    """The mean over days of the share of compromised cards among the `cards` most suspicious ones of the day.

    y, p, card, day: (N,), one payment each, `day` a number. Rows of cards known beforehand are the caller's to remove,
    see `known_cards`. A day with fewer cards is still divided by `cards`; of equal predictions the smaller card id
    stands first, whatever the label.
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


def find_compromised(card: npt.NDArray[np.int64], p: Array, y: Array, cards: int) -> npt.NDArray[np.int64]:
    """Which of a day's most suspicious cards have a fraud on that day."""
    cards_of_day, index = np.unique(card, return_inverse=True)
    highest, fraud = np.full(len(cards_of_day), -np.inf), np.zeros(len(cards_of_day), np.bool_)
    np.maximum.at(highest, index, p)
    np.logical_or.at(fraud, index, y > 0.5)
    first = np.argsort(-highest, kind="stable")[:cards]
    return cards_of_day[first[fraud[first]]]


def mask_known_cards(y: Array, card: Array, day_start_ms: Array, known_ms: Array) -> npt.NDArray[np.bool_]:
    """Which rows (N,) are of a card of which a fraud was known when the row's day began; NaN labels say nothing."""
    code, late = factorize(card), np.iinfo(np.int64).max
    since = np.full(code.max(initial=-1) + 1, late, np.int64)
    fraud = y > 0.5
    np.minimum.at(since, code[fraud], known_ms[fraud])
    known: npt.NDArray[np.bool_] = since[code] <= day_start_ms
    return known
