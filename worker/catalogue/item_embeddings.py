"""Item parts: what each model that answers makes of every item, by the item's number.

A model's own part of each item is made beside those that serve, a slice at a time, and taken up when it is whole. While
a challenger stands beside the serving model both are kept: (items, H) float32 each, 256 MB for a million of H = 64.
"""

import logging
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from contract.features.declaration import Block
from worker.catalogue.item_index import ItemNumbers
from worker.model.onnx_model import Model

log = logging.getLogger(__name__)
ITEMS_PER_RUN: Final = 1_024  # items whose part is made in one run of a graph: ten milliseconds


class ModelEmbeddings:
    """What one model makes of each item: (items, H), row by row as far as `made`; `failed`: why it makes none."""

    def __init__(self, model: Model, items_max: int) -> None:
        self.model, self._items_max = model, items_max
        self._embeddings: npt.NDArray[np.float32] | None = None
        self._computed = 0
        self.error: Exception | None = None

    def is_complete(self, items: int) -> bool:
        """Whether all `items` are made, or none ever will be."""
        return self._computed >= items or self.error is not None

    def compute_next(self, block: Block, items: int) -> bool:
        """Make the next slice; whether all `items` are made, or none ever will be."""
        if not self.is_complete(items):
            end = min(self._computed + ITEMS_PER_RUN, items)
            self._compute(
                np.arange(self._computed, end),
                Block(block.numbers[self._computed : end], block.ids[self._computed : end]),
            )
            self._computed = end
        return self.is_complete(items)

    def update(self, rows: ItemNumbers, changed: Block) -> None:
        """These rows have changed; those that are still to be made will be made from what they are then."""
        is_computed = rows < self._computed
        if is_computed.any() and not self.error:
            self._compute(rows[is_computed], changed.take(np.flatnonzero(is_computed)))

    def gather(self, numbers: ItemNumbers) -> npt.NDArray[np.float32]:
        """The parts (N, H) of these items; raises what hindered making them."""
        if self.error:
            raise self.error
        if self._embeddings is None:
            return np.zeros((len(numbers), 1), np.float32)
        embeddings: npt.NDArray[np.float32] = self._embeddings[numbers]
        return embeddings

    def _compute(self, rows: ItemNumbers, block: Block) -> None:
        try:
            embeddings = self.model.item_part(block)
        except Exception as error:  # whether it matters hangs on who serves
            self.error = error
            return
        if self._embeddings is None:
            self._embeddings = np.zeros((self._items_max, embeddings.shape[1]), np.float32)
        self._embeddings[rows] = embeddings


class ItemEmbeddings:
    """The parts of the models that answer, the serving one first, and of those that are to come.

    What fails in the serving model ends the process; a challenger of which that is true answers nothing.
    """

    def __init__(self, items_max: int) -> None:
        self._items_max = items_max
        self._serving: Model | None = None
        self._active = list[ModelEmbeddings]()
        self._preparing = list[ModelEmbeddings]()

    def update(self, rows: ItemNumbers, changed: Block, block: Block, items: int) -> None:
        """These rows have changed, or are new; afterwards every answering model has all `items`."""
        for embeddings in dict.fromkeys([*self._active, *self._preparing]):
            embeddings.update(rows, changed)
        for embeddings in self._active:
            while not embeddings.compute_next(block, items):
                pass
        self._raise_if_failed()

    def prepare(self, models: Sequence[Model | None], block: Block, items: int) -> bool:
        """Make a slice of what coming models lack, or tell that they lack nothing and can serve without a pause."""
        supporting = [model for model in models if model is not None and model.has_graph("items")]
        if [embeddings.model for embeddings in self._preparing] != supporting:
            known = {id(embeddings.model): embeddings for embeddings in [*self._preparing, *self._active]}
            self._preparing = [known.get(id(model)) or ModelEmbeddings(model, self._items_max) for model in supporting]
        for embeddings in self._preparing:
            if not embeddings.is_complete(items):
                embeddings.compute_next(block, items)
                return False  # also where that was the last one: taking up has a time of its own
        return True

    def activate(self, models: Sequence[Model | None], block: Block, items: int) -> None:
        """From now on these models answer; what is not prepared is made now."""
        while not self.prepare(models, block, items):
            pass
        self._active, self._preparing, self._serving = self._preparing, [], next(iter(models), None)
        self._raise_if_failed()

    def gather(self, model: Model | None, numbers: ItemNumbers) -> npt.NDArray[np.float32]:
        """The parts (N, H) that an answering model (None: the serving one) made of known items."""
        model = self.resolve_model(model)
        return next(embeddings for embeddings in self._active if embeddings.model is model).gather(numbers)

    def resolve_model(self, model: Model | None) -> Model:
        """The answering model itself."""
        resolved = model or self._serving
        assert resolved is not None
        return resolved

    def _raise_if_failed(self) -> None:
        for embeddings in self._active:
            if embeddings.model is self._serving and embeddings.error:
                raise embeddings.error
