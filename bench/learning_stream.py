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

from bench.calibration import happened
from contract.features.declaration import FeatureSet
from contract.hashing import hash_texts
from contract.messages import Example, to_msgpack
from contract.settings import Settings
from demo.simulator.concept_drift import ConceptDrift
from demo.simulator.shop import OPENED_MS, ShopSimulator
from training.data.examples import Examples, from_rows
from training.replay.replay import Replay

DAY_MS: Final = 86_400_000
OLD_SHARE: Final = 8  # one in so many examples from before the drift is learned by nobody
SETTLING_DAYS: Final = 1.0  # after the end, so that labels of the last hours are known

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Scale:
    """How large the shop is, and how long it stays the same and then changes."""

    people: int
    items: int
    calm_days: float
    drifting_days: float

    @property
    def begins_ms(self) -> int:
        return OPENED_MS + int(self.calm_days * DAY_MS)

    @property
    def ends_ms(self) -> int:
        return self.begins_ms + int(self.drifting_days * DAY_MS)


@dataclass(frozen=True, slots=True)
class Stream:
    """Revisions as bytes in the order in which they became known, at `told_ms` (N,), and how all turned out.

    `old`: held out from before the drift. `coming`: the examples of the drifting days, which are judged.
    """

    scale: Scale
    features: FeatureSet
    settings: Settings
    values: Sequence[bytes]
    told_ms: Integers
    old: Examples
    coming: Examples

    def between(self, after_ms: int, until_ms: int) -> list[bytes]:
        """What became known in that time, the end included."""
        first, end = np.searchsorted(self.told_ms, [after_ms, until_ms], side="right")
        return list(self.values[first:end])


def lived(scale: Scale, seed: int, settings: Settings, features: FeatureSet, kept: Path | None = None) -> Stream:
    """Let the shop live; `kept`: a folder that has what it lived through, by its name, for the next time."""
    name = f"drift-{seed}-{scale.people}-{scale.items}-{scale.calm_days:g}-{scale.drifting_days:g}-{features.digest}"
    path = kept / f"{name}.msgpack" if kept else None
    if path and path.is_file():
        rows = msgspec.msgpack.decode(path.read_bytes(), type=list[Example])
    else:
        rows = revisions(scale, seed, settings, features)
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(to_msgpack(rows))
    return stream_of(rows, scale, settings, features)


def revisions(scale: Scale, seed: int, settings: Settings, features: FeatureSet) -> list[Example]:
    """Every revision of every example of the shop's days."""
    drift = ConceptDrift(seed=seed, start_days=scale.calm_days)
    shop = ShopSimulator(seed, users=scale.people, items=scale.items, drift=drift)
    replay = Replay(features=features, tasks=settings.tasks, feedback=settings.feedback)
    days = scale.calm_days + scale.drifting_days + SETTLING_DAYS
    return replay.run(happened(shop, days))


def stream_of(rows: Sequence[Example], scale: Scale, settings: Settings, features: FeatureSet) -> Stream:
    whole = from_rows(rows, features, settings.tasks)
    is_old = (whole.ts_ms < scale.begins_ms) & (hash_texts(whole.example_id.tolist()) % np.uint64(OLD_SHARE) == 0)
    withheld = set(whole.example_id[is_old].tolist())
    fed = sorted((row for row in rows if row.example_id not in withheld), key=told)
    return Stream(
        scale=scale,
        features=features,
        settings=settings,
        values=[to_msgpack(row) for row in fed],
        told_ms=np.array([told(row) for row in fed], np.int64),
        old=whole.take(is_old),
        coming=whole.take((whole.ts_ms >= scale.begins_ms) & (whole.ts_ms < scale.ends_ms)),
    )


def told(row: Example) -> int:
    """When a revision could first be said."""
    return max(row.known_ms.values(), default=row.ts_ms)
