"""`python -m worker.compiled` compiles ahead what workers run compiled, as `contract.compiled` does for folds."""

import numpy as np

from contract.compiled import load_folds
from contract.encoding import Encoder
from contract.features import FeatureSet
from contract.profiles import RING
from contract.settings import Lists
from worker.candidates import Candidates
from worker.catalogue import Catalogue
from worker.fresh import Fresh
from worker.nearby import Nearby
from worker.popularity import Popularity
from worker.replies import ReplyReader

REPLY = b"*2\r\n$1\r\na\r\n$1\r\nb\r\n"


def load_compiled() -> None:
    """Fold one event, read one reply, draw one list: what numba compiles is kept beside the code, and loaded."""
    load_folds()
    ReplyReader().read(1, load_reply)
    draw_nothing()


def load_reply(room: memoryview) -> int:
    room[: len(REPLY)] = REPLY
    return len(REPLY)


def draw_nothing() -> None:
    """Candidates for one user from a shop without items."""
    catalogue, lists = Catalogue(Encoder(FeatureSet(())), 2), Lists()
    nearby, popularity = Nearby(catalogue), Popularity(catalogue, lists.purchase_value)
    nearby.visits.note(np.array([0]), np.array([1]), 1)
    popularity.rank()
    candidates = Candidates(
        catalogue=catalogue,
        nearby=nearby,
        popularity=popularity,
        fresh=Fresh(catalogue, lists),
        candidates_max=lists.candidates,
    )
    candidates.draw(np.zeros((1, RING), np.uint64), [np.zeros(0, np.int64)], [0])


if __name__ == "__main__":
    load_compiled()
