"""Arrangement: which of the ranked candidates stand on a list, and in which order."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from contract.settings import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.retrieval.candidate_generator import FRESH, UserCandidates


def diversify(
    values: npt.NDArray[np.float32], candidates: UserCandidates, catalogue: Catalogue, lists: ListSettings
) -> list[int]:
    """The places among the candidates, best first, of at most `lists.length` items.

    No more than `category_max` of one category and `seller_max` of one seller, unless the list would be shorter for it.
    Fresh items are not ranked against the others: they have the last places that are left to them.
    """
    fresh = candidates.sources == FRESH
    ranked = np.argsort(-values, kind="stable")
    ordinary, explored = ranked[~fresh[ranked]], ranked[fresh[ranked]]
    room = lists.length - len(explored)
    chosen, skipped = ordinary[:room].tolist(), list[int]()
    if lists.category_max or lists.seller_max:
        numbers = candidates.numbers[ordinary]
        rows = zip(
            ordinary.tolist(), catalogue.category[numbers].tolist(), catalogue.seller[numbers].tolist(), strict=True
        )
        chosen, skipped = apply_caps(rows, room, lists)
    selected: list[int] = chosen + skipped[: room - len(chosen)] + explored.tolist()
    return selected


def apply_caps(
    rows: Iterable[tuple[int, int, int]], count_max: int, lists: ListSettings
) -> tuple[list[int], list[int]]:
    """Of rows (place, category, seller), best first: the places that the limits leave, and those passed over."""
    chosen, skipped = list[int](), list[int]()
    categories, sellers = Counter[int](), Counter[int]()
    for index, category, seller in rows:
        if len(chosen) == count_max:
            break
        full = (category and lists.category_max and categories[category] >= lists.category_max) or (
            seller and lists.seller_max and sellers[seller] >= lists.seller_max
        )
        if full:
            skipped.append(index)
            continue
        chosen.append(index)
        categories[category] += 1
        sellers[seller] += 1
    return chosen, skipped
