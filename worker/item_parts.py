"""Item parts: what each model that answers makes of every item, by the item's number.

A model's own part of each item is made beside those that serve, a slice at a time, and taken up when it is whole. While
a challenger stands beside the serving model both are kept: (items, H) float32 each, 256 MB for a million of H = 64.
"""

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.features import Block
from worker.item_index import Numbers
from worker.runtime import Model

log = logging.getLogger(__name__)
SLICE: Final = 1_024  # items whose part is made in one run of a graph: ten milliseconds


class Parts:
    """What one model makes of each item: (items, H), row by row as far as `made`; `failed`: why it makes none."""

    def __init__(self, model: Model, items_max: int) -> None:
        self.model, self._items_max = model, items_max
        self._rows: npt.NDArray[np.float32] | None = None
        self._made = 0
        self.failed: Exception | None = None

    def whole(self, items: int) -> bool:
        """Whether all `items` are made, or none ever will be."""
        return self._made >= items or self.failed is not None

    def go_on(self, block: Block, items: int) -> bool:
        """Make the next slice; whether all `items` are made, or none ever will be."""
        if not self.whole(items):
            end = min(self._made + SLICE, items)
            self._put(np.arange(self._made, end), Block(block.numbers[self._made : end], block.ids[self._made : end]))
            self._made = end
        return self.whole(items)

    def renew(self, rows: Numbers, fresh: Block) -> None:
        """These rows have changed; those that are still to be made will be made from what they are then."""
        old = rows < self._made
        if old.any() and not self.failed:
            self._put(rows[old], fresh.take(np.flatnonzero(old)))

    def of(self, numbers: Numbers) -> npt.NDArray[np.float32]:
        """The parts (N, H) of these items; raises what hindered making them."""
        if self.failed:
            raise self.failed
        if self._rows is None:
            return np.zeros((len(numbers), 1), np.float32)
        found: npt.NDArray[np.float32] = self._rows[numbers]
        return found

    def _put(self, rows: Numbers, block: Block) -> None:
        try:
            part = self.model.item_part(block)
        except Exception as error:  # whether it matters hangs on who serves
            self.failed = error
            return
        if self._rows is None:
            self._rows = np.zeros((self._items_max, part.shape[1]), np.float32)
        self._rows[rows] = part


class ItemParts:
    """The parts of the models that answer, the serving one first, and of those that are to come.

    What fails in the serving model ends the process; a challenger of which that is true answers nothing.
    """

    def __init__(self, items_max: int) -> None:
        self._items_max = items_max
        self._serving: Model | None = None
        self._answering = list[Parts]()
        self._coming = list[Parts]()

    def renew(self, rows: Numbers, fresh: Block, block: Block, items: int) -> None:
        """These rows have changed, or are new; afterwards every answering model has all `items`."""
        for parts in dict.fromkeys([*self._answering, *self._coming]):
            parts.renew(rows, fresh)
        for parts in self._answering:
            while not parts.go_on(block, items):
                pass
        self._check()

    def prepare(self, models: Sequence[Model | None], block: Block, items: int) -> bool:
        """Make a slice of what coming models lack, or tell that they lack nothing and can serve without a pause."""
        able = [model for model in models if model is not None and model.can("items")]
        if [parts.model for parts in self._coming] != able:
            known = {id(parts.model): parts for parts in [*self._coming, *self._answering]}
            self._coming = [known.get(id(model)) or Parts(model, self._items_max) for model in able]
        for parts in self._coming:
            if not parts.whole(items):
                parts.go_on(block, items)
                return False  # also where that was the last one: taking up has a time of its own
        return True

    def serve(self, models: Sequence[Model | None], block: Block, items: int) -> None:
        """From now on these models answer; what is not prepared is made now."""
        while not self.prepare(models, block, items):
            pass
        self._answering, self._coming, self._serving = self._coming, [], next(iter(models), None)
        self._check()

    def of(self, model: Model | None, numbers: Numbers) -> npt.NDArray[np.float32]:
        """The parts (N, H) that an answering model (None: the serving one) made of known items."""
        model = self.model(model)
        return next(parts for parts in self._answering if parts.model is model).of(numbers)

    def model(self, model: Model | None) -> Model:
        """The answering model itself."""
        found = model or self._serving
        assert found is not None
        return found

    def _check(self) -> None:
        for parts in self._answering:
            if parts.model is self._serving and parts.failed:
                raise parts.failed
