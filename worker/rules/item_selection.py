"""Which items of the catalogue a rule is about, as a column of true and false, and its names that no product has."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from contract.features.columns import category_id
from contract.features.declaration import FeatureSet
from contract.settings.list_rules import FeatureCondition, ListRule, Range
from contract.units import DAY_MS
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers

Mask = npt.NDArray[np.bool_]


class ItemSelector:
    """The selectors of one rule over the catalogue; without any it selects all items."""

    def __init__(self, rule: ListRule, catalogue: Catalogue, features: FeatureSet) -> None:
        self._rule, self._catalogue = rule, catalogue
        self._sources = {feature.name: feature.source for feature in features.features}

    def select(self, rows: ItemNumbers, now_ms: int) -> Mask:
        """Which of these items (N,) all selectors match; `now_ms`: from which their age is counted.

        A value that the product does not state matches nothing.
        """
        rule, catalogue = self._rule, self._catalogue
        is_selected = np.ones(len(rows), np.bool_)
        if rule.items is not None:
            is_selected &= np.isin(rows, catalogue.find(rule.items))
        for words, codes, column in self._list_named():
            if words is not None:
                is_selected &= np.isin(column[rows], codes)
        if rule.price is not None:
            is_selected &= is_within(catalogue.price[rows], rule.price)
        if rule.stock is not None:
            is_selected &= is_within(catalogue.stock[rows], rule.stock)
        if rule.age_days is not None:
            is_selected &= is_within((now_ms - catalogue.first_seen_ms[rows]) / DAY_MS, rule.age_days)
        for name, condition in (rule.features or {}).items():
            values = catalogue.read_feature(name, rows)
            if condition.equals is None:
                is_selected &= is_within(values, condition)
            else:
                is_selected &= values == category_id(self._sources[name], condition.equals)
        return is_selected

    def find_unknown(self) -> Iterator[str]:
        """The names of the rule that no product of the catalogue has, each with what it should be."""
        rule, catalogue = self._rule, self._catalogue
        items = rule.items or ()
        unknown = {"items": [item for item, n in zip(items, catalogue.find(items).tolist(), strict=True) if n < 0]}
        for field, (named, codes, _) in zip(("categories", "brands", "sellers"), self._list_named(), strict=True):
            unknown[field] = [word for word, code in zip(named or (), codes, strict=True) if code < 0]
        for field, words in unknown.items():
            for word in words:
                yield f"rule `{rule.name}`: {field} should be of the catalogue. Found none named `{word}`."

    def _list_named(self) -> Iterator[tuple[tuple[str, ...] | None, list[int], npt.NDArray[np.int32]]]:
        """Words of the rule, their codes, and the column that has such codes."""
        rule, catalogue = self._rule, self._catalogue
        for words, vocabulary, column in (
            (rule.categories, catalogue.categories, catalogue.category),
            (rule.brands, catalogue.brands, catalogue.brand),
            (rule.sellers, catalogue.sellers, catalogue.seller),
        ):
            yield words, vocabulary.find(words or ()), column


def is_within(values: npt.NDArray[np.floating], bounds: Range | FeatureCondition) -> Mask:
    """Which values (N,) lie within both bounds, in the precision of the values; not NaN."""
    kind = values.dtype.type
    is_inside: Mask = ~np.isnan(values)
    if bounds.min is not None:
        is_inside &= values >= kind(bounds.min)
    if bounds.max is not None:
        is_inside &= values <= kind(bounds.max)
    return is_inside
