"""A person without any history clicks three items of one category, and the list follows."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from contract.events.model import Product
from contract.messages import Recommendations
from demo.environment import DemoEnvironment
from demo.live.live_phase import LivePhase
from demo.simulator.sessions import PAGE_ITEMS
from demo.simulator.shop import ShopSimulator

NEWCOMER: Final = "newcomer"
CLICKS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class NewcomerLists:
    """What a newcomer saw before and after clicks on items of one category."""

    category: str
    clicked: tuple[str, ...]
    before: tuple[str, ...]
    after: Recommendations

    def count_in_category(self, item_ids: tuple[str, ...], products: Mapping[str, Product]) -> int:
        """How many items of a page are of the clicked category."""
        return sum(products[item_id].category == self.category for item_id in item_ids[:PAGE_ITEMS])

    @property
    def after_ids(self) -> tuple[str, ...]:
        return tuple(item.item_id for item in self.after.items)


def follow_newcomer(environment: DemoEnvironment, live_phase: LivePhase, shop: ShopSimulator) -> NewcomerLists:
    """Let a newcomer click items of the category that is rarest on the page that everybody without a list sees."""
    products = shop.products_by_id()
    before = environment.recommendation_reader.read(NEWCOMER).items
    category, item_ids = choose_items(products, before)
    return NewcomerLists(
        category=category, clicked=item_ids, before=before, after=live_phase.send_clicks(NEWCOMER, item_ids)
    )


def choose_items(products: Mapping[str, Product], page: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The category with the fewest items on a page, and the first of its other items, of distinct titles."""
    counts = Counter({product.category: 0 for product in products.values() if product.category})
    counts.update(category for item_id in page[:PAGE_ITEMS] if (category := products[item_id].category))
    category = min(sorted(counts), key=lambda name: counts[name])
    shown_titles = {products[item_id].title for item_id in page}
    item_by_title = {product.title: item for item, product in products.items() if product.category == category}
    others = sorted(item for title, item in item_by_title.items() if title not in shown_titles)
    return category, tuple(others[:CLICKS])
