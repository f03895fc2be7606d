"""A desk of the browsing lane: what one model says to clicks, searches and users whose list is due.

Apart from `worker.scoring.browsing`, which knows whose list is due and what all see, whichever model answers them.
"""

from collections.abc import Sequence

import numpy as np

from contract.events import Click
from contract.features.encoder import Encoder, list_entities
from contract.features.packing import split_rows
from contract.messages import Ranking, Recommendations, ScoredRow, ScoredRowBuilder
from contract.profiles.store import FoldedBatch
from contract.settings import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.catalogue.item_index import ItemNumbers
from worker.model.experiment import ActiveModels, trial_version
from worker.model.onnx_model import Model, Scores, to_logged_scores, to_rows
from worker.recommend.list_builder import GROUPS, ListBuilder, ListRequest
from worker.records.batch import Batch
from worker.retrieval.candidate_generator import CandidateGenerator
from worker.scoring.results import model_version
from worker.scoring.search_ranker import SearchRanker


class BrowsingHandler:
    """Answers with the serving model of a line-up; a shadow in it is heard and not heeded."""

    def __init__(
        self,
        *,
        lists: ListSettings,
        encoder: Encoder,
        catalogue: Catalogue,
        candidate_generator: CandidateGenerator,
        models: ActiveModels,
    ) -> None:
        self._encoder, self._catalogue = encoder, catalogue
        self._list_builder = ListBuilder(
            lists=lists, encoder=encoder, catalogue=catalogue, candidate_generator=candidate_generator
        )
        self._search_ranker = SearchRanker(encoder=encoder, catalogue=catalogue, items_max=lists.candidates)
        supporting = models.supporting("recommend")
        self._model, self._shadow = supporting.serving, supporting.shadow
        self._list_builder.activate(*models)
        self._search_ranker.activate(*models)

    def rank_searches(self, batch: Batch, rows: list[int], memory: FoldedBatch) -> list[tuple[Ranking, ScoredRow]]:
        """The ranking of each search among the batch's arrivals `rows`."""
        return self._search_ranker.rank(batch, rows, memory)

    def build_lists(
        self, requests: Sequence[ListRequest], memory: FoldedBatch, now_ms: int
    ) -> list[tuple[Recommendations, ScoredRow]]:
        """A list for each wish for which there is any candidate."""
        return self._list_builder.build(requests, memory, now_ms)

    def score_clicks(self, batch: Batch, rows: list[int], memory: FoldedBatch, viewed: ItemNumbers) -> list[ScoredRow]:
        """The scored row of each click: the user before it, the item, and what we thought of the pair."""
        blocks = self._encoder.encode_before(memory, rows, GROUPS)
        arrivals = [batch.arrivals[row] for row in rows]
        items = [click.item_id for a in arrivals if isinstance(click := a.event, Click)]

        def score(model: Model) -> Scores:
            embeddings = self._catalogue.item_embeddings(items, viewed[rows], model)
            return model.run("recommend", blocks, item_part=embeddings, user=np.arange(len(rows)))

        scores = score(self._model) if self._model else {}
        shadow_scores = self._shadow.predict_shadow(len(rows), score) if self._shadow else {}
        blocks["item"] = self._catalogue.item_block(items, viewed[rows])
        served = ScoredRowBuilder(
            self._encoder.features.digest, model_version(self._model), trial_version(self._shadow)
        )
        scores_by_row = (to_rows(scores, len(rows)), to_rows(shadow_scores, len(rows)))
        columns = (arrivals, split_rows(blocks), items, *scores_by_row, list_entities(memory, rows))
        return [
            served.build(
                "click",
                arrival,
                groups,
                items=(item,),
                scores=to_logged_scores(row_scores),
                shadow=to_logged_scores(row_shadow),
                entities=entities,
            )
            for arrival, groups, item, row_scores, row_shadow, entities in zip(*columns, strict=True)
        ]
