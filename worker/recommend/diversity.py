"""Selects and orders the items of a list from the ranked candidates, with caps per category and seller."""

from collections import Counter
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from contract.settings.worker import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.retrieval.candidate_generator import UserCandidates
from worker.retrieval.kernels import FRESH


def diversify(
    values: npt.NDArray[np.float32], candidates: UserCandidates, catalogue: Catalogue, lists: ListSettings
) -> list[int]:
    """Indexes of at most `lists.length` candidates, best first.

    At most `category_max` items of a category and `seller_max` of a seller, unless the list would be shorter for it.
    Fresh items are not ranked against the others: they take the last positions.
    """
    fresh = candidates.sources == FRESH
    ranked = np.argsort(-values, kind="stable")
    ordinary = ranked[~fresh[ranked]]
    explored = ranked[fresh[ranked]]
    room = lists.length - len(explored)
    chosen: list[int] = ordinary[:room].tolist()
    skipped: list[int] = []
    if lists.category_max or lists.seller_max:
        numbers = candidates.numbers[ordinary]
        rows = zip(
            ordinary.tolist(), catalogue.category[numbers].tolist(), catalogue.seller[numbers].tolist(), strict=True
        )
        chosen, skipped = apply_caps(rows, room, lists)
    explored_last: list[int] = explored.tolist()
    return chosen + skipped[: room - len(chosen)] + explored_last


def apply_caps(
    rows: Iterable[tuple[int, int, int]], count_max: int, lists: ListSettings
) -> tuple[list[int], list[int]]:
    """The indexes of rows (index, category, seller), best first, within the caps, and those skipped; 0 is no cap."""
    chosen: list[int] = []
    skipped: list[int] = []
    categories = Counter[int]()
    sellers = Counter[int]()
    for index, category, seller in rows:
        if len(chosen) == count_max:
            break
        is_category_full = category and lists.category_max and categories[category] >= lists.category_max
        is_seller_full = seller and lists.seller_max and sellers[seller] >= lists.seller_max
        if is_category_full or is_seller_full:
            skipped.append(index)
            continue
        chosen.append(index)
        categories[category] += 1
        sellers[seller] += 1
    return chosen, skipped
