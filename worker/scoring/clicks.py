"""Scores clicks: each gets a scored row of its user and item, from which the joiner makes examples."""

from collections.abc import Sequence

import numpy as np

from contract.events.model import Click
from contract.features.encoder import list_entities
from contract.features.packing import split_rows
from contract.graphs import RECOMMEND
from contract.messages import ScoredRowBuilder
from contract.profiles.store import FoldedBatch
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.model.experiment import ActiveModels, model_version
from worker.model.onnx_model import Model, Scores, to_logged_scores, to_rows
from worker.records.answers import CLICK, Answer
from worker.records.batch import Batch
from worker.scoring.scorer import ScoringResources


class ClickHandler:
    """Scores clicks with one model; a shadow is scored and its scores are only logged."""

    def __init__(self, resources: ScoringResources, models: ActiveModels, is_canary: bool) -> None:
        self._encoder, self._catalogue = resources.encoder, resources.catalogue
        self._model, self._shadow = models.serving, models.shadow

    def answer(self, batch: Batch, rows: list[int], memory: FoldedBatch) -> list[Answer]:
        """The scored row of each of the batch's clicks `rows`: the user before the click, the item, the scores."""
        blocks = self._encoder.encode_before(memory, rows, RECOMMEND.event_groups)
        arrivals = [batch.arrivals[row] for row in rows]
        items = [click.item_id for arrival in arrivals if isinstance(click := arrival.event, Click)]
        viewed = find_viewed_items(self._catalogue, memory, rows)

        def score(model: Model) -> Scores:
            embeddings = self._catalogue.item_embeddings(items, viewed, model)
            return model.run(RECOMMEND.name, blocks, item_part=embeddings, user=np.arange(len(rows)))

        scores = score(self._model) if self._model else {}
        shadow_scores = self._shadow.predict_shadow(len(rows), score) if self._shadow else {}
        blocks["item"] = self._catalogue.item_block(items, viewed)
        builder = ScoredRowBuilder(
            self._encoder.features.digest, model_version(self._model), model_version(self._shadow)
        )
        columns = (
            arrivals,
            split_rows(blocks),
            items,
            to_logged_scores(to_rows(scores, len(rows))),
            to_logged_scores(to_rows(shadow_scores, len(rows))),
            list_entities(memory, rows),
        )
        return [
            Answer(
                CLICK,
                builder.build(
                    "click",
                    arrival,
                    groups,
                    items=(item,),
                    scores=row_scores,
                    shadow=row_shadow,
                    entities=entities,
                ),
            )
            for arrival, groups, item, row_scores, row_shadow, entities in zip(*columns, strict=True)
        ]


def find_viewed_items(catalogue: Catalogue, memory: FoldedBatch, rows: Sequence[int]) -> ItemNumbers:
    """The catalogue number of the item of each arrival (N,), -1 for none or an unknown one; links hold its hash."""
    updates = memory.updates
    first_touch = updates.find_first("item")[np.asarray(rows, np.int64)]
    if not len(updates.entity):
        return np.full(len(rows), -1, np.int64)
    numbers = catalogue.find_hashes(updates.id_hash[updates.entity[first_touch]])
    return np.where(first_touch < 0, -1, numbers)
