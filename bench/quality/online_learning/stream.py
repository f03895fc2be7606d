"""The stream of `bench learning`: a shop that begins to drift, as the learner receives it.

The shop's events become examples by the serving code. Each revision arrives when its newest label becomes known; an
example is evaluated by its last revision.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from bench.quality.simulated_shop import LIBRARIES, SHOP_CODE_PATHS, simulate_events
from bench.results.cache import load_or_make
from bench.results.digest import digest_inputs
from contract.arrays import Integers
from contract.features.declaration import FeatureSet
from contract.hashing import hash_texts
from contract.messages import Example, to_msgpack
from contract.settings.reading import Settings
from contract.units import DAY_MS
from demo.simulator.concept_drift import ConceptDrift
from demo.simulator.shop import OPENED_MS, ShopSimulator
from training.data.examples import Examples, from_rows
from training.replay.replay import Replay

HELD_OUT_ONE_IN: Final = 8  # one in eight examples from before the drift is held out from training
SETTLING_DAYS: Final = 1.0  # simulated after the end, for the labels of the last hours

CODE_PATHS: Final = (*SHOP_CODE_PATHS, "bench/quality/online_learning/stream.py")


@dataclass(frozen=True, slots=True)
class ShopSize:
    """Size of the shop, and its days before and during the drift."""

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
    """N encoded revisions in the order of `known_ms` (N,), when each became known, and the test examples.

    `before_drift`: held out from before the drift. `during_drift`: all examples of the drifting days.
    """

    size: ShopSize
    features: FeatureSet
    settings: Settings
    revisions: Sequence[bytes]
    known_ms: Integers
    before_drift: Examples
    during_drift: Examples

    def select_between(self, after_ms: int, until_ms: int) -> list[bytes]:
        """The revisions that became known after `after_ms`, until `until_ms` inclusive."""
        first, end = np.searchsorted(self.known_ms, [after_ms, until_ms], side="right")
        return list(self.revisions[first:end])


def load_or_simulate(
    size: ShopSize, seed: int, settings: Settings, features: FeatureSet, cache_folder: Path | None = None
) -> RevisionStream:
    """Simulate the shop; `cache_folder` keeps the revisions while their code stays the same."""
    if cache_folder is None:
        return build_stream(simulate_revisions(size, seed, settings, features), size, settings, features)
    name = f"drift-{seed}-{size.people}-{size.items}-{size.stable_days:g}-{size.drifting_days:g}.msgpack"
    path = cache_folder / name
    digest = f"{digest_inputs(CODE_PATHS, libraries=LIBRARIES)} {features.digest}"
    rows = load_or_make(
        path,
        digest,
        lambda: path.write_bytes(to_msgpack(simulate_revisions(size, seed, settings, features))),
        read=read_revisions,
    )
    return build_stream(rows, size, settings, features)


def read_revisions(path: Path) -> list[Example]:
    return msgspec.msgpack.decode(path.read_bytes(), type=list[Example])


def simulate_revisions(size: ShopSize, seed: int, settings: Settings, features: FeatureSet) -> list[Example]:
    """Every revision of every example of the simulated days."""
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
    """When a revision could be published at the earliest."""
    return max(row.known_ms.values(), default=row.ts_ms)
