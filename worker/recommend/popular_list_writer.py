"""Writes popular lists, of all items and by category, to Redis."""

from worker.catalogue.catalogue import Catalogue
from worker.recommend.due_lists import DueLists, join_tables
from worker.retrieval.popularity import Popularity
from worker.state.answer_cache import AnswerCache


class PopularListWriter:
    """Writes the lists that are due, once a second."""

    def __init__(self, *, answer_cache: AnswerCache, catalogue: Catalogue, popularity: Popularity, length: int) -> None:
        self._answer_cache = answer_cache
        self._catalogue = catalogue
        self._popularity = popularity
        self._length = length
        self._due = DueLists(length)

    def write(self, now_ms: int) -> None:
        """Write the lists that are due; after `Unavailable` they are due again."""
        popular = join_tables(self._popularity.top, self._popularity.in_category, self._length)
        due, was_filled = self._due.find(popular)
        categories = self._catalogue.categories.words
        lists: dict[str, list[str]] = {}
        for code in due.tolist():
            items = self._catalogue.item_ids(popular[code][popular[code] >= 0])
            # An empty list is written only over one of this worker: other workers may know items of the category.
            if items or was_filled[code]:
                lists[categories[code]] = items
        self._answer_cache.write_popular(lists, now_ms)
        self._due.record(popular)
