"""Rejected updates on disk: their reasons, their networks, and the feedback that the learner skips because of them.

    BUNDLES/refused/VERSION.json             this file's `RejectedUpdate`
    BUNDLES/refused/checkpoints/VERSION.pt   the rejected network, of the newest few

The learner continues behind the feedback of a rejected update, or one poisoned batch would be rejected again and again.
The same holds for the feedback of a bundle that was rolled back. After several rejections in a row the serving model
is frozen, until an operator settles them or another bundle serves.
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
    """The fields of `BUNDLES/learner.json` that the monitor reads; the file has more."""

    frozen: bool = False


def is_frozen(bundles: Path) -> bool:
    """Whether the learner's last run reported the model as frozen; without a readable file it is not."""
    try:
        return msgspec.json.decode((bundles / STATE_FILE).read_bytes(), type=LearnerState).frozen
    except (OSError, msgspec.MsgspecError):
        return False


class RejectedUpdate(Struct, frozen=True, kw_only=True):
    """`positions`: after the feedback it read. `figures`: the gate's metrics by set and task. `settled`: reviewed."""

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
    """The folder of rejected updates."""

    def __init__(self, bundles: Path) -> None:
        self._bundles = bundles
        self._folder = bundles / "refused"

    def add(self, update: RejectedUpdate, candidate: Checkpoint | None) -> None:
        """Store an update; raises `BadBundle`. Its record is written last: with it the learner skips the feedback."""
        if candidate:
            write_checkpoint(self._folder, candidate)
        self._write(update)
        delete_oldest(self._folder / "checkpoints", "*.pt", CHECKPOINTS_MAX)
        delete_oldest(self._folder, "*.json", RECORDS_MAX)

    def list_unsettled(self, parent: str) -> list[RejectedUpdate]:
        """The rejected updates of a serving model that are not settled, oldest first."""
        return [update for update in self._read_children(parent) if not update.settled]

    def settle(self, parent: str) -> int:
        """Mark the updates as reviewed: they no longer freeze the model, and stay skipped. Returns their number."""
        updates = self.list_unsettled(parent)
        for update in updates:
            self._write(msgspec.structs.replace(update, settled=True))
        return len(updates)

    def resume_positions(self, parent: str, positions: Mapping[str, int]) -> dict[str, int]:
        """Where to read on: after all that the serving model learned, or that was rejected or rolled back since.

        The latest decision counts and not the highest offset, since a recreated topic begins at 0 again.
        """
        skipped = [(update.created_ms, update.positions) for update in self._read_children(parent)]
        skipped += [(manifest.created_ms, manifest.positions) for manifest in list_descendants(self._bundles, parent)]
        resumed = dict(positions)
        for _, later in sorted(skipped, key=lambda entry: entry[0]):
            resumed |= later
        return resumed

    def _read_children(self, parent: str) -> Iterator[RejectedUpdate]:
        for path in sorted(self._folder.glob("*.json")):
            try:
                update = msgspec.json.decode(path.read_bytes(), type=RejectedUpdate)
            except (OSError, msgspec.MsgspecError) as error:
                raise BadBundle(f"{path} should be the record of a rejected update. Found: {error}") from error
            if update.parent == parent:
                yield update

    def _write(self, update: RejectedUpdate) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadBundle(f"{self._folder} should be a folder. Found: {error}") from error
        replace_durably(self._folder / f"{update.version}.json", msgspec.json.encode(update))


def list_descendants(bundles: Path, serving: str) -> list[Manifest]:
    """The bundles that descend from the serving one: those that were rolled back."""
    later = [path.parent.name for path in bundles.glob("*/READY") if path.parent.name > serving]
    versions = {serving}
    descendants = list[Manifest]()
    for version in sorted(later):
        manifest = read_manifest(bundles, version)
        if manifest.parent in versions:
            versions.add(manifest.version)
            descendants.append(manifest)
    return descendants


def delete_oldest(folder: Path, pattern: str, count: int) -> None:
    """Delete all but the newest `count` files; their names sort by time."""
    for path in sorted(folder.glob(pattern))[:-count]:
        path.unlink(missing_ok=True)
