"""Compares the arms of an experiment over users: clicks, purchases and revenue a user, and coverage of the catalogue.

Each outcome has an interval for one look, and one that holds at every look (`training.stats.confidence_sequence`); the
latter alone may stop the experiment. The outcome that decides should be chosen before the first look.
"""

from typing import Final

import msgspec
from scipy.stats import binomtest

from contract.errors import BadData
from contract.experiment import CONTROL, VARIANT
from contract.units import DAY_MS
from training.experiments.coverage import ArmCoverage, compare_coverage
from training.experiments.outcomes import ARMS, OUTCOMES, ExperimentStore, Outcome, sum_by_user
from training.stats.confidence_sequence import ArmDifference

USERS_MIN: Final = 20  # of each arm, below which intervals mean nothing
UNEVEN_P: Final = 0.001  # of the numbers of users by the share


class OutcomeComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The means over users, and the variant's minus the control's.

    `low`, `high`: the 95 % interval for one look. `always_low`, `always_high`: for all looks at once; None before there
    is one.
    """

    control: float
    variant: float
    difference: float
    low: float
    high: float
    always_low: float | None
    always_high: float | None


class CoverageComparison(msgspec.Struct, frozen=True, kw_only=True):
    """The shares of the catalogue's items that `users` randomly chosen users of each arm see, for one look."""

    control: float
    variant: float
    difference: float
    low: float
    high: float
    users: int
    items: int


class ExperimentComparison(msgspec.Struct, frozen=True, kw_only=True):
    """`stop`: whether the deciding outcome differs beyond chance at whatever look; `better`: the arm with more of it.

    `share_p`: the probability of such numbers of users if the share is right; None for an unknown share.
    """

    experiment: str
    users: tuple[int, int]  # control, variant
    mixed: int
    days: float
    outcomes: dict[str, OutcomeComparison]
    coverage: CoverageComparison
    decides: Outcome
    stop: bool
    better: str | None
    share_p: float | None

    @property
    def is_uneven(self) -> bool:
        """Whether the assignment is broken: the numbers of users do not fit the share."""
        return self.share_p is not None and self.share_p < UNEVEN_P


def compare_arms(
    store: ExperimentStore, experiment: str, *, items: int, decides: Outcome, share: float | None
) -> ExperimentComparison:
    """`items`: of the catalogue. Raises `BadData` for too few users."""
    users = {arm: store.find_users(arm) for arm in ARMS}
    sizes = len(users[CONTROL]), len(users[VARIANT])
    if min(sizes) < USERS_MIN:
        others = ", ".join(sorted(store.names)) or "none"
        raise BadData(
            f"Each arm of {experiment} should have {USERS_MIN} users with lists. Found {sizes[0]} and {sizes[1]}; "
            f"experiments on the topic are: {others}."
        )
    outcomes: dict[str, OutcomeComparison] = {outcome: compare_outcome(store, outcome) for outcome in OUTCOMES}
    deciding = outcomes[decides]
    low, high = deciding.always_low, deciding.always_high
    stop = low is not None and high is not None and (low > 0 or high < 0)
    return ExperimentComparison(
        experiment=experiment,
        users=sizes,
        mixed=store.mixed,
        days=round((store.latest_ms - store.first_ms) / DAY_MS, 2),
        outcomes=outcomes,
        coverage=compare_items(store, items),
        decides=decides,
        stop=stop,
        better=(VARIANT if deciding.difference > 0 else CONTROL) if stop else None,
        share_p=None if share is None else float(binomtest(sizes[1], sum(sizes), share).pvalue),
    )


def compare_outcome(store: ExperimentStore, outcome: Outcome) -> OutcomeComparison:
    """One outcome; the sequence is tuned by the variance after the first day, which every later look knows too."""
    events, now = store.list_events(outcome), measure_difference(store, outcome)
    control, variant = (float(sum_by_user(events, store.find_users(arm)).mean()) for arm in ARMS)
    first_days, interval = measure_first_days(store, outcome), now.interval()
    always = now.sequence(first_days.clock) if first_days else None
    return OutcomeComparison(
        control=control,
        variant=variant,
        difference=now.value,
        low=interval.low,
        high=interval.high,
        always_low=always.low if always else None,
        always_high=always.high if always else None,
    )


def measure_difference(store: ExperimentStore, outcome: Outcome, before_ms: float = float("inf")) -> ArmDifference:
    """The difference by what was done before that time, over the users who had a list by then."""
    events = store.list_events(outcome)
    control, variant = (sum_by_user(events, store.find_users(arm, before_ms), before_ms) for arm in ARMS)
    return ArmDifference.measure(control, variant)


def measure_first_days(store: ExperimentStore, outcome: Outcome) -> ArmDifference | None:
    """The difference after the first whole days with enough users and an outcome that varies; None before."""
    for before_ms in range(store.first_ms + DAY_MS, store.latest_ms + 1, DAY_MS):
        if min(len(store.find_users(arm, before_ms)) for arm in ARMS) >= USERS_MIN:
            difference = measure_difference(store, outcome, before_ms)
            if difference.clock > 0:
                return difference
    return None


def compare_items(store: ExperimentStore, items: int) -> CoverageComparison:
    """Coverage by half as many users as the smaller arm has."""
    users = {arm: store.find_users(arm) for arm in ARMS}
    coverages = {arm: ArmCoverage(users[arm], [store.participants[user].items for user in users[arm]]) for arm in ARMS}
    count = min(map(len, users.values())) // 2
    control, variant, interval = compare_coverage(coverages[CONTROL], coverages[VARIANT], count, items)
    return CoverageComparison(
        control=control,
        variant=variant,
        difference=interval.value,
        low=interval.low,
        high=interval.high,
        users=count,
        items=items,
    )
