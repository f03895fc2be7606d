"""The catalogue in memory: the attributes of every item, as columns by item number.

Rows for `items_max` items are allocated at once and written only when an item arrives. The operating system commits
memory on the first write, so the catalogue grows without copies. `worker.catalogue.item_embeddings` has the embeddings.
"""

import logging
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from contract.events.model import Product
from contract.features.declaration import Block
from contract.features.encoder import Encoder, UnknownItem
from contract.hashing import item_hash
from worker.catalogue.item_embeddings import ItemEmbeddings
from worker.catalogue.item_index import ItemIndex, ItemNumbers
from worker.model.onnx_model import Model
from worker.ops import metrics

log = logging.getLogger(__name__)
ITEMS_MAX: Final = 2_000_000
REMOVED_MAX: Final = 100_000  # removed items that this process does not know, until their lists are deleted


class Catalogue:
    """Items by number, in the order of their first records, whose times are `first_seen_ms`."""

    def __init__(self, encoder: Encoder, items_max: int = ITEMS_MAX) -> None:
        self._encoder = encoder
        self.items_max = items_max
        self._index = ItemIndex()
        self._item_ids: list[str] = []
        self._pending: dict[int, Product] = {}  # products that are not encoded yet
        self._rejected = 0
        self._not_reloaded: npt.NDArray[np.bool_] | None = None  # (N) items that a recreated topic has not had so far
        self.categories = Vocabulary()
        self.sellers = Vocabulary()
        self.brands = Vocabulary()
        self.category = np.zeros(items_max, np.int32)
        self.seller = np.zeros(items_max, np.int32)
        self.brand = np.zeros(items_max, np.int32)
        self.price = np.zeros(items_max, np.float32)
        self.stock = np.zeros(items_max, np.float64)  # NaN: not stated
        self.in_stock = np.zeros(items_max, np.bool_)  # available, and not sold out
        self.is_listed = np.zeros(items_max, np.bool_)  # until a tombstone, sold out or not
        self.first_seen_ms = np.zeros(items_max, np.int64)
        # Items with a tombstone that this process does not know, but a former one may have.
        self.removed = deque[str](maxlen=REMOVED_MAX)
        self._is_changed = np.zeros(items_max, np.bool_)  # items that were put since `take_changed`
        self._has_changed = False
        self.puts = 0  # records of items so far: whether anything has changed
        self._block = allocate_block(encoder, items_max)
        self._embeddings = ItemEmbeddings(items_max)

    def __len__(self) -> int:
        return len(self._item_ids)

    def put(self, product: Product) -> None:
        """Add an item, or update it to its newest record."""
        n = self._assign_number(product)
        if n is None:
            return
        self.category[n] = self.categories.encode(product.category)
        self.seller[n] = self.sellers.encode(product.seller_id)
        self.brand[n] = self.brands.encode(product.brand)
        self.price[n] = product.price
        self.stock[n] = np.nan if product.stock is None else product.stock
        self.in_stock[n] = product.available and product.stock != 0
        self.is_listed[n] = True
        self._pending[n] = product
        self.puts += 1
        self._is_changed[n] = self._has_changed = True
        if self._not_reloaded is not None and n < len(self._not_reloaded):
            self._not_reloaded[n] = False

    def delist(self, item_id: str) -> None:
        """Mark an item as unavailable and removed after a tombstone; users' lists that contain it stay readable."""
        if (n := self._index.get(item_hash(item_id))) >= 0:
            self.in_stock[n] = self.is_listed[n] = False
        else:
            self.removed.append(item_id)

    def suspend(self, item_id: str) -> None:
        """Mark an item as unavailable until its next record."""
        if (n := self._index.get(item_hash(item_id))) >= 0:
            self.in_stock[n] = False

    def begin_reload(self) -> None:
        """The products topic is new: note from now on which items it has; the others stay as they are until then."""
        self._not_reloaded = np.ones(len(self), np.bool_)

    def end_reload(self) -> int:
        """The new topic is read: mark the items that it lacks as unavailable; returns their number."""
        if self._not_reloaded is None:
            return 0
        lacking = np.flatnonzero(self._not_reloaded)
        self.in_stock[lacking] = self.is_listed[lacking] = False
        self._not_reloaded = None
        return len(lacking)

    def take_changed(self) -> ItemNumbers:
        """The items that are new or changed since the last call. O(items) if there are any."""
        if not self._has_changed:
            return np.zeros(0, np.int64)
        changed = np.flatnonzero(self._is_changed[: len(self)])
        self._is_changed[changed] = self._has_changed = False
        return changed

    def mark_changed(self) -> None:
        """Let `take_changed` return all items."""
        self._is_changed[: len(self)], self._has_changed = True, len(self) > 0

    def encode_pending(self) -> None:
        """Encode the products that arrived since the last call; only their rows are kept."""
        if not self._pending:
            return
        rows = np.fromiter(self._pending, np.int64, len(self._pending))
        encoded = self._encoder.encode_items(list(self._pending.values()))
        self._pending.clear()
        self._block.numbers[rows], self._block.ids[rows] = encoded.numbers, encoded.ids
        self._embeddings.update(rows, encoded, self._block, len(self))

    def prepare(self, *models: Model | None) -> bool:
        """Compute some embeddings of new models; whether all are computed, so that `activate` causes no pause."""
        self.encode_pending()
        return self._embeddings.prepare(models, self._block, len(self))

    def activate(self, *models: Model | None) -> None:
        """Use the embeddings of these models, the serving one first; missing ones are computed now."""
        self.encode_pending()
        self._embeddings.activate(models, self._block, len(self))

    def is_available(self, item_id: str) -> bool:
        n = self._index.get(item_hash(item_id))
        return n >= 0 and bool(self.in_stock[n])

    def find(self, items: Sequence[str]) -> ItemNumbers:
        """The number of each item, -1 for an unknown one."""
        if not items:  # of nearly all users that have bought nothing lately
            return np.zeros(0, np.int64)
        return self.find_hashes(np.array([item_hash(item) for item in items], np.uint64))

    def find_hashes(self, hashes: npt.NDArray[np.uint64]) -> ItemNumbers:
        """The numbers of items by the hashes in profiles, in the same shape; -1 for an unknown item or no item."""
        return self._index.find(hashes)

    def item_ids(self, numbers: ItemNumbers) -> list[str]:
        return [self._item_ids[n] for n in numbers.tolist()]

    def item_block(self, items: Sequence[str], numbers: ItemNumbers | None = None) -> Block:
        """The item block of these items (`numbers`: as `find` returns); unknown items have only their id."""
        self.encode_pending()
        if numbers is None:
            numbers = self.find(items)
        block = self._block.take(numbers)
        if len(unknown := np.flatnonzero(numbers < 0)):
            id_only = self._encoder.encode_items([UnknownItem(items[n]) for n in unknown.tolist()])
            block.numbers[unknown], block.ids[unknown] = id_only.numbers, id_only.ids
        return block

    def gather_known_items(self, numbers: ItemNumbers) -> Block:
        """The item block of known items."""
        self.encode_pending()
        return self._block.take(numbers)

    def read_feature(self, name: str, rows: ItemNumbers) -> npt.NDArray[Any]:
        """The values (N,) of a declared number or category of known items: a number, or the id of the category."""
        self.encode_pending()
        features = self._encoder.features
        numbers = [feature.name for feature in features.numbers("item")]
        values: npt.NDArray[Any]
        if name in numbers:
            values = self._block.numbers[rows, numbers.index(name)]
        else:
            (start,) = (span.start for span in features.spans("item") if span.feature.name == name)
            values = self._block.ids[rows, start]
        return values

    def item_embeddings(
        self, items: Sequence[str], numbers: ItemNumbers | None = None, model: Model | None = None
    ) -> npt.NDArray[np.float32]:
        """Item embeddings (N, H) of one of the active models (None: the serving one); `numbers` as `find` returns."""
        self.encode_pending()
        if numbers is None:
            numbers = self.find(items)
        if len(numbers) and numbers.min() >= 0:
            return self._embeddings.gather(model, numbers)
        return self._embeddings.resolve_model(model).item_part(self.item_block(items, numbers))

    def gather_known_embeddings(self, numbers: ItemNumbers, model: Model | None = None) -> npt.NDArray[np.float32]:
        """Item embeddings (N, H) of known items, of one of the active models (None: the serving one)."""
        self.encode_pending()
        return self._embeddings.gather(model, numbers)

    def _assign_number(self, product: Product) -> int | None:
        """The item's number; None where the catalogue is full."""
        key = item_hash(product.item_id)
        known = len(self)
        if known == self.items_max:
            if (n := self._index.get(key)) < 0:
                self._reject(product.item_id)
                return None
            return n
        n = self._index.add(key)
        if n == known:
            self._item_ids.append(product.item_id)
            self.first_seen_ms[n] = product.ts_ms
        return n

    def _reject(self, item_id: str) -> None:
        if not self._rejected:
            log.error(
                "`worker.items_max` should be at least the number of items. Found %d, and a new item %s: "
                "this and all further new items are not recommended.",
                self.items_max,
                item_id,
            )
        self._rejected += 1
        metrics.BAD_PRODUCTS.labels("beyond_items_max").inc()


class Vocabulary:
    """Integer codes of words, in the order in which they arrived; code 0 is no word."""

    def __init__(self) -> None:
        self.words = [""]
        self._codes = {"": 0}

    def __len__(self) -> int:
        return len(self.words)

    def find(self, words: Sequence[str]) -> list[int]:
        """The code of each word, -1 for one that has none."""
        return [self._codes.get(word, -1) for word in words]

    def encode(self, word: str | None) -> int:
        word = word or ""
        if (code := self._codes.get(word)) is None:
            code = self._codes[word] = len(self.words)
            self.words.append(word)
        return code


def allocate_block(encoder: Encoder, rows: int) -> Block:
    """A zero block of `rows` items; it takes no memory until it is written."""
    numbers, ids = encoder.features.widths("item")
    return Block(np.zeros((rows, numbers), np.float32), np.zeros((rows, ids), np.int64))
