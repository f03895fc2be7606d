"""The stream of `bench learning`: a shop whose world begins to change, as the learner is fed with it.

Its events become examples by the code that serves. Each revision is fed at the time when its newest label became known,
and an example is judged by its last revision, which nobody has seen before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from bench.quality.calibration import simulate_events
from contract.features.declaration import FeatureSet
from contract.hashing import hash_texts
from contract.messages import Example, to_msgpack
from contract.settings import Settings
from demo.simulator.concept_drift import ConceptDrift
from demo.simulator.shop import OPENED_MS, ShopSimulator
from training.data.examples import Examples, from_rows
from training.replay.replay import Replay

DAY_MS: Final = 86_400_000
HELD_OUT_ONE_IN: Final = 8  # one in so many examples from before the drift is learned by nobody
SETTLING_DAYS: Final = 1.0  # after the end, so that labels of the last hours are known

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ShopSize:
    """How large the shop is, and how long it stays the same and then changes."""

    people: int
    items: int
    stable_days: float
    drifting_days: float

    @property
    def drift_start_ms(self) -> int:
        return OPENED_MS + int(self.stable_days * DAY_MS)

    @property
    def drift_end_ms(self) -> int:
        return self.drift_start_ms + int(self.drifting_days * DAY_MS)


@dataclass(frozen=True, slots=True)
class RevisionStream:
    """Revisions as bytes in the order in which they became known, at `told_ms` (N,), and how all turned out.

    `old`: held out from before the drift. `coming`: the examples of the drifting days, which are judged.
    """

    size: ShopSize
    features: FeatureSet
    settings: Settings
    revisions: Sequence[bytes]
    known_ms: Integers
    before_drift: Examples
    during_drift: Examples

    def select_between(self, after_ms: int, until_ms: int) -> list[bytes]:
        """What became known in that time, the end included."""
        first, end = np.searchsorted(self.known_ms, [after_ms, until_ms], side="right")
        return list(self.revisions[first:end])


def load_or_simulate(
    size: ShopSize, seed: int, settings: Settings, features: FeatureSet, cache_folder: Path | None = None
) -> RevisionStream:
    """Let the shop live; `kept`: a folder that has what it lived through, by its name, for the next time."""
    name = f"drift-{seed}-{size.people}-{size.items}-{size.stable_days:g}-{size.drifting_days:g}-{features.digest}"
    path = cache_folder / f"{name}.msgpack" if cache_folder else None
    if path and path.is_file():
        rows = msgspec.msgpack.decode(path.read_bytes(), type=list[Example])
    else:
        rows = simulate_revisions(size, seed, settings, features)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_msgpack(rows))
    return build_stream(rows, size, settings, features)


def simulate_revisions(size: ShopSize, seed: int, settings: Settings, features: FeatureSet) -> list[Example]:
    """Every revision of every example of the shop's days."""
    drift = ConceptDrift(seed=seed, start_days=size.stable_days)
    shop = ShopSimulator(seed, users=size.people, items=size.items, drift=drift)
    replay = Replay(features=features, tasks=settings.tasks, feedback=settings.feedback)
    days = size.stable_days + size.drifting_days + SETTLING_DAYS
    return replay.run(simulate_events(shop, days))


def build_stream(rows: Sequence[Example], size: ShopSize, settings: Settings, features: FeatureSet) -> RevisionStream:
    examples = from_rows(rows, features, settings.tasks)
    is_old = (examples.ts_ms < size.drift_start_ms) & (
        hash_texts(examples.example_id.tolist()) % np.uint64(HELD_OUT_ONE_IN) == 0
    )
    held_out_ids = set(examples.example_id[is_old].tolist())
    ordered_rows = sorted((row for row in rows if row.example_id not in held_out_ids), key=get_known_ms)
    return RevisionStream(
        size=size,
        features=features,
        settings=settings,
        revisions=[to_msgpack(row) for row in ordered_rows],
        known_ms=np.array([get_known_ms(row) for row in ordered_rows], np.int64),
        before_drift=examples.take(is_old),
        during_drift=examples.take((examples.ts_ms >= size.drift_start_ms) & (examples.ts_ms < size.drift_end_ms)),
    )


def get_known_ms(row: Example) -> int:
    """When a revision could first be said."""
    return max(row.known_ms.values(), default=row.ts_ms)
