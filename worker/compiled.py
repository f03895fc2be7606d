"""`python -m worker.compiled` compiles ahead what workers run compiled, as `contract.compiled` does for folds."""

import numpy as np

from contract.compiled import load_folds
from contract.encoding import Encoder
from contract.features import FeatureSet
from contract.profiles import RING_SIZE
from contract.settings import ListSettings
from worker.candidates import CandidateGenerator
from worker.catalogue import Catalogue
from worker.fresh import FreshItems
from worker.nearby import ItemNeighbours
from worker.popularity import Popularity
from worker.replies import ReplyReader

REPLY = b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"


def warm_up() -> None:
    """Fold one event, read one reply, draw one list: what numba compiles is kept beside the code, and loaded."""
    load_folds()
    ReplyReader().read(1, receive_reply)
    warm_up_candidates()


def receive_reply(buffer: memoryview) -> int:
    buffer[: len(REPLY)] = REPLY
    return len(REPLY)


def warm_up_candidates() -> None:
    """Candidates for one user from a shop without items."""
    catalogue, lists = Catalogue(Encoder(FeatureSet(())), 2), ListSettings()
    nearby, popularity = ItemNeighbours(catalogue), Popularity(catalogue, lists.purchase_value)
    nearby.co_visits.record(np.array([0]), np.array([1]), 1)
    popularity.rank()
    candidates = CandidateGenerator(
        catalogue=catalogue,
        neighbours=nearby,
        popularity=popularity,
        fresh_items=FreshItems(catalogue, lists),
        candidates_max=lists.candidates,
    )
    candidates.generate(np.zeros((1, RING_SIZE), np.uint64), [np.zeros(0, np.int64)], [0])


if __name__ == "__main__":
    warm_up()
