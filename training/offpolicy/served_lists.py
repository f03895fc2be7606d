"""Lists as they were served, joined with what was clicked and bought: rows of the scored topic and their examples."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
from msgspec import Struct

from contract.features.packing import PackedBlock
from contract.messages import LIST_KIND
from training.feedback.decoding import decode_or_none


class ServedList(Struct, frozen=True, gc=False, kw_only=True):
    """A `contract.messages.ScoredRow`; of other kinds than lists only the kind counts."""

    event_id: str
    kind: str
    user_id: str
    ts_ms: int
    features: str
    groups: dict[str, PackedBlock]
    items: tuple[str, ...] = ()
    scores: dict[str, tuple[float, ...]] = {}
    propensities: tuple[float, ...] = ()
    is_conflict: bool = False
    rules: tuple[str, ...] = ()
    pinned: tuple[int, ...] = ()

    @property
    def is_reordered(self) -> bool:
        """Whether list rules other than pins put items where they are: no new order of scores alone shows these."""
        return any(name and place not in self.pinned for place, name in enumerate(self.rules))


class ListReward(Struct, frozen=True, gc=False, kw_only=True):
    """A `contract.messages.Example` of an item of a list, without its features."""

    example_id: str
    revision: int
    event_id: str
    user_id: str
    ts_ms: int
    labels: dict[str, float | str]
    item_id: str = ""
    negative_rate: float = 1.0


DECODE_LIST: Final = msgspec.msgpack.Decoder(ServedList).decode
DECODE_REWARD: Final = msgspec.msgpack.Decoder(ListReward).decode


@dataclass(slots=True)
class ServedListStore:
    """Lists by id, each once, and by list the newest example of each item.

    At most the `limit` latest lists. `unreadable` records are counted and skipped, and so are lists that rules
    `reordered`; `sampled`: examples of which only a share was kept.
    """

    limit: int
    lists: dict[str, ServedList] = field(default_factory=dict)
    rewards: dict[str, dict[str, ListReward]] = field(default_factory=dict)
    unreadable: int = 0
    reordered: int = 0
    sampled: int = 0

    def add_list(self, value: bytes) -> None:
        if (row := decode_or_none(DECODE_LIST, value)) is None:
            self.unreadable += 1
            return
        if row.kind == LIST_KIND and row.is_reordered:
            self.reordered += 1
        elif row.kind == LIST_KIND and not row.is_conflict:
            self.lists.setdefault(row.event_id, row)
            if len(self.lists) > self.limit:
                del self.lists[next(iter(self.lists))]

    def add_reward(self, value: bytes) -> None:
        """Add an example, after all lists; those of other lists and events are ignored."""
        if (example := decode_or_none(DECODE_REWARD, value)) is None:
            self.unreadable += 1
            return
        if "click" not in example.labels or example.event_id not in self.lists:
            return
        self.sampled += example.negative_rate < 1
        by_item = self.rewards.setdefault(example.event_id, {})
        previous = by_item.get(example.item_id)
        if previous is None or previous.revision <= example.revision:
            by_item[example.item_id] = example

    def join_lists(self, before_ms: float) -> list["ShownList"]:
        """The lists of events before that time of which an item was shown, sorted by id."""
        return [
            ShownList.join(row, self.rewards[event_id])
            for event_id, row in sorted(self.lists.items())
            if row.ts_ms < before_ms and event_id in self.rewards
        ]


@dataclass(frozen=True, slots=True)
class ShownList:
    """A list and its first places up to the last one that was shown; `labels`: of each item there, by task."""

    row: ServedList
    labels: tuple[Mapping[str, float | str], ...]

    @classmethod
    def join(cls, row: ServedList, rewards: Mapping[str, ListReward]) -> "ShownList":
        shown = [rewards.get(item) for item in row.items]
        depth = max((place + 1 for place, example in enumerate(shown) if example), default=0)
        return cls(row, tuple(example.labels if example else {} for example in shown[:depth]))

    def rewards(self, values: Mapping[str, float]) -> list[float]:
        """The reward of each shown item: the sum of its labels, each times the value of its task."""
        return [sum(value * float(labels.get(task, 0.0)) for task, value in values.items()) for labels in self.labels]
