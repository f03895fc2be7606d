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
from training.evaluation import Evaluation

RECORDS_MAX: Final = 200
CHECKPOINTS_MAX: Final = 3
STATE: Final = "learner.json"


class State(Struct, frozen=True):
    """What programs that watch read of `BUNDLES/learner.json`, which has more in it."""

    frozen: bool = False


def is_frozen(bundles: Path) -> bool:
    """Whether the learner said so when it looked last; a learner that has never looked is not."""
    try:
        return msgspec.json.decode((bundles / STATE).read_bytes(), type=State).frozen
    except (OSError, msgspec.MsgspecError):
        return False


class Refusal(Struct, frozen=True, kw_only=True):
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


class Refused:
    """The folder of refused updates."""

    def __init__(self, bundles: Path) -> None:
        self._bundles, self._folder = bundles, bundles / "refused"

    def keep(self, refusal: Refusal, candidate: Checkpoint | None) -> None:
        """Keep an update, its record last, since that is what moves the learner on; raises `BadBundle`."""
        if candidate:
            write_checkpoint(self._folder, candidate)
        self._write(refusal)
        oldest(self._folder / "checkpoints", "*.pt", CHECKPOINTS_MAX)
        oldest(self._folder, "*.json", RECORDS_MAX)

    def unsettled(self, parent: str) -> list[Refusal]:
        """The refused updates of a serving model that nobody has settled, in their order."""
        return [refusal for refusal in self._of(parent) if not refusal.settled]

    def settle(self, parent: str) -> int:
        """A person has looked: they count no more, though what they had read stays passed over. Returns how many."""
        found = self.unsettled(parent)
        for refusal in found:
            self._write(msgspec.structs.replace(refusal, settled=True))
        return len(found)

    def behind(self, parent: str, positions: Mapping[str, int]) -> dict[str, int]:
        """Where to go on: behind what the serving model has learned, was refused, or was pointed back from."""
        passed = [(refusal.created_ms, refusal.positions) for refusal in self._of(parent)]
        passed += [(manifest.created_ms, manifest.positions) for manifest in taken_back(self._bundles, parent)]
        found = dict(positions)
        for _, later in sorted(passed, key=lambda one: one[0]):
            found |= later  # and not the furthest: a topic that was made anew begins at 0 again
        return found

    def _of(self, parent: str) -> Iterator[Refusal]:
        for path in sorted(self._folder.glob("*.json")):
            try:
                refusal = msgspec.json.decode(path.read_bytes(), type=Refusal)
            except (OSError, msgspec.MsgspecError) as error:
                raise BadBundle(f"{path} should tell of a refused update. Found: {error}") from error
            if refusal.parent == parent:
                yield refusal

    def _write(self, refusal: Refusal) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadBundle(f"{self._folder} should be a folder. Found: {error}") from error
        replace_durably(self._folder / f"{refusal.version}.json", msgspec.json.encode(refusal))


def taken_back(bundles: Path, serving: str) -> list[Manifest]:
    """The bundles that descend from the serving one: they were pointed back from."""
    later = [path.parent.name for path in bundles.glob("*/READY") if path.parent.name > serving]
    made, descended = [read_manifest(bundles, version) for version in sorted(later)], {serving}
    found = list[Manifest]()
    for manifest in made:
        if manifest.parent in descended:
            descended.add(manifest.version)
            found.append(manifest)
    return found


def oldest(folder: Path, pattern: str, keep: int) -> None:
    """Delete all but the newest files; their names sort by time."""
    for path in sorted(folder.glob(pattern))[:-keep]:
        path.unlink(missing_ok=True)
