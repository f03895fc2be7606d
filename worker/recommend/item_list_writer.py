"""Writes the lists of items, `similar:{item}` and `together:{item}`, in slices within a time budget.

All lists are due after a bundle is activated, that of an item when its stock changes, and each one again in turn,
because Redis may have lost it. A list with an item that is no longer in stock comes before the others. A removed item
has no lists.
"""

import time
from collections.abc import Callable, Iterator
from typing import Final

import numpy as np

from contract.hashing import hash_texts
from contract.messages import ListedItem, ShopList
from contract.redis_keys import escape_ids
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.model.onnx_model import Model
from worker.ops import metrics
from worker.recommend.item_share import ItemShare
from worker.retrieval.item_lists import ItemLists, ItemRanking
from worker.rules.kind_rules import KindRules
from worker.state.answer_cache import AnswerCache

SIMILAR, TOGETHER = "similar", "together"  # of their keys
CHUNK: Final = 32  # items whose lists are made and written at once
CYCLE: Final = 3_600  # calls, one a second, in which each list is due once
CHECKED: Final = 20_000  # written lists that a call checks for items out of stock


class ItemListWriter:
    """Keeps which lists are due, and the items on the written ones: 8 bytes for each item of a list."""

    def __init__(
        self,
        *,
        answer_cache: AnswerCache,
        catalogue: Catalogue,
        length: int,
        budget_ms: int,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """`budget_ms`: for each call; a chunk may begin at its end. 0: no lists."""
        self._answer_cache, self._catalogue = answer_cache, catalogue
        self._length, self._budget_ms, self._clock_s = length, budget_ms, clock_s
        self._lists: ItemLists | None = None
        self._is_due = np.zeros(0, np.bool_)
        self._is_urgent = np.zeros(0, np.bool_)
        self._is_shown = np.zeros(0, np.bool_)  # in stock and left by rules, as of the last call
        self._is_listed = np.zeros(0, np.bool_)
        self._hash = np.zeros(0, np.uint64)
        self._is_own = np.zeros(0, np.bool_)
        self._written = np.zeros((0, 2 * length), np.int32)
        self._share: ItemShare | None = None
        self._cursor = self._checked = self._turn = 0

    def activate(self, model: Model | None) -> None:
        """Write the lists of this model from now on; without one those of the former stay until they expire."""
        if model and (self._lists is None or self._lists.version != model.version):
            self._lists = ItemLists(model, self._catalogue, self._length)
            self._is_due[:] = True

    def write(self, now_ms: int, share: ItemShare, rules: KindRules | None = None) -> None:
        """Write lists of this share that are due, within the budget; after `Unavailable` they are due again."""
        self._delete_removed()
        if not self._lists or not self._budget_ms:
            return
        until_s = self._clock_s() + self._budget_ms / 1000
        self._follow_catalogue(share, rules)
        self._check_stock()
        self._lists.refresh(self._is_shown)
        for chunk in self._iterate_due():
            self._write_chunk(chunk, now_ms, self._lists)
            if self._clock_s() >= until_s:
                break
        metrics.ITEM_LISTS_DUE.set(int(np.count_nonzero(self._is_due & self._is_own)))

    def _delete_removed(self) -> None:
        """Delete the lists of items that were removed before this process knew them."""
        if removed := list(self._catalogue.removed):
            keys = [f"{kind}:{part}" for part in escape_ids(removed) for kind in (SIMILAR, TOGETHER)]
            self._answer_cache.write_shop_lists(dict.fromkeys(keys))
            self._catalogue.removed.clear()

    def _follow_catalogue(self, share: ItemShare, rules: KindRules | None) -> None:
        """Make the lists of new and changed items due, and those that a change of the share gives to this worker."""
        before, count = len(self._is_due), len(self._catalogue)
        if count > before:
            new = np.arange(before, count)
            self._is_due = np.append(self._is_due, np.ones(len(new), np.bool_))
            self._is_urgent = np.append(self._is_urgent, np.zeros(len(new), np.bool_))
            self._is_shown = np.append(self._is_shown, self._catalogue.in_stock[new])
            self._is_listed = np.append(self._is_listed, self._catalogue.is_listed[new])
            self._written = np.append(self._written, np.full((len(new), 2 * self._length), -1, np.int32), axis=0)
            self._hash = np.append(self._hash, hash_texts(self._catalogue.item_ids(new)))
        if count > before or share != self._share:
            was_own, self._is_own, self._share = self._is_own, share.contains(self._hash), share
            self._is_due[: len(was_own)] |= self._is_own[: len(was_own)] & ~was_own
        is_shown, is_listed = self._catalogue.in_stock[:count], self._catalogue.is_listed[:count]
        if rules:
            is_shown = is_shown & ~rules.is_excluded[:count]
        returned = np.flatnonzero(is_shown & ~self._is_shown)
        self._is_urgent |= is_listed != self._is_listed
        if len(returned):  # lists that may have it again are most likely those of the items on its own
            others = self._written[returned].ravel()
            self._is_due[returned] = self._is_due[others[others >= 0]] = True
        self._is_shown, self._is_listed = is_shown.copy(), is_listed.copy()
        step = -(-count // CYCLE)
        self._is_due[(self._turn + np.arange(step)) % max(count, 1)] = True
        self._turn = (self._turn + step) % max(count, 1)

    def _check_stock(self) -> None:
        """Make some lists urgent that have an item out of stock, one part of them after the other."""
        rows = slice(self._checked, self._checked + CHECKED)
        written = self._written[rows]
        self._is_urgent[rows] |= ((written >= 0) & ~self._is_shown[written]).any(1)
        self._checked = rows.stop if rows.stop < len(self._written) else 0

    def _iterate_due(self) -> Iterator[ItemNumbers]:
        """The items of this share whose lists are due, in chunks: the urgent ones, then the others in turn."""
        due = np.flatnonzero(self._is_due & ~self._is_urgent & self._is_own)
        begin = np.searchsorted(due, self._cursor)
        ordered = np.concatenate([np.flatnonzero(self._is_urgent & self._is_own), due[begin:], due[:begin]])
        for start in range(0, len(ordered), CHUNK):
            yield ordered[start : start + CHUNK]

    def _write_chunk(self, numbers: ItemNumbers, now_ms: int, lists: ItemLists) -> None:
        is_listed = self._catalogue.is_listed[numbers]
        parts = escape_ids(self._catalogue.item_ids(numbers))
        payloads: dict[str, ShopList | None] = {}
        written = np.full((len(numbers), 2 * self._length), -1, np.int32)
        for place, (kind, rankings) in enumerate(
            ((SIMILAR, lists.rank_similar(numbers)), (TOGETHER, lists.rank_together(numbers)))
        ):
            for n, ranking in enumerate(rankings):
                payloads[f"{kind}:{parts[n]}"] = self._to_list(ranking, now_ms) if is_listed[n] else None
                if is_listed[n]:
                    begin = place * self._length
                    written[n, begin : begin + len(ranking.numbers)] = ranking.numbers
        self._answer_cache.write_shop_lists(payloads)
        self._written[numbers] = written
        self._is_due[numbers] = self._is_urgent[numbers] = False
        self._cursor = int(numbers[-1]) + 1
        metrics.ITEM_LISTS_WRITTEN.inc(sum(payload is not None for payload in payloads.values()))

    def _to_list(self, ranking: ItemRanking, now_ms: int) -> ShopList | None:
        assert self._lists is not None
        items = zip(self._catalogue.item_ids(ranking.numbers), ranking.scores, ranking.reasons, strict=True)
        listed = tuple(ListedItem(item_id=item, score=score, why=why) for item, score, why in items)
        return ShopList(items=listed, computed_ms=now_ms, model_version=self._lists.version) if listed else None
