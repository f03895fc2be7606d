"""The rules for one kind of list, as columns over the catalogue: a list only looks up its own items in them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from contract.features.declaration import FeatureSet
from contract.settings.list_rules import ListRule
from contract.units import DAY_MS
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.rules.arrangement import BEYOND_CAP, VARIED, choose_items, place_pins
from worker.rules.caps import GROUPED, Cap, gather_caps, thin_by_caps
from worker.rules.hiding import Hide
from worker.rules.item_selection import ItemSelector, Mask

NO_ITEMS: Final[ItemNumbers] = np.zeros(0, np.int64)
NAME_SEPARATOR: Final = ", "  # of the rules that act on one item; names have no comma
LOG_FACTOR_MAX: Final = math.log(1e6)  # of several boosts together


class Pin(NamedTuple):
    """An item of the catalogue at a position from 1."""

    position: int
    number: int
    name: str


class Arranged(NamedTuple):
    """A list as indexes of its candidates, best first; by index the rule that put an item there; the pinned places."""

    indexes: list[int]
    rules: dict[int, str]
    pinned: tuple[int, ...] = ()


@dataclass(slots=True)
class RuleNames:
    """Names of the rules that act on an item, by a code; those of several are joined."""

    texts: list[str] = field(default_factory=lambda: [""])
    _codes: dict[tuple[int, str], int] = field(default_factory=dict)

    def add(self, codes: npt.NDArray[np.int32], is_selected: Mask, name: str) -> None:
        """Add a name to the codes (N,) of the selected items."""
        for code in np.unique(codes[is_selected]).tolist():
            if (combined := self._codes.get((code, name))) is None:
                combined = self._codes[code, name] = len(self.texts)
                self.texts.append(f"{self.texts[code]}{NAME_SEPARATOR}{name}" if code else name)
            codes[is_selected & (codes == code)] = combined


class KindRules:
    """What the rules in force say about each item for one kind of list; `refresh` follows the catalogue.

    `is_excluded` (items_max,): items that are on no list. Where rules exclude every item of the catalogue they cannot
    be meant: then they are `suspended`, lists have popular items and name them.
    """

    def __init__(
        self, rules: Sequence[ListRule], catalogue: Catalogue, features: FeatureSet, popular: "KindRules | None" = None
    ) -> None:
        """`popular`: the rules of popular lists, which decide what is shown while these are suspended."""
        self._catalogue, self._popular = catalogue, popular
        self._rules = [(rule, ItemSelector(rule, catalogue, features)) for rule in rules]
        items_max = catalogue.items_max
        self._own_excluded = self.is_excluded = np.zeros(items_max, np.bool_)
        self._not_excluded = np.zeros(items_max, np.bool_)
        actions = {rule.action for rule in rules}
        self._factor = np.ones(items_max, np.float32) if "boost" in actions else None
        self._is_buried = np.zeros(items_max, np.bool_) if "bury" in actions else None
        self._name_code = np.zeros(items_max, np.int32) if actions & {"boost", "bury"} else None
        self._names = RuleNames()
        self._masks = {
            rule.name: np.zeros(items_max, np.bool_)
            for rule in rules
            if rule.selectors and rule.action in ("hide", "cap")
        }
        self._excluding = dict[str, None]()  # rules that exclude an item, in their order
        self._pins = list[Pin]()
        self._thinned: tuple[ItemNumbers, ItemNumbers] | None = None
        self.suspended = ""  # the names of the rules that exclude every item
        self.caps = [
            Cap(rule.name, rule.max or 0, rule.per, self._masks.get(rule.name))
            for rule in rules
            if rule.action == "cap"
        ]
        self.hides = [
            Hide(
                rule.after or "bought",
                (rule.days or 0.0) * DAY_MS,
                rule.scope == "category",
                self._masks.get(rule.name),
            )
            for rule in rules
            if rule.action == "hide"
        ]
        self._diversity = next((rule for rule in rules if rule.action == "diversify"), None)
        self.has_age = any(rule.age_days is not None for rule in rules)

    @property
    def removes(self) -> bool:
        """Whether rules exclude an item of the catalogue, or hide items from users."""
        return bool(self._excluding or self.hides)

    @property
    def removing(self) -> str:
        """The names of the rules that exclude an item, and of those that hide items from users."""
        hiding = [rule.name for rule, _ in self._rules if rule.action == "hide"]
        return NAME_SEPARATOR.join([*self._excluding, *hiding])

    @property
    def hides_bought(self) -> bool:
        """Whether rules say which bought items are hidden."""
        return any(hide.after == "bought" for hide in self.hides)

    def refresh(self, rows: ItemNumbers, now_ms: int) -> None:
        """Look at these items again; `now_ms`: from which their age is counted."""
        excluded = np.zeros(len(rows), np.bool_)
        log_factor, codes = np.zeros(len(rows)), np.zeros(len(rows), np.int32)
        buried = np.zeros(len(rows), np.bool_)
        for rule, selector in self._rules:
            if rule.action in ("pin", "diversify") or (rule.action in ("hide", "cap") and not rule.selectors):
                continue
            selected = selector.select(rows, now_ms)
            if rule.action == "exclude":
                excluded |= selected
                if selected.any():
                    self._excluding.setdefault(rule.name)
            elif rule.action in ("hide", "cap"):
                self._masks[rule.name][rows] = selected
            else:
                self._names.add(codes, selected, rule.name)
                buried |= selected & (rule.action == "bury")
                log_factor[selected] += math.log(rule.factor or 1.0)
        self._own_excluded[rows] = excluded
        for column, values in (
            (self._factor, np.exp(np.clip(log_factor, -LOG_FACTOR_MAX, LOG_FACTOR_MAX))),
            (self._is_buried, buried),
            (self._name_code, codes),
        ):
            if column is not None:
                column[rows] = values
        self._find_pins()
        self._decide_suspension()
        self._thinned = None

    def find_shown(self, numbers: ItemNumbers) -> Mask:
        """Which of these items (N,) are in stock and not excluded."""
        shown: Mask = self._catalogue.in_stock[numbers] & ~self.is_excluded[numbers]
        return shown

    def weigh_items(self, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The weights (N,) of the first N items, boosted, and those of buried items below all others."""
        count = len(weights)
        if self._factor is not None:
            weights = weights * self._factor[:count]
        if self._is_buried is not None:
            weights = np.where(self._is_buried[:count], weights * np.float32(1e-12), weights)
        return weights

    def boost(self, values: npt.NDArray[np.float32], numbers: ItemNumbers, *, is_log: bool) -> npt.NDArray[np.float32]:
        """The values (N,) of these items times their factors; `is_log`: they are logarithms. Those below 0 stay."""
        if self._factor is None:
            return values
        factor = self._factor[numbers]
        return values + np.log(factor) if is_log else np.where(values > 0, values * factor, values)

    def find_pinned(self, length: int) -> ItemNumbers:
        """The pinned items that a list of this length may show."""
        if not self._pins:
            return NO_ITEMS
        numbers = np.array([pin.number for pin in self._pins if pin.position <= length], np.int64)
        return numbers[self.find_shown(numbers)][:length]

    def thin_fresh(self, pool: ItemNumbers) -> ItemNumbers:
        """Fresh items of which any choice keeps within all caps: their draw is then uniform, and its probability true.

        Of a group that a cap limits the newest stay, as many as the pins of this group leave. Buried items are none.
        """
        if self._thinned is None or self._thinned[0] is not pool:
            unburied = pool if self._is_buried is None else pool[~self._is_buried[pool]]
            pins = np.array([pin.number for pin in self._pins], np.int64)
            self._thinned = pool, thin_by_caps(unburied, pins, self.caps, self._catalogue)
        thinned = self._thinned[1]
        return thinned[self.find_shown(thinned)] if len(thinned) else thinned

    def arrange(
        self,
        numbers: ItemNumbers,
        values: npt.NDArray[np.float32],
        length: int,
        *,
        is_fresh: Mask | None = None,
        pinned: ItemNumbers = NO_ITEMS,
        soft_caps: Sequence[Cap] = (),
        is_one_category: bool = False,
    ) -> Arranged:
        """The list of these candidates (P,) by their values (P,), at most `length` items.

        Fresh items are not ranked against the others: they take the last positions. `pinned`: by `find_pinned`, all of
        them candidates. `is_one_category`: the list is of one category, so that caps per category do not apply.
        """
        fresh = np.zeros(len(numbers), np.bool_) if is_fresh is None else is_fresh
        pins = self._place_pinned(numbers, pinned)
        is_ordinary = ~fresh
        if self.removes:
            is_ordinary &= self.find_shown(numbers)
        if pins:
            is_ordinary[[index for _, index in pins]] = False
        buried = self._is_buried[numbers] if self._is_buried is not None else None
        ranked = np.argsort(-values, kind="stable") if buried is None else np.lexsort((-values, buried))
        explored: list[int] = ranked[fresh[ranked]].tolist()
        order = ranked[is_ordinary[ranked]]
        room = max(length - len(pins) - len(explored), 0)
        rules = self._name_items(numbers)
        caps = [cap for cap in (*self.caps, *soft_caps) if not (is_one_category and cap.per == "category")]
        if caps or self._diversity:
            first_buried = len(order) if buried is None else int(np.count_nonzero(~buried[order]))
            indexes, effects = choose_items(
                order,
                first_buried,
                room,
                gather_caps(caps, numbers, self._catalogue),
                np.array([*(index for _, index in pins), *explored], np.int64),
                len(pins),
                np.stack([getattr(self._catalogue, column)[numbers] for column in GROUPED]),
                float(self._diversity.strength or 0) if self._diversity else 0.0,
            )
            chosen: list[int] = indexes.tolist()
            for index, effect in zip(chosen, effects.tolist(), strict=True):
                if effect:
                    self._add_name(rules, index, self._name_effect(effect, caps))
        else:
            chosen = order[:room].tolist()
        if not pins:
            return Arranged(chosen + explored, rules)
        names = {pin.number: pin.name for pin in reversed(self._pins)}
        for _, index in pins:
            rules[index] = names[int(numbers[index])]
        arranged = place_pins(chosen + explored, pins, length)
        pinned_indexes = {index for _, index in pins}
        return Arranged(
            arranged, rules, tuple(place for place, index in enumerate(arranged) if index in pinned_indexes)
        )

    def _name_effect(self, effect: int, caps: Sequence[Cap]) -> str:
        if effect == VARIED:
            assert self._diversity is not None
            return self._diversity.name
        return caps[effect - BEYOND_CAP].name

    def _name_items(self, numbers: ItemNumbers) -> dict[int, str]:
        if self.suspended:
            return dict.fromkeys(range(len(numbers)), self.suspended)
        if self._name_code is None:
            return {}
        codes = self._name_code[numbers]
        return {index: self._names.texts[codes[index]] for index in np.flatnonzero(codes).tolist()}

    def _add_name(self, rules: dict[int, str], index: int, name: str) -> None:
        rules[index] = f"{rules[index]}{NAME_SEPARATOR}{name}" if index in rules else name

    def _place_pinned(self, numbers: ItemNumbers, pinned: ItemNumbers) -> list[tuple[int, int]]:
        """Position and index of each pinned item among the candidates, in the order of the rules."""
        wanted = set(pinned.tolist())
        return [
            (pin.position, int(np.flatnonzero(numbers == pin.number)[0]))
            for pin in (self._pins if wanted else ())
            if pin.number in wanted
        ]

    def _find_pins(self) -> None:
        """Each item is pinned once, by the first rule that names it."""
        pins = dict[int, Pin]()
        for rule, _ in self._rules:
            if rule.action == "pin":
                for place, number in enumerate(self._catalogue.find(rule.items or ()).tolist(), rule.position or 1):
                    if number >= 0:
                        pins.setdefault(number, Pin(place, number, rule.name))
        self._pins = list(pins.values())

    def _decide_suspension(self) -> None:
        count = len(self._catalogue)
        is_void = bool(count and self._own_excluded[:count].all())
        self.suspended = NAME_SEPARATOR.join(self._excluding) if is_void else ""
        self.is_excluded = self._own_excluded
        if is_void:
            self.is_excluded = self._popular.is_excluded if self._popular else self._not_excluded
