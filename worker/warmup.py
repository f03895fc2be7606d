"""`python -m worker.warmup` compiles the worker's numba code ahead, as `contract.profiles.warmup` does for folds."""

import numpy as np

from contract.features.declaration import FeatureSet
from contract.features.encoder import Encoder
from contract.profiles.record import RING_SIZE
from contract.profiles.warmup import load_folds
from contract.settings.worker import ListSettings
from worker.catalogue.catalogue import Catalogue
from worker.redis.resp import ReplyReader
from worker.retrieval.candidate_generator import CandidateGenerator
from worker.retrieval.co_visitation import ItemNeighbours
from worker.retrieval.exploration import FreshItems
from worker.retrieval.histories import from_recent
from worker.retrieval.popularity import Popularity

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
    candidates = CandidateGenerator(
        catalogue=catalogue,
        neighbours=neighbours,
        popularity=popularity,
        fresh_items=FreshItems(catalogue, lists),
        candidates_max=lists.candidates,
    )
    now_ms = np.zeros(1, np.int64)
    candidates.generate(from_recent(np.zeros((1, RING_SIZE), np.uint64), now_ms), [np.zeros(0, np.int64)], [0], now_ms)


if __name__ == "__main__":
    warm_up()
