"""Training–serving skew: served features against features recomputed from the event log by the code of `contract/`.

A row was scored with the profiles that were merged by then. From its own partition these are all earlier records, so
features that depend on that partition alone are recomputed exactly. What other partitions and lanes had merged by then
is not in the log; features that depend on them are recomputed in the order of Kafka timestamps, and counted apart.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from contract.features.declaration import Block, Feature, FeatureSet
from contract.features.encoder import Encoder
from contract.graphs import GRAPHS
from contract.hashing import HASH_RANGE, hash_text
from contract.messages import ScoredKind, ScoredRow
from contract.profiles.entity_kinds import BUILT_IN_KINDS, EntityKinds
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.store import InMemoryProfileStore, fold

BATCH: Final = 500
Dependence = Literal["exact", "timing"]
RecordPosition = tuple[str, int, int]  # kind of topic, partition, offset
# By kind of compared row: the family of its event. Lists are not compared: they use the profile after a batch, and the
# log does not record batches. The worker scores no reviews and products.
EVENT_FAMILY: Final[Mapping[ScoredKind, str]] = {"order": "orders", "click": "clicks", "search": "searches"}
GROUPS: Final[Mapping[ScoredKind, tuple[str, ...]]] = {
    kind: graph.event_groups for graph in GRAPHS.values() for kind in graph.scored_kinds if kind in EVENT_FAMILY
}


@dataclass(slots=True)
class ValueCounts:
    """Compared values, and the differing ones by feature."""

    values: int = 0
    differing: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        differing = sum(self.differing.values())
        return {
            "values": self.values,
            "equal": self.values - differing,
            "differing": differing,
            "by_feature": dict(self.differing.most_common()),
        }


@dataclass(slots=True)
class SkewReport:
    """Compared rows, their values by dependence, and the rows that could not be compared, by reason."""

    rows: int = 0
    exact: ValueCounts = field(default_factory=ValueCounts)
    timing: ValueCounts = field(default_factory=ValueCounts)
    left_out: Counter[str] = field(default_factory=Counter)

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "exact": self.exact.to_json(),
            "timing": self.timing.to_json(),
            "left_out": dict(self.left_out),
        }


def is_sampled(user_id: str, share: float) -> bool:
    """Whether a user belongs to this share of all users, by a hash."""
    return hash_text(f"compared={user_id}") < share * HASH_RANGE


class SkewComparison:
    """Folds events and compares each row with the features before its event.

    `partitions`: of the topic of each kind. `is_whole`: the log has the events of all users, so the profiles of
    devices, cards and sellers can be recomputed, too.
    """

    def __init__(
        self,
        *,
        features: FeatureSet,
        partitions: Mapping[str, int],
        is_whole: bool,
        entity_kinds: EntityKinds = BUILT_IN_KINDS,
    ) -> None:
        self.report = SkewReport()
        self._encoder, self._profiles, self._entity_kinds = Encoder(features), InMemoryProfileStore(), entity_kinds
        self._dependence = {
            kind: {
                feature.name: classify_feature(feature, kind, features, partitions, is_whole)
                for feature in features.features
            }
            for kind in GROUPS
        }

    def run(self, rows: Iterable[ScoredRow], arrivals: Sequence[Arrival], topics: Mapping[str, str]) -> SkewReport:
        """Compare rows with their events, which are sorted by time; `topics`: the kind of each topic."""
        waiting = self._index_comparable(rows, topics)
        for begin in range(0, len(arrivals), BATCH):
            self._fold(arrivals[begin : begin + BATCH], waiting)
        self.report.left_out["event not found"] += len(waiting)
        self.report.left_out += Counter()  # drops reasons without rows
        return self.report

    def _index_comparable(
        self, rows: Iterable[ScoredRow], topics: Mapping[str, str]
    ) -> dict[RecordPosition, ScoredRow]:
        comparable = dict[RecordPosition, ScoredRow]()
        for row in rows:
            if row.kind not in GROUPS:
                self.report.left_out["lists" if row.kind == "recommendation" else f"of kind {row.kind}"] += 1
            elif row.features != self._encoder.features.digest:
                self.report.left_out["of other features"] += 1
            else:
                comparable[topics.get(row.topic, row.topic), row.partition, row.offset] = row
        return comparable

    def _fold(self, batch: Sequence[Arrival], waiting: dict[RecordPosition, ScoredRow]) -> None:
        """Fold a batch, and compare the features before each event that has a row."""
        updates = to_updates(batch, kinds=self._entity_kinds)
        folded = fold(self._profiles.read(updates.entities), updates)
        positions = [(arrival.source.partition("/")[0], arrival.partition, arrival.offset) for arrival in batch]
        for kind, groups in GROUPS.items():
            matching = [index for index, key in enumerate(positions) if key in waiting and waiting[key].kind == kind]
            if matching:
                blocks = self._encoder.encode_before(folded, matching, groups)
                for row, index in enumerate(matching):
                    recomputed = {group: blocks[group].take([row]) for group in groups}
                    self._compare(waiting.pop(positions[index]), recomputed)
        self._profiles.merge(folded.slice_writes(), {}, {})

    def _compare(self, row: ScoredRow, blocks: Mapping[str, Block]) -> None:
        """Count the values of one row, feature by feature."""
        try:
            served = {group: row.groups[group].unpack() for group in blocks.keys() & row.groups.keys()}
        except ValueError:
            self.report.left_out["unreadable"] += 1
            return
        self.report.rows += 1
        for group, block in served.items():
            for name, differs in find_differences(block, blocks[group], group, self._encoder.features).items():
                dependence = self._dependence[row.kind].get(name)
                if dependence:
                    counts = self.report.exact if dependence == "exact" else self.report.timing
                    counts.values += 1
                    counts.differing[name] += differs
        for counts in (self.report.exact, self.report.timing):
            counts.differing += Counter()  # drops features without differences


def find_differences(served: Block, recomputed: Block, group: str, features: FeatureSet) -> dict[str, bool]:
    """Whether each feature of one row (1, ...) differs in any bit; unknown equals unknown."""
    if (served.numbers.shape, served.ids.shape) != (recomputed.numbers.shape, recomputed.ids.shape):
        return {feature.name: True for feature in features.features if feature.group == group}
    numbers = ~equal_or_nan(served.numbers[0], recomputed.numbers[0])
    ids = served.ids[0] != recomputed.ids[0]
    differs = {feature.name: bool(numbers[index]) for index, feature in enumerate(features.numbers(group))}
    for values, spans in ((numbers, features.vectors(group)), (ids, features.spans(group))):
        differs |= {span.feature.name: bool(values[span.start : span.start + span.width].any()) for span in spans}
    return differs


def equal_or_nan(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    equal: npt.NDArray[np.bool_] = (left == right) | (np.isnan(left) & np.isnan(right))
    return equal


def classify_feature(
    feature: Feature, kind: ScoredKind, features: FeatureSet, partitions: Mapping[str, int], is_whole: bool
) -> Dependence | None:
    """What a feature of a row of this kind depends on: its own partition alone, or also the timing of other merges.

    None: it cannot be recomputed from the given log.
    """
    if feature.source.startswith("ratio "):
        by_name = {other.name: other for other in features.features}
        operands = [
            classify_feature(by_name[name], kind, features, partitions, is_whole)
            for name in feature.source.removeprefix("ratio ").split(" / ")
        ]
        if None in operands:
            return None
        return "timing" if "timing" in operands else "exact"
    head, _, rest = feature.source.partition(".")
    if head != "profile":
        return "exact" if head in ("event", "query") else None
    entity, _, aggregate = rest.partition(".")
    if entity != "user" and not is_whole:
        return None
    is_own = aggregate.partition(".")[0] == EVENT_FAMILY[kind]
    is_alone = entity == "user" or partitions.get(EVENT_FAMILY[kind]) == 1  # a user's events share a partition
    return "exact" if is_own and is_alone else "timing"
