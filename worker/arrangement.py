"""Arrangement: which of the ranked candidates stand on a list, and in which order."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from contract.settings import Lists
from worker.candidates import FRESH, Drawn
from worker.catalogue import Catalogue


def arrange(value: npt.NDArray[np.float32], drawn: Drawn, catalogue: Catalogue, lists: Lists) -> list[int]:
    """The places among the candidates, best first, of at most `lists.length` items.

    No more than `category_max` of one category and `seller_max` of one seller, unless the list would be shorter for it.
    Fresh items are not ranked against the others: they have the last places that are left to them.
    """
    fresh = drawn.why == FRESH
    ranked = np.argsort(-value, kind="stable")
    ordinary, explored = ranked[~fresh[ranked]], ranked[fresh[ranked]]
    places = lists.length - len(explored)
    chosen, passed = ordinary[:places].tolist(), list[int]()
    if lists.category_max or lists.seller_max:
        numbers = drawn.numbers[ordinary]
        rows = zip(
            ordinary.tolist(), catalogue.category[numbers].tolist(), catalogue.seller[numbers].tolist(), strict=True
        )
        chosen, passed = varied(rows, places, lists)
    filled: list[int] = chosen + passed[: places - len(chosen)] + explored.tolist()
    return filled


def varied(rows: Iterable[tuple[int, int, int]], places: int, lists: Lists) -> tuple[list[int], list[int]]:
    """Of rows (place, category, seller), best first: the places that the limits leave, and those passed over."""
    chosen, passed = list[int](), list[int]()
    categories, sellers = Counter[int](), Counter[int]()
    for place, category, seller in rows:
        if len(chosen) == places:
            break
        full = (category and lists.category_max and categories[category] >= lists.category_max) or (
            seller and lists.seller_max and sellers[seller] >= lists.seller_max
        )
        if full:
            passed.append(place)
            continue
        chosen.append(place)
        categories[category] += 1
        sellers[seller] += 1
    return chosen, passed
