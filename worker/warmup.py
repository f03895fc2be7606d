"""`python -m worker.warmup` compiles the worker's numba code ahead, as `contract.profiles.warmup` does for folds."""

import numpy as np

from contract.features.declaration import FeatureSet
from contract.features.encoder import Encoder
from contract.profiles.record import RING_SIZE
from contract.profiles.warmup import load_folds
from contract.retrieval.features import HISTORY_MAX, build_features
from contract.retrieval.item_table import ItemTable, Neighbours
from contract.settings.list_rules import ListRule
from contract.settings.worker import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.redis.resp import ReplyReader
from worker.retrieval.candidate_generator import CandidateGenerator
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.histories import from_recent
from worker.retrieval.item_search import select_found
from worker.retrieval.kernels import find_strongest
from worker.retrieval.nearest import find_nearest
from worker.retrieval.popularity import Popularity
from worker.rules.hiding import Hidden
from worker.rules.kind_rules import KindRules

REPLY = b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"


def warm_up() -> None:
    """Fold one event, parse one reply, generate one list: numba caches the code next to the sources and loads it."""
    load_folds()
    ReplyReader().read(1, receive_reply)
    warm_up_candidates()


def receive_reply(buffer: memoryview) -> int:
    buffer[: len(REPLY)] = REPLY
    return len(REPLY)


def warm_up_candidates() -> None:
    """Generate candidates for one user of a shop without items."""
    catalogue, lists = Catalogue(Encoder(FeatureSet(())), 2), ListSettings()
    neighbours, popularity = ItemNeighbours(catalogue), Popularity(catalogue, lists.purchase_value)
    neighbours.co_visits.record(np.array([0]), np.array([1]), 1)
    popularity.rank()
    rules = KindRules([ListRule(name="cap", action="cap", max=1, per="brand")], catalogue, FeatureSet(()))
    rules.arrange(np.zeros(1, np.int64), np.zeros(1, np.float32), 1)
    candidates = CandidateGenerator(
        catalogue=catalogue,
        neighbours=neighbours,
        popularity=popularity,
        fresh_items=FreshItems(catalogue, lists),
        candidates_max=lists.candidates,
    )
    now_ms = np.zeros(1, np.int64)
    warm_up_retrieval()
    hidden = Hidden.of_items([np.zeros(0, np.int64)])
    candidates.generate(from_recent(np.zeros((1, RING_SIZE), np.uint64), now_ms), hidden, [0], now_ms)


def warm_up_retrieval() -> None:
    """Find and describe candidates for one user of a bundle with one item."""
    neighbours = Neighbours(np.zeros((1, 1), np.int32), np.ones((1, 1), np.float32), 1.0)
    counts, starts = np.ones(1, np.float32), np.array([0, 1])
    table = ItemTable(neighbours, neighbours, np.ones((1, 1), np.float32), counts, counts)
    history, no_rows = np.zeros((1, 1), np.int64), np.zeros(0, np.int64)
    find_nearest(table.vectors, table.vectors, np.zeros(1, np.float32), (no_rows, no_rows), 1)
    select_found(history, table.vectors.copy(), np.zeros(1, np.float32), (no_rows, no_rows), 1)
    find_strongest(history, tuple(neighbours), HISTORY_MAX, np.ones(1, np.bool_), no_rows, np.zeros(2, np.int64), 1)
    build_features(table, history, table.vectors, history[0], starts)


if __name__ == "__main__":
    warm_up()
