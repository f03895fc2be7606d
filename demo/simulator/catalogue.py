"""The simulated catalogue: items whose titles imply their category, and a search engine that matches words."""

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from contract.events.model import Product

NOUNS: Final = {
    "kitchen": ("kettle", "skillet", "whisk", "teapot", "colander", "grater", "toaster", "ladle"),
    "garden": ("trowel", "planter", "hose", "rake", "birdbath", "pruner", "lantern", "hammock"),
    "books": ("novel", "atlas", "cookbook", "diary", "comic", "biography", "thriller", "almanac"),
    "toys": ("puzzle", "kite", "robot", "marbles", "puppet", "trainset", "yoyo", "blocks"),
    "sports": ("racket", "dumbbell", "helmet", "yogamat", "football", "skates", "paddle", "goggles"),
    "fashion": ("scarf", "jacket", "sandals", "beanie", "belt", "cardigan", "gloves", "raincoat"),
    "audio": ("headphones", "turntable", "speaker", "microphone", "earbuds", "amplifier", "radio", "soundbar"),
    "office": ("stapler", "notebook", "inkpen", "desklamp", "binder", "calendar", "whiteboard", "ruler"),
}
ADJECTIVES: Final = ("classic", "compact", "blue", "oak", "bright", "travel", "handmade", "sturdy", "light", "red")
BRANDS: Final = ("Alba", "Norrin", "Kestrel", "Pomello", "Tarn", "Vireo", "Quill", "Osmo", "Lumen", "Brack")
SELLERS: Final = 24
CURRENCY: Final = "EUR"


@dataclass(frozen=True, slots=True)
class Item:
    """The true properties of an item. `appeal` multiplies its click probability; `product` may lack the category."""

    product: Product
    category: str
    appeal: float

    @property
    def item_id(self) -> str:
        return self.product.item_id


class ItemCatalogue:
    """The items on sale; `by_id` has those sold earlier, too."""

    def __init__(self, *, rng: random.Random, count: int, opened_ms: int) -> None:
        categories = list(NOUNS)
        items = [make_item(rng, number, categories[number % len(categories)], opened_ms) for number in range(count)]
        self.by_id = dict[str, Item]()
        self.set_items(items)

    def set_items(self, items: Sequence[Item]) -> None:
        """Replace the items on sale; those sold earlier stay in `by_id`."""
        self.items = list(items)
        self.by_id |= {item.item_id: item for item in self.items}
        self.by_category: dict[str, list[Item]] = {
            category: [item for item in self.items if item.category == category] for category in NOUNS
        }
        self._cumulative_appeal = {category: accumulate_appeal(items) for category, items in self.by_category.items()}
        self._by_word = defaultdict[str, list[Item]](list)
        for item in self.items:
            for word in item.product.title.lower().split():
                self._by_word[word].append(item)

    def sample(self, rng: random.Random, category: str, count: int) -> list[str]:
        """Ids of at most `count` distinct items of a category, drawn in proportion to their appeal."""
        sampled = rng.choices(self.by_category[category], cum_weights=self._cumulative_appeal[category], k=count)
        return list(dict.fromkeys(item.item_id for item in sampled))

    def search(self, rng: random.Random, query: str, count: int) -> list[str]:
        """Results of a simple engine: items with any word of the query, in the noisy order of their matching words."""
        matches = defaultdict[str, float](float)
        for word in query.lower().split():
            for item in self._by_word[word]:
                matches[item.item_id] += 1.0
        ranked = sorted(matches, key=lambda item_id: -matches[item_id] - 2 * rng.random())
        return ranked[:count]

    def match_share(self, query: str, item_id: str) -> float:
        """The share of the query's words that are in the item's title."""
        words = query.lower().split()
        title = self.by_id[item_id].product.title.lower().split()
        return sum(word in title for word in words) / len(words)


def accumulate_appeal(items: Sequence[Item]) -> list[float]:
    return list(accumulate(item.appeal for item in items))


def make_item(rng: random.Random, number: int, category: str, opened_ms: int) -> Item:
    """A random item; 5 % of product records lack the category, 10 % the brand, 10 % the seller."""
    brand, noun = rng.choice(BRANDS), rng.choice(NOUNS[category])
    product = Product(
        event_id=f"p{number:06d}",
        ts_ms=opened_ms,
        item_id=f"i{number:04d}",
        title=f"{brand} {rng.choice(ADJECTIVES)} {noun}",
        price=round(rng.lognormvariate(3.0, 0.6), 2),
        currency=CURRENCY,
        available=True,
        brand=brand if rng.random() < 0.9 else None,
        category=category if rng.random() < 0.95 else None,
        stock=rng.randrange(20, 500),
        seller_id=f"s{rng.randrange(SELLERS):02d}" if rng.random() < 0.9 else None,
    )
    return Item(product, category, appeal=rng.lognormvariate(0.0, 0.5))
