"""Skew: whether features as they were served are those that the log gives, recomputed by the code of `contract/`.

A row knows what was merged when it was scored. Of its own partition that is all that stands before it, so what rests on
that alone must come out value for value. What other partitions and other lanes had written by then the log does not
tell; such features are recomputed by the times at which Kafka was given the records, and counted apart.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from contract.encoding import Encoder
from contract.features import Block, Feature, FeatureSet
from contract.hashing import digest
from contract.memory import MemoryProfiles, fold
from contract.rows import Scored
from contract.touches import Arrival, columns

BATCH: Final = 500
Rests = Literal["exact", "timing"]
Place = tuple[str, int, int]  # kind of topic, partition, offset
# Of the rows that are compared. A list is made for its user as they are after a batch, and batches are told nowhere.
GROUPS: Final = {
    "order": ("user", "order", "context"),
    "click": ("user", "context"),
    "search": ("query", "user"),
}
FAMILY: Final = {"order": "orders", "click": "clicks", "search": "searches"}  # whose partition a row's event stands in


@dataclass(slots=True)
class Counted:
    """Values of one kind that were compared, and those of each feature that differ."""

    values: int = 0
    differing: Counter[str] = field(default_factory=Counter)

    def told(self) -> dict[str, Any]:
        differing = sum(self.differing.values())
        return {
            "values": self.values,
            "equal": self.values - differing,
            "differing": differing,
            "by_feature": dict(self.differing.most_common()),
        }


@dataclass(slots=True)
class Skew:
    """What came of comparing: rows, values by what they rest on, and what could not be compared for which reason."""

    rows: int = 0
    exact: Counted = field(default_factory=Counted)
    timing: Counted = field(default_factory=Counted)
    left_out: Counter[str] = field(default_factory=Counter)

    def told(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "exact": self.exact.told(),
            "timing": self.timing.told(),
            "left_out": dict(self.left_out),
        }


def is_drawn(user_id: str, share: float) -> bool:
    """Whether a user is among this share of all."""
    return digest(f"compared={user_id}") < share * 2**64


class Comparison:
    """Folds events and compares each row with what was known before its event.

    `partitions` of each kind of topic; `is_whole`: the events of all users are given, so that what devices, cards and
    sellers remember can be recomputed, too.
    """

    def __init__(self, *, features: FeatureSet, partitions: Mapping[str, int], is_whole: bool) -> None:
        self.found = Skew()
        self._encoder, self._profiles = Encoder(features), MemoryProfiles()
        self._rests = {
            kind: {
                f.name: rest for f in features.features if (rest := rests_on(f, kind, features, partitions, is_whole))
            }
            for kind in GROUPS
        }

    def run(self, rows: Iterable[Scored], arrivals: Sequence[Arrival], topics: Mapping[str, str]) -> Skew:
        """Compare rows of the given events, which come in the order of time; `topics`: the kind of each topic."""
        waiting = self._comparable(rows, topics)
        for begin in range(0, len(arrivals), BATCH):
            self._fold(arrivals[begin : begin + BATCH], waiting)
        self.found.left_out["event not found"] += len(waiting)
        self.found.left_out += Counter()  # reasons without a row are none
        return self.found

    def _comparable(self, rows: Iterable[Scored], topics: Mapping[str, str]) -> dict[Place, Scored]:
        found = dict[Place, Scored]()
        for row in rows:
            if row.kind not in GROUPS:
                self.found.left_out["lists"] += 1
            elif row.features != self._encoder.features.digest:
                self.found.left_out["of other features"] += 1
            else:
                found[topics.get(row.topic, row.topic), row.partition, row.offset] = row
        return found

    def _fold(self, batch: Sequence[Arrival], waiting: dict[Place, Scored]) -> None:
        """Fold a batch, and compare what was known before each event that has a row."""
        touches = columns(batch)
        memory = fold(self._profiles.read(touches.entities), touches)
        places = [(arrival.source.partition("/")[0], arrival.partition, arrival.offset) for arrival in batch]
        for kind, groups in GROUPS.items():
            at = [n for n, place in enumerate(places) if place in waiting and waiting[place].kind == kind]
            if at:
                blocks = self._encoder.before(memory, at, groups)
                for n, number in enumerate(at):
                    self._compare(waiting.pop(places[number]), {group: blocks[group].take([n]) for group in groups})
        self._profiles.merge(memory.writes(), {}, {})

    def _compare(self, row: Scored, blocks: Mapping[str, Block]) -> None:
        """Count what of one row is equal, feature by feature."""
        try:
            served = {group: row.groups[group].unpack() for group in blocks.keys() & row.groups.keys()}
        except ValueError:
            self.found.left_out["unreadable"] += 1
            return
        self.found.rows += 1
        for group, block in served.items():
            for name, differs in differing(block, blocks[group], group, self._encoder.features).items():
                if rest := self._rests[row.kind].get(name):
                    counted = self.found.exact if rest == "exact" else self.found.timing
                    counted.values += 1
                    counted.differing[name] += differs
        for counted in (self.found.exact, self.found.timing):
            counted.differing += Counter()


def differing(served: Block, again: Block, group: str, features: FeatureSet) -> dict[str, bool]:
    """Whether each feature of one row (1, ...) differs in any bit; nothing known is equal to nothing known."""
    if (served.numbers.shape, served.ids.shape) != (again.numbers.shape, again.ids.shape):
        return {feature.name: True for feature in features.features if feature.group == group}
    numbers = ~same(served.numbers[0], again.numbers[0])
    ids = served.ids[0] != again.ids[0]
    found = {feature.name: bool(numbers[at]) for at, feature in enumerate(features.numbers(group))}
    found |= {s.feature.name: bool(numbers[s.start : s.start + s.width].any()) for s in features.vectors(group)}
    return found | {s.feature.name: bool(ids[s.start : s.start + s.width].any()) for s in features.spans(group)}


def same(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (one == other) | (np.isnan(one) & np.isnan(other))
    return found


def rests_on(
    feature: Feature, kind: str, features: FeatureSet, partitions: Mapping[str, int], is_whole: bool
) -> Rests | None:
    """What a feature of a row of this kind rests on: its own partition alone, or also on when others were merged.

    None: it cannot be recomputed from what is given.
    """
    if feature.source.startswith("ratio "):
        by_name = {one.name: one for one in features.features}
        of = [
            rests_on(by_name[name], kind, features, partitions, is_whole)
            for name in feature.source.removeprefix("ratio ").split(" / ")
        ]
        return None if None in of else "timing" if "timing" in of else "exact"
    head, _, rest = feature.source.partition(".")
    if head != "profile":
        return "exact" if head in ("event", "query") else None
    entity, _, aggregate = rest.partition(".")
    if entity != "user" and not is_whole:
        return None
    is_own = aggregate.partition(".")[0] == FAMILY[kind]
    is_alone = entity == "user" or partitions.get(FAMILY[kind]) == 1  # a user's events stand in one partition
    return "exact" if is_own and is_alone else "timing"
