"""Writes trending lists, of all items and by category, to Redis: the items that most people visit at present."""

from contract.messages import ListedItem, ShopList
from worker.catalogue.catalogue import Catalogue
from worker.recommend.due_lists import DueLists, join_tables
from worker.recommend.item_share import ItemShare
from worker.retrieval.popularity import Popularity
from worker.rules.kind_rules import KindRules
from worker.state.answer_cache import AnswerCache

TRENDING = "trending"  # the key, and the reason of each item


class TrendingListWriter:
    """Writes the lists that are due and that this worker writes, once a second."""

    def __init__(self, *, answer_cache: AnswerCache, catalogue: Catalogue, popularity: Popularity, length: int) -> None:
        self._answer_cache = answer_cache
        self._catalogue = catalogue
        self._popularity = popularity
        self._length = length
        self._due = DueLists(length)

    def write(self, now_ms: int, share: ItemShare, rules: KindRules | None = None) -> None:
        """Write the lists of this share that are due; after `Unavailable` they are due again."""
        trending = join_tables(*self._popularity.rank_trending(rules), self._length)
        due, was_filled = self._due.find(trending)
        categories = self._catalogue.categories.words
        keys = [f"{TRENDING}:{categories[code]}" if code else TRENDING for code in due.tolist()]
        lists: dict[str, ShopList | None] = {}
        for code, key, is_own in zip(due.tolist(), keys, share.find_own(keys).tolist(), strict=True):
            numbers = trending[code][trending[code] >= 0]
            if not is_own or not (len(numbers) or was_filled[code]):
                continue
            people = self._popularity.count_people(numbers).round(3).tolist()
            items = zip(self._catalogue.item_ids(numbers), people, strict=True)
            listed = tuple(ListedItem(item_id=item, score=score, why=TRENDING) for item, score in items)
            lists[key] = ShopList(items=listed, computed_ms=now_ms) if listed else None
        self._answer_cache.write_shop_lists(lists)
        self._due.record(trending)
