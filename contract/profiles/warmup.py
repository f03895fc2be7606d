"""`python -m contract.profiles.warmup` compiles the folds ahead of time, so that no process has to at its first start.

Loading the compiled code still takes about a second; a worker does it before it joins its consumer group.
"""

from contract.events.model import Search
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import fold


def load_folds() -> None:
    """Fold one event and read its entity; numba caches the compiled code next to the module and loads it from there."""
    search = Search(event_id="compiled", ts_ms=0, user_id="compiled", query="")
    updates = to_updates([Arrival("searches/0", 0, search)])
    fold([{}], updates).read_at(updates.entities, [0])


if __name__ == "__main__":
    load_folds()
