"""Item embeddings: the output of each active model's item graph for every item, by item number.

Embeddings of a new model are computed in chunks while the present models answer, and used once they are complete.
During a trial both models' embeddings are kept: (items, H) float32 each, 256 MB for a million items with H = 64.
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
ITEMS_PER_RUN: Final = 1_024  # items of one run of the graph: ten milliseconds


class ModelEmbeddings:
    """The embeddings of one model: (items, H), computed up to some item; `error` is why there are none."""

    def __init__(self, model: Model, items_max: int) -> None:
        self.model = model
        self._items_max = items_max
        self._embeddings: npt.NDArray[np.float32] | None = None
        self._computed = 0
        self.error: Exception | None = None

    def is_complete(self, items: int) -> bool:
        """Whether all `items` are computed, or the model failed."""
        return self._computed >= items or self.error is not None

    def compute_next(self, block: Block, items: int) -> bool:
        """Compute the next chunk; returns `is_complete`."""
        if not self.is_complete(items):
            end = min(self._computed + ITEMS_PER_RUN, items)
            self._compute(
                np.arange(self._computed, end),
                Block(block.numbers[self._computed : end], block.ids[self._computed : end]),
            )
            self._computed = end
        return self.is_complete(items)

    def update(self, rows: ItemNumbers, changed: Block) -> None:
        """Recompute the rows that were computed before; later rows are computed from their newest block."""
        is_computed = rows < self._computed
        if is_computed.any() and not self.error:
            self._compute(rows[is_computed], changed.take(np.flatnonzero(is_computed)))

    def gather(self, numbers: ItemNumbers) -> npt.NDArray[np.float32]:
        """The embeddings (N, H) of these items; raises the error of a model that failed."""
        if self.error:
            raise self.error
        if self._embeddings is None:
            return np.zeros((len(numbers), 1), np.float32)
        embeddings: npt.NDArray[np.float32] = self._embeddings[numbers]
        return embeddings

    def _compute(self, rows: ItemNumbers, block: Block) -> None:
        try:
            embeddings = self.model.item_part(block)
        except Exception as error:  # fatal for the serving model only; a trial model logs it when it is asked
            self.error = error
            return
        if self._embeddings is None:
            self._embeddings = np.zeros((self._items_max, embeddings.shape[1]), np.float32)
        self._embeddings[rows] = embeddings


class ItemEmbeddings:
    """The embeddings of the active models, the serving one first, and of models in preparation.

    A failure of the serving model ends the process; a trial model that fails answers nothing.
    """

    def __init__(self, items_max: int) -> None:
        self._items_max = items_max
        self._serving: Model | None = None
        self._active = list[ModelEmbeddings]()
        self._preparing = list[ModelEmbeddings]()

    def update(self, rows: ItemNumbers, changed: Block, block: Block, items: int) -> None:
        """Recompute changed rows and compute new ones; afterwards every active model has all `items`."""
        for embeddings in dict.fromkeys([*self._active, *self._preparing]):
            embeddings.update(rows, changed)
        for embeddings in self._active:
            while not embeddings.compute_next(block, items):
                pass
        self._raise_if_failed()

    def prepare(self, models: Sequence[Model | None], block: Block, items: int) -> bool:
        """Compute a chunk that these models lack; whether they lack nothing, so that `activate` causes no pause."""
        supporting = [model for model in models if model is not None and model.has_graph("items")]
        if [embeddings.model for embeddings in self._preparing] != supporting:
            known = {id(embeddings.model): embeddings for embeddings in [*self._preparing, *self._active]}
            self._preparing = [known.get(id(model)) or ModelEmbeddings(model, self._items_max) for model in supporting]
        for embeddings in self._preparing:
            if not embeddings.is_complete(items):
                embeddings.compute_next(block, items)
                return False  # also after the last chunk: activation happens in a step of its own
        return True

    def activate(self, models: Sequence[Model | None], block: Block, items: int) -> None:
        """Make these the active models; missing embeddings are computed now."""
        while not self.prepare(models, block, items):
            pass
        self._active = self._preparing
        self._preparing = []
        self._serving = next(iter(models), None)
        self._raise_if_failed()

    def gather(self, model: Model | None, numbers: ItemNumbers) -> npt.NDArray[np.float32]:
        """The embeddings (N, H) of known items by an active model (None: the serving one)."""
        model = self.resolve_model(model)
        return next(embeddings for embeddings in self._active if embeddings.model is model).gather(numbers)

    def resolve_model(self, model: Model | None) -> Model:
        """The model itself, or the serving one for None."""
        resolved = model or self._serving
        assert resolved is not None
        return resolved

    def _raise_if_failed(self) -> None:
        for embeddings in self._active:
            if embeddings.model is self._serving and embeddings.error:
                raise embeddings.error
