"""Simulated logs whose target policy's mean reward is known: worlds with overlap, and worlds without.

Each world has its own law of contexts, rewards and both policies, drawn once; a run draws logs from it. The truth is
the mean of the exact expected reward over `TRUTH_UNITS` further units.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, Protocol

import numpy as np
from scipy.special import expit, softmax

from contract.arrays import Floats, Integers
from training.offpolicy.list_ranking import reorder_lists
from training.offpolicy.logged_actions import LoggedActions, TargetChoices
from training.offpolicy.served_lists import ServedList, ShownList

TRUTH_UNITS: Final = 400_000
TRUTH_CHUNK: Final = 20_000
CONTEXTS: Final = 5  # numbers that describe a context


class World(Protocol):
    """A law that logs are drawn from."""

    def draw(self, rng: np.random.Generator) -> LoggedActions:
        """Logs of one run."""

    def expect(self, rng: np.random.Generator, units: int) -> Floats:
        """The target's expected reward for some units (units,), each the mean over its rows."""


class Policies(NamedTuple):
    """The probabilities of the actions in some contexts (n, actions), and the expected reward of each."""

    logged: Floats
    target: Floats
    reward: Floats


@dataclass(frozen=True)
class BanditWorld:
    """One action a row out of a few: contexts, a reward that depends on both, and two policies by their scores.

    `greed` scales the scores of the policies that choose by softmax; `floor`: the share of choices that the logged
    policy makes uniformly. `hidden`: the number of actions that it never chooses. `tells_all`: the logs have the
    probabilities of all actions.
    """

    seed: int
    rows: int = 4_000
    actions: int = 20
    logged_greed: float = 1.0
    target_greed: float = 2.0
    floor: float = 0.0
    hidden: int = 0
    unknown: float = 0.0
    level: float = -2.5
    tells_all: bool = True

    def draw(self, rng: np.random.Generator) -> LoggedActions:
        contexts = rng.normal(size=(self.rows, CONTEXTS))
        policies = self._policies(contexts)
        action = draw_choices(policies.logged, rng)
        row = np.arange(self.rows)
        reward = (rng.random(self.rows) < policies.reward[row, action]).astype(np.float64)
        propensity = policies.logged[row, action]
        propensity[rng.random(self.rows) < self.unknown] = np.nan
        logs = make_logs(reward, propensity, policies.target[row, action], row, contexts)
        return add_choices(logs, action, policies.target, policies.logged) if self.tells_all else logs

    def expect(self, rng: np.random.Generator, units: int) -> Floats:
        policies = self._policies(rng.normal(size=(units, CONTEXTS)))
        return np.asarray((policies.target * policies.reward).sum(1))

    def _policies(self, contexts: Floats) -> Policies:
        law = np.random.default_rng(self.seed)
        tastes, errors, others = law.normal(size=(3, CONTEXTS, self.actions)) / np.sqrt(CONTEXTS)
        appeal = contexts @ tastes + law.normal(size=self.actions) / 2
        logged_score = self.logged_greed * (appeal + contexts @ errors)
        logged_score[:, self.actions - self.hidden :] = -np.inf
        logged = softmax(logged_score, 1)
        logged = (1 - self.floor) * logged + self.floor / self.actions
        target = softmax(self.target_greed * (appeal + contexts @ others / 2), 1)
        return Policies(logged, target, expit(self.level + appeal))


@dataclass(frozen=True)
class FreshItemsWorld:
    """Lists as the worker makes them: the first places are fixed, the last ones have items drawn from a pool.

    Each user has a habit and several lists. The new policy keeps the fixed places, and prefers the pool's good items.
    """

    seed: int
    users: int = 400
    lists: int = 5
    places: int = 8
    drawn: int = 2
    pool: int = 30
    greed: float = 1.0

    def draw(self, rng: np.random.Generator) -> LoggedActions:
        law, habit = self._law(), rng.normal(size=self.users)
        user = np.repeat(np.arange(self.users), self.lists * self.places)
        place = np.tile(np.arange(self.places), self.users * self.lists)
        is_drawn = place >= self.places - self.drawn
        draws = np.argsort(rng.random((self.users * self.lists, self.pool)), 1)[:, : self.drawn]
        item = place.copy()
        item[is_drawn] = self.places + draws.ravel()
        rate = expit(law.level[place] + law.appeal[item] + 0.5 * habit[user])
        reward = (rng.random(len(user)) < rate).astype(np.float64)
        propensity = np.where(is_drawn, 1 / self.pool, 1.0)
        target = np.where(is_drawn, law.target[np.maximum(item - self.places, 0)], 1.0)
        logs = make_logs(reward, propensity, target, user, place[:, None].astype(np.float64))
        probabilities = np.zeros((len(user), self.places + self.pool))
        probabilities[~is_drawn, item[~is_drawn]] = 1.0
        probabilities[is_drawn, self.places :] = law.target
        return add_choices(logs, item, probabilities, np.where(probabilities > 0, propensity[:, None], 0.0))

    def expect(self, rng: np.random.Generator, units: int) -> Floats:
        law, habit = self._law(), rng.normal(size=(units, 1))
        fixed = self.places - self.drawn
        total = expit(law.level[:fixed] + law.appeal[:fixed] + 0.5 * habit).sum(1)
        for place in range(fixed, self.places):
            total += expit(law.level[place] + law.appeal[self.places :] + 0.5 * habit) @ law.target
        return np.asarray(total / self.places)

    def _law(self) -> "FreshItemsLaw":
        law = np.random.default_rng(self.seed)
        appeal = law.normal(size=self.places + self.pool)
        level = -2.0 - 0.7 * np.log1p(np.arange(self.places))
        return FreshItemsLaw(level, appeal, softmax(self.greed * (appeal[self.places :] + law.normal(size=self.pool))))


class FreshItemsLaw(NamedTuple):
    """What the items and places of `FreshItemsWorld` are worth."""

    level: Floats  # (places,)
    appeal: Floats  # (places + pool,)
    target: Floats  # (pool,): the new policy's probabilities


@dataclass(frozen=True)
class NewOrderWorld:
    """Lists in a fixed order with a drawn item in the last place, and a bundle that would order them differently.

    A click is a look, whose probability is known by place, times the item's appeal to the user.
    """

    seed: int
    users: int = 400
    lists: int = 5
    places: int = 8
    fading: float = 0.5
    knows_examination: bool = True

    @property
    def examination(self) -> Floats:
        return np.asarray((1 + np.arange(self.places)) ** -self.fading)

    def draw(self, rng: np.random.Generator) -> LoggedActions:
        habits = np.repeat(rng.normal(size=self.users), self.lists)
        appeal, old, new = self._draw_lists(rng, habits)
        clicks = rng.random(appeal.shape) < self.examination * appeal
        lists = [self._show(f"u{number // self.lists}", number, row) for number, row in enumerate(clicks)]
        examination = self.examination if self.knows_examination else None
        return reorder_lists(lists, list(new), list(old), {"click": 1.0}, examination)

    def expect(self, rng: np.random.Generator, units: int) -> Floats:
        appeal, _, new = self._draw_lists(rng, rng.normal(size=units))
        last = np.full((units, 1), self.places - 1)
        order = np.concatenate([np.argsort(-new[:, :-1], 1), last], 1)
        return np.asarray((self.examination * np.take_along_axis(appeal, order, 1)).mean(1))

    def _draw_lists(self, rng: np.random.Generator, habits: Floats) -> tuple[Floats, Floats, Floats]:
        """The appeal of each list's items (n, places), and both models' values of them; by the former they are sorted.

        The last item is the drawn one.
        """
        shape = (len(habits), self.places)
        truth = rng.normal(size=shape)
        old, new = truth + rng.normal(size=shape), truth + rng.normal(size=shape) / 2
        last = np.full((len(habits), 1), self.places - 1)
        order = np.concatenate([np.argsort(-old[:, :-1], 1), last], 1)
        truth, old, new = (np.take_along_axis(values, order, 1) for values in (truth, old, new))
        return expit(-1.5 + truth + 0.5 * habits[:, None]), old, new

    def _show(self, user: str, number: int, clicks: Floats) -> ShownList:
        items = tuple(map(str, range(self.places)))
        propensities = (1.0,) * (self.places - 1) + (0.05,)
        row = ServedList(
            event_id=f"r{number}",
            kind="recommendation",
            user_id=user,
            ts_ms=0,
            features="",
            groups={},
            items=items,
            propensities=propensities,
        )
        return ShownList(row, tuple({"click": float(click)} for click in clicks))


def draw_choices(probabilities: Floats, rng: np.random.Generator) -> Integers:
    """One action of each row (n, actions)."""
    bounds = np.cumsum(probabilities, 1)
    return np.asarray((rng.random((len(bounds), 1)) * bounds[:, -1:] > bounds).sum(1), np.int64)


def make_logs(reward: Floats, propensity: Floats, target: Floats, unit: Integers, context: Floats) -> LoggedActions:
    return LoggedActions(
        reward=reward,
        propensity=propensity,
        target=target,
        unit=unit,
        exposure=np.ones(len(reward)),
        target_exposure=np.ones(len(reward)),
        columns=context,
    )


def add_choices(logs: LoggedActions, action: Integers, target: Floats, propensity: Floats | None) -> LoggedActions:
    """The logs with all actions (n, actions) that the target may choose in each row; `propensity` None: unknown."""
    row, choice = np.nonzero(target)
    choices = TargetChoices(
        row=row,
        probability=target[row, choice],
        propensity=None if propensity is None else propensity[row, choice],
        columns=np.column_stack([logs.columns[row], choice]),
        exposure=np.ones(len(row)),
    )
    columns = np.column_stack([logs.columns, action])
    return replace(logs, columns=columns, categories=(logs.columns.shape[1],), choices=choices)


def find_truth(world: World, seed: int, units: int = TRUTH_UNITS) -> float:
    rng = np.random.default_rng(seed)
    return float(np.mean([world.expect(rng, TRUTH_CHUNK).mean() for _ in range(units // TRUTH_CHUNK)]))


COVERED: Final[dict[str, Callable[[int], World]]] = {
    "softmax": lambda seed: BanditWorld(seed),
    "greedy with a floor": lambda seed: BanditWorld(seed, logged_greed=3.0, target_greed=6.0, floor=0.3),
    "rare clicks, probabilities of the logged actions alone": lambda seed: BanditWorld(
        seed, rows=20_000, level=-4.5, target_greed=1.0, logged_greed=0.5, tells_all=False
    ),
    "fresh items": lambda seed: FreshItemsWorld(seed),
    "new order": lambda seed: NewOrderWorld(seed),
}
UNCOVERED: Final[dict[str, Callable[[int], World]]] = {
    "actions never chosen": lambda seed: BanditWorld(seed, hidden=6),
    "actions never chosen, probabilities of the logged actions alone": lambda seed: BanditWorld(
        seed, hidden=6, tells_all=False
    ),
    "far from the logs": lambda seed: BanditWorld(seed, logged_greed=4.0, target_greed=8.0),
    "unknown propensities": lambda seed: BanditWorld(seed, unknown=0.1),
    "new order, examination unknown": lambda seed: NewOrderWorld(seed, knows_examination=False),
}
