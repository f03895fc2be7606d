"""A catalogue of eight items and rules over it, as a file of rules has them."""

from pathlib import Path
from typing import Any

import numpy as np

from contract.features.encoder import Encoder
from contract.settings.list_rules import ListRule, parse_list_rules
from tests.worker.events import FEATURES, NOW_MS, make_product
from worker.catalogue.catalogue import Catalogue
from worker.rules.caps import list_soft_caps
from worker.rules.kind_rules import KindRules

CATEGORIES = ("shoes", "shoes", "shoes", "hats", "hats", "mugs", None, None)
BRANDS = ("north", "south", "north", "north", "south", None, "west", "north")


def make_catalogue() -> Catalogue:
    """Items i0 to i7; the price of each is 10 more than that of the one before, from 10."""
    catalogue = Catalogue(Encoder(FEATURES), 100)
    for n, (category, brand) in enumerate(zip(CATEGORIES, BRANDS, strict=True)):
        catalogue.put(make_product(f"i{n}", category=category, brand=brand, price=10.0 * (n + 1), ts_ms=NOW_MS))
    return catalogue


def parse_rules(text: str) -> tuple[ListRule, ...]:
    return parse_list_rules(text.encode(), Path("list-rules.toml"), FEATURES)


def compile_rules(catalogue: Catalogue, *rules: ListRule, now_ms: int = NOW_MS) -> KindRules:
    compiled = KindRules(rules, catalogue, FEATURES)
    compiled.refresh(np.arange(len(catalogue)), now_ms)
    return compiled


def make_rule(action: str, **fields: Any) -> ListRule:
    """A rule that is named after its action unless `name` is given."""
    return ListRule.model_validate({"name": action, "action": action, **fields})


def arrange(
    catalogue: Catalogue, *rules: ListRule, length: int = 20, fresh: int = 0, **soft_caps: int
) -> dict[str, str]:
    """The items of a list of all candidates in descending order of value, with the names of the rules that acted.

    The last `fresh` candidates are explored.
    """
    compiled = compile_rules(catalogue, *rules)
    numbers = np.arange(len(catalogue))
    arranged = compiled.arrange(
        numbers,
        compiled.boost(np.linspace(1.0, 0.3, len(numbers), dtype=np.float32), numbers, is_log=False),
        length,
        is_fresh=numbers >= len(numbers) - fresh,
        pinned=compiled.find_pinned(length),
        soft_caps=list_soft_caps(soft_caps.get("category_max", 0), soft_caps.get("seller_max", 0)),
    )
    return {f"i{index}": arranged.rules.get(index, "") for index in arranged.indexes}
