"""Updates that must not serve, kept aside with their reasons: out of the way of the pointer, and not tried again.

    BUNDLES/refused/VERSION.json             this file's `Refusal`
    BUNDLES/refused/checkpoints/VERSION.pt   the refused network itself, of the newest few

What a refused update had read is passed over: the learner goes on behind it, or one poisoned batch would be refused for
ever. The same goes for a bundle that was pointed back from. After some refusals in a row of one serving model it is
frozen, until a person has looked and settles them, or another bundle serves.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from contract.bundle import Manifest, read_manifest, replace_durably
from contract.errors import BadBundle
from model.checkpoint import Checkpoint, write_checkpoint
from training.trainer.evaluation import Evaluation

RECORDS_MAX: Final = 200
CHECKPOINTS_MAX: Final = 3
STATE_FILE: Final = "learner.json"


class LearnerState(Struct, frozen=True):
    """What programs that watch read of `BUNDLES/learner.json`, which has more in it."""

    frozen: bool = False


def is_frozen(bundles: Path) -> bool:
    """Whether the learner said so when it looked last; a learner that has never looked is not."""
    try:
        return msgspec.json.decode((bundles / STATE_FILE).read_bytes(), type=LearnerState).frozen
    except (OSError, msgspec.MsgspecError):
        return False


class RejectedUpdate(Struct, frozen=True, kw_only=True):
    """`positions`: behind what was read. `figures`: of the gate, by set and task. `settled`: counts no more."""

    version: str
    parent: str
    created_ms: int
    reasons: tuple[str, ...]
    examples: int
    positions: dict[str, int]
    left_out: dict[str, int] = {}
    progressive: Evaluation = {}
    held_out: Evaluation = {}
    figures: dict[str, dict[str, float]] = {}
    settled: bool = False


class RejectedUpdateStore:
    """The folder of refused updates."""

    def __init__(self, bundles: Path) -> None:
        self._bundles, self._folder = bundles, bundles / "refused"

    def add(self, update: RejectedUpdate, candidate: Checkpoint | None) -> None:
        """Keep an update, its record last, since that is what moves the learner on; raises `BadBundle`."""
        if candidate:
            write_checkpoint(self._folder, candidate)
        self._write(update)
        delete_oldest(self._folder / "checkpoints", "*.pt", CHECKPOINTS_MAX)
        delete_oldest(self._folder, "*.json", RECORDS_MAX)

    def list_unsettled(self, parent: str) -> list[RejectedUpdate]:
        """The refused updates of a serving model that nobody has settled, in their order."""
        return [update for update in self._read_children(parent) if not update.settled]

    def settle(self, parent: str) -> int:
        """A person has looked: they count no more, though what they had read stays passed over. Returns how many."""
        updates = self.list_unsettled(parent)
        for update in updates:
            self._write(msgspec.structs.replace(update, settled=True))
        return len(updates)

    def resume_positions(self, parent: str, positions: Mapping[str, int]) -> dict[str, int]:
        """Where to go on: behind what the serving model has learned, was refused, or was pointed back from."""
        skipped = [(update.created_ms, update.positions) for update in self._read_children(parent)]
        skipped += [(manifest.created_ms, manifest.positions) for manifest in list_descendants(self._bundles, parent)]
        resumed = dict(positions)
        for _, later in sorted(skipped, key=lambda entry: entry[0]):
            resumed |= later  # and not the furthest: a topic that was made anew begins at 0 again
        return resumed

    def _read_children(self, parent: str) -> Iterator[RejectedUpdate]:
        for path in sorted(self._folder.glob("*.json")):
            try:
                update = msgspec.json.decode(path.read_bytes(), type=RejectedUpdate)
            except (OSError, msgspec.MsgspecError) as error:
                raise BadBundle(f"{path} should tell of a refused update. Found: {error}") from error
            if update.parent == parent:
                yield update

    def _write(self, update: RejectedUpdate) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadBundle(f"{self._folder} should be a folder. Found: {error}") from error
        replace_durably(self._folder / f"{update.version}.json", msgspec.json.encode(update))


def list_descendants(bundles: Path, serving: str) -> list[Manifest]:
    """The bundles that descend from the serving one: they were pointed back from."""
    later = [path.parent.name for path in bundles.glob("*/READY") if path.parent.name > serving]
    manifests, versions = [read_manifest(bundles, version) for version in sorted(later)], {serving}
    descendants = list[Manifest]()
    for manifest in manifests:
        if manifest.parent in versions:
            versions.add(manifest.version)
            descendants.append(manifest)
    return descendants


def delete_oldest(folder: Path, pattern: str, count: int) -> None:
    """Delete all but the newest files; their names sort by time."""
    for path in sorted(folder.glob(pattern))[:-count]:
        path.unlink(missing_ok=True)
