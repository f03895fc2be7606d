"""Candidates: which items may be recommended to a user, before the model ranks them."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import NamedTuple

from worker.catalogue import Catalogue, Popularity
from worker.runtime import Neighbours


class Candidate(NamedTuple):
    """An item, and where it comes from: `neighbour` of a recent item, `recent` or `popular`."""

    item_id: str
    why: str


class Candidates:
    """Draws candidates: neighbours of the user's recent items in turn, then popular items."""

    def __init__(self, *, catalogue: Catalogue, popularity: Popularity, candidates_max: int) -> None:
        self._catalogue, self._popularity, self._max = catalogue, popularity, candidates_max
        self._popular: list[Candidate] = []

    def refresh(self) -> None:
        """Take stock of what is popular now; once a batch, not once a user."""
        popular = [item for item in self._popularity.top() if self._catalogue.available(item)]
        self._popular = [Candidate(item, "popular") for item in popular]

    def popular(self) -> list[Candidate]:
        return self._popular[: self._max]

    def of(self, recent: Sequence[int], bought: Collection[str], neighbours: Neighbours | None) -> list[Candidate]:
        """At most so many items for a user with these recent items (linked ids, newest first); sold-out ones are left
        out, and those just bought.
        """
        found = dict[str, Candidate]()
        seen = self._catalogue.seen(recent)
        near = [[Candidate(item, "neighbour") for item in neighbours.of(s)] for s in seen] if neighbours else []
        own = [Candidate(item, "recent") for item in seen]
        for candidate in (*in_turn(near), *own, *self._popular):
            if len(found) == self._max:
                break
            item = candidate.item_id
            if item not in found and item not in bought and self._catalogue.available(item):
                found[item] = candidate
        return list(found.values())


def in_turn(lists: Iterable[Sequence[Candidate]]) -> Iterator[Candidate]:
    """The first of each list, then the second of each, and so on."""
    for turn in zip_longest(*lists):
        yield from (candidate for candidate in turn if candidate is not None)
