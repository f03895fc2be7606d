"""`python -m contract.profiles.warmup` compiles the folds ahead, so that no process pays for it when it is started first.

A process still loads what was compiled, for about a second: a worker does it before it joins its group.
"""

from contract.events import Search
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import fold


def load_folds() -> None:
    """Fold one event and look at it: what numba compiles is kept beside the code, and loaded from there."""
    search = Search(event_id="compiled", ts_ms=0, user_id="compiled", query="")
    updates = to_updates([Arrival("searches/0", 0, search)])
    fold([{}], updates).read_at(updates.entities, [0])


if __name__ == "__main__":
    load_folds()
