"""The catalogue in memory: what every item is, as arrays, and which items are popular now."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from contract.encoding import Encoder, UnknownItem
from contract.events import Product
from contract.features import Block
from contract.hashing import hash_id
from worker.runtime import Model

HALF_LIFE_MS: Final = 24 * 3_600_000
POPULAR: Final = 200
AGE_MAX: Final = 500  # half-lives: far below where a power of two overflows


class Catalogue:
    """Items by number. Their blocks are encoded when a product arrives, their part of the network once per model."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._model: Model | None = None
        self.products: list[Product] = []
        self.number: dict[str, int] = {}
        self._by_hash: dict[int, int] = {}
        self._block = encoder.items([])
        self._parts: npt.NDArray[np.float32] | None = None
        self._changed: set[int] = set()

    def __len__(self) -> int:
        return len(self.products)

    def put(self, product: Product) -> None:
        """Take in what the products topic says of an item; its newest record counts."""
        n = self.number.setdefault(product.item_id, len(self.products))
        if n == len(self.products):
            self.products.append(product)
            self._by_hash[hash_id(f"item:{product.item_id}")] = n
        self.products[n] = product
        self._changed.add(n)

    def delist(self, item_id: str) -> None:
        """An item whose record was deleted from the topic is no longer for sale; lists that name it stay readable."""
        if (n := self.number.get(item_id)) is not None:
            self.products[n] = replace(self.products[n], available=False)

    def serve(self, model: Model | None) -> None:
        """From now on the items' parts are those of `model`."""
        model = model if model and model.can("items") else None
        if model is not self._model:
            self._model, self._parts = model, None

    def available(self, item_id: str) -> bool:
        n = self.number.get(item_id)
        return n is not None and self.products[n].available and self.products[n].stock != 0

    def seen(self, hashes: Sequence[int]) -> list[str]:
        """The items behind linked ids of profiles; ids of unknown items are left out."""
        return [self.products[self._by_hash[h]].item_id for h in hashes if h in self._by_hash]

    def block(self, items: Sequence[str]) -> Block:
        """The item block of these items; of those that no product record describes, all but the id is absent."""
        self._refresh()
        known = [n for item in items if (n := self.number.get(item)) is not None]
        if len(known) == len(items):
            return self._block.take(known)
        return self._encoder.items([self._describe(item) for item in items])

    def parts(self, items: Sequence[str]) -> npt.NDArray[np.float32]:
        """The items' part of the network (N, H); needs a model."""
        assert self._model is not None
        self._refresh()
        if self._parts is None or any(item not in self.number for item in items):
            return self._model.item_part(self.block(items))
        return self._parts[[self.number[item] for item in items]]

    def _describe(self, item: str) -> Product | UnknownItem:
        n = self.number.get(item)
        return UnknownItem(item) if n is None else self.products[n]

    def _refresh(self) -> None:
        if self._changed:
            self._grow()
            rows = sorted(self._changed)
            fresh = self._encoder.items([self.products[n] for n in rows])
            self._block.numbers[rows], self._block.ids[rows] = fresh.numbers, fresh.ids
            self._changed.clear()
            if self._parts is not None and self._model is not None:
                self._parts[rows] = self._model.item_part(fresh)
        if self._parts is None and self._model is not None and len(self.products):
            self._parts = self._model.item_part(self._block)

    def _grow(self) -> None:
        """Make room, doubling, so that a catalogue that arrives one by one is copied a few times only."""
        held = len(self._block)
        if len(self.products) <= held:
            return
        room = self._encoder.features.empty("item", max(len(self.products), 2 * held) - held)
        self._block = Block(
            np.concatenate((self._block.numbers, room.numbers)), np.concatenate((self._block.ids, room.ids))
        )
        self._parts = None


class Popularity:
    """How much each item is clicked and bought, halved by each day that passes; approximate, and never a feature."""

    def __init__(self) -> None:
        self._weight: dict[str, float] = {}
        self._as_of_ms = 0

    def note(self, item: str, ts_ms: int, weight: float) -> None:
        """Later events count more, relative to the first seen, so that nothing has to be halved one by one."""
        self._as_of_ms = self._as_of_ms or ts_ms
        if len(self._weight) >= 50 * POPULAR or self._age(ts_ms) > AGE_MAX:
            self._forget(max(ts_ms, self._as_of_ms))
        self._weight[item] = self._weight.get(item, 0.0) + weight * 2.0 ** self._age(ts_ms)

    def begin_with(self, items: Sequence[str]) -> None:
        """Popular items from elsewhere, for as long as there are few of our own."""
        for rank, item in enumerate(items):
            self._weight.setdefault(item, 1e-6 / (1 + rank))

    def top(self) -> list[str]:
        """The most popular items, the first one first."""
        return sorted(self._weight, key=lambda item: (-self._weight[item], item))[:POPULAR]

    def _age(self, ts_ms: int) -> float:
        return (ts_ms - self._as_of_ms) / HALF_LIFE_MS

    def _forget(self, now_ms: int) -> None:
        """Keep the larger half, and count from now on relative to now: weights stay finite and memory bounded."""
        share = 2.0 ** -self._age(now_ms)
        kept = sorted(self._weight, key=self._weight.__getitem__, reverse=True)[: 25 * POPULAR]
        self._weight = {item: self._weight[item] * share for item in kept}
        self._as_of_ms = now_ms
