"""The lists that all users share: popular, trending, those of items, and the placements that name them."""

from contract.messages import PlacementKeys
from contract.settings.reading import Settings
from worker.catalogue.catalogue import Catalogue
from worker.model.onnx_model import Model
from worker.recommend.due_lists import REWRITE_CYCLE
from worker.recommend.item_list_writer import ItemListWriter
from worker.recommend.item_share import WHOLE, ItemShare
from worker.recommend.popular_list_writer import PopularListWriter
from worker.recommend.trending_list_writer import TrendingListWriter
from worker.retrieval.popularity import Popularity
from worker.rules.list_rules import ListRules
from worker.state.answer_cache import AnswerCache


class SharedLists:
    """Writes what is due, once a second. `share`: the lists that this worker writes, beyond popular ones."""

    def __init__(
        self,
        *,
        settings: Settings,
        answer_cache: AnswerCache,
        catalogue: Catalogue,
        popularity: Popularity,
        rules: ListRules | None = None,
    ) -> None:
        lists, self._rules = settings.lists, rules
        self.share: ItemShare = WHOLE
        self._answer_cache = answer_cache
        self._placements = {
            name: PlacementKeys(length=placement.length, keys=placement.keys)
            for name, placement in settings.placements.by_name().items()
        }
        self._popular = PopularListWriter(
            answer_cache=answer_cache, catalogue=catalogue, popularity=popularity, length=lists.length, rules=rules
        )
        self._trending = TrendingListWriter(
            answer_cache=answer_cache, catalogue=catalogue, popularity=popularity, length=lists.length
        )
        self._of_items = ItemListWriter(
            answer_cache=answer_cache, catalogue=catalogue, length=lists.length, budget_ms=lists.item_lists_ms
        )
        self._turn = 0

    def activate(self, model: Model | None) -> None:
        self._of_items.activate(model)

    def write(self, now_ms: int) -> None:
        """Write the lists that are due; after `Unavailable` they are due again."""
        self._popular.write(now_ms)
        rules = self._rules.of("popular") if self._rules else None
        self._trending.write(now_ms, self.share, rules)
        if self._turn == 0:
            self._answer_cache.write_placements(self._placements)
        self._turn = (self._turn + 1) % REWRITE_CYCLE
        self._of_items.write(now_ms, self.share, rules)
