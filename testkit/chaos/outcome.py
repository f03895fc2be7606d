"""What a chaos run is asked for, and what it has counted."""

from collections.abc import Sequence

import msgspec

from testkit.chaos.promise_audit import Findings


class ChaosPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How long, and how much at once. An environment has `rounds_per_environment` rounds, then a new one is made.

    `catch_up_s`: how long nothing may advance while something lags; what lags is given up after three times as long.
    """

    minutes: float
    seed: int
    faults: Sequence[str]
    faults_per_round: int = 12
    round_s: float = 60.0
    rounds_per_environment: int = 5
    rounds_max: int = 1_000_000
    catch_up_s: float = 90.0
    events_per_s: float = 150.0
    workers_per_lane: int = 2
    joiners: int = 2


class ChaosOutcome(msgspec.Struct, kw_only=True):
    """Counts over all rounds. `own_exits`: processes that ended by themselves. `errors`: rounds that broke off."""

    runs: int = 0
    environments: int = 0
    events: int = 0
    faults: dict[str, int] = {}
    lost: int = 0
    conflicting: int = 0
    mismatches: int = 0
    order_inversions: int = 0
    erased_back: int = 0
    not_caught_up: int = 0
    worst_recovery_s: float = 0.0
    early_labels: int = 0
    wrong_features: int = 0
    foreign_keys: int = 0
    half_bundles: int = 0
    repeated: int = 0
    duplicates: int = 0
    own_exits: int = 0
    worst_shutdown_s: float = 0.0
    errors: int = 0
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether every promise was kept and everything caught up in time."""
        return not (
            self.lost
            or self.conflicting
            or self.mismatches
            or self.order_inversions
            or self.erased_back
            or self.not_caught_up
            or self.early_labels
            or self.wrong_features
            or self.foreign_keys
            or self.half_bundles
            or self.repeated
            or self.errors
        )

    def add(self, findings: Findings) -> None:
        for name, sentences in findings.items():
            setattr(self, name, getattr(self, name) + len(sentences))
