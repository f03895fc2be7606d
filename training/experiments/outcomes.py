"""What the users of an experiment did: clicks and purchases on their lists, revenue, and the items that they saw.

A user takes part from their first list on. Users who had lists of both arms, because the share was changed or a canary
failed, are left out and counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec
import numpy as np
from msgspec import Struct

from contract.arrays import Floats
from contract.events.model import Order
from contract.experiment import CONTROL, VARIANT, Arm
from contract.messages import LIST_KIND
from training.feedback.decoding import decode_or_none

ARMS: Final = (CONTROL, VARIANT)
Outcome = Literal["clicks", "purchases", "revenue"]
OUTCOMES: Final[tuple[Outcome, ...]] = ("clicks", "purchases", "revenue")


class ExperimentList(Struct, frozen=True, gc=False, kw_only=True):
    """A `contract.messages.ScoredRow` of a list, without its features."""

    event_id: str
    kind: str
    user_id: str
    ts_ms: int
    items: tuple[str, ...] = ()
    experiments: dict[str, str] = {}
    is_conflict: bool = False


class ExperimentExample(Struct, frozen=True, gc=False, kw_only=True):
    """A `contract.messages.Example` of an item of a list, without its features."""

    example_id: str
    revision: int
    user_id: str
    labels: dict[str, float | str]
    known_ms: dict[str, int]
    experiments: dict[str, str] = {}


DECODE_LIST: Final = msgspec.msgpack.Decoder(ExperimentList).decode
DECODE_EXAMPLE: Final = msgspec.msgpack.Decoder(ExperimentExample).decode


@dataclass(slots=True)
class Participant:
    """A user: the arms of their lists, the time of the first one, the items on them."""

    first_ms: int
    arms: set[str] = field(default_factory=set)
    items: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class OutcomeEvent:
    """What a user did, and when."""

    user_id: str
    ts_ms: int
    value: float


class ExperimentStore:
    """Collects the outcomes of one experiment: lists first, then examples and orders."""

    def __init__(self, experiment: str) -> None:
        self._experiment = experiment
        self.participants = dict[str, Participant]()
        self._examples = dict[str, ExperimentExample]()
        self._orders = dict[str, Order]()
        self.names = set[str]()  # of all experiments on the topic
        self.latest_ms = 0  # of the lists of all users
        self.unreadable = 0

    def add_list(self, value: bytes) -> None:
        if (row := decode_or_none(DECODE_LIST, value)) is None:
            self.unreadable += 1
            return
        self.names |= row.experiments.keys()
        arm = row.experiments.get(self._experiment)
        if row.kind != LIST_KIND or row.is_conflict or arm not in ARMS:
            return
        self.latest_ms = max(self.latest_ms, row.ts_ms)
        participant = self.participants.setdefault(row.user_id, Participant(row.ts_ms))
        participant.first_ms = min(participant.first_ms, row.ts_ms)
        participant.arms.add(arm)
        participant.items.update(row.items)

    def add_example(self, value: bytes) -> None:
        """Keep the newest revision of an example of the experiment."""
        if (example := decode_or_none(DECODE_EXAMPLE, value)) is None:
            self.unreadable += 1
            return
        if self._experiment in example.experiments:
            previous = self._examples.get(example.example_id)
            if previous is None or previous.revision <= example.revision:
                self._examples[example.example_id] = example

    def add_order(self, order: Order) -> None:
        """Keep an order of a user who takes part, from the first list on; of equal ids the first counts."""
        participant = self.participants.get(order.user_id)
        if participant and order.ts_ms >= participant.first_ms:
            self._orders.setdefault(order.event_id, order)

    @property
    def mixed(self) -> int:
        """The number of users who had lists of both arms."""
        return sum(len(participant.arms) > 1 for participant in self.participants.values())

    def find_users(self, arm: Arm, before_ms: float = float("inf")) -> list[str]:
        """The users whose lists are of this arm alone, with a first list before that time, sorted."""
        return sorted(
            user
            for user, participant in self.participants.items()
            if participant.arms == {arm} and participant.first_ms < before_ms
        )

    def list_events(self, outcome: Outcome) -> list[OutcomeEvent]:
        if outcome == "revenue":
            return [OutcomeEvent(order.user_id, order.ts_ms, order.amount) for order in self._orders.values()]
        task = {"clicks": "click", "purchases": "purchase"}[outcome]
        return [
            OutcomeEvent(example.user_id, example.known_ms.get(task, 0), 1.0)
            for example in self._examples.values()
            if example.labels.get(task) == 1.0
        ]

    @property
    def currencies(self) -> Mapping[str, int]:
        """The number of orders by currency; revenue adds their amounts as they are."""
        currencies = dict[str, int]()
        for order in self._orders.values():
            currencies[order.currency] = currencies.get(order.currency, 0) + 1
        return currencies

    @property
    def first_ms(self) -> int:
        """The time of the experiment's first list."""
        return min(participant.first_ms for participant in self.participants.values())


def sum_by_user(events: list[OutcomeEvent], users: list[str], before_ms: float = float("inf")) -> Floats:
    """What each user (n,) did before that time."""
    index, totals = {user: number for number, user in enumerate(users)}, np.zeros(len(users))
    for event in events:
        number = index.get(event.user_id)
        if number is not None and event.ts_ms < before_ms:
            totals[number] += event.value
    return totals
