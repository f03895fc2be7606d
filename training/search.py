"""Search: which shape of network and which plan learn best from these examples, by the held-out score.

Trials are chosen by a tree-structured Parzen estimator (Bergstra et al. 2011) from those before; one whose score lags
behind the median of the others at the same epoch is ended early. The first trial is what the settings declare, so what
a search gains is gained over that. The winner was chosen by the held-out part, so its score there flatters it:
`training evaluate` judges it by what is later.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import optuna
from msgspec.structs import replace
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import Trial, TrialState

from contract.errors import BadConfig, BadData
from model.declared import Shape
from training.course import digest_of
from training.examples import Examples
from training.fit import Epoch, Setting, fit
from training.fleet import join
from training.plan import Plan

WARM_TRIALS: Final = 5  # are never ended early, and drawn by chance


class Between(NamedTuple):
    """Numbers of the declared one's kind, whole or not; with `log` drawn evenly by their logarithm."""

    low: float
    high: float
    log: bool = False

    def draw(self, trial: Trial, name: str, declared: Any) -> Any:
        low, high = min(self.low, declared), max(self.high, declared)
        if isinstance(declared, int):
            return trial.suggest_int(name, int(low), int(high))
        return trial.suggest_float(name, low, high, log=self.log)


class Among(NamedTuple):
    """A few values."""

    values: tuple[Any, ...]

    def draw(self, trial: Trial, name: str, declared: Any) -> Any:
        return trial.suggest_categorical(name, list(dict.fromkeys([*self.values, declared])))


# What is declared is always among what may be drawn.
SPACE: Final[Mapping[str, Between | Among]] = {
    "architecture": Among(("shared_bottom", "mmoe", "ple")),
    "embedding": Among((8, 16, 32)),
    "hidden": Among((32, 64, 128, 256)),
    "factors": Among((0, 8, 16, 32)),
    "experts": Between(2, 8),
    "expert": Among((32, 64, 128)),
    "tower": Among((16, 32, 64)),
    "cross": Between(0, 2),
    "bins": Among((0, 16, 32)),
    "dropout": Between(0.0, 0.3),
    "batch": Among((256, 512, 1_024, 2_048)),
    "learning_rate": Between(1e-4, 2e-2, log=True),
    "weight_decay": Between(1e-4, 1e-1, log=True),
}


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A trial: what was drawn, and its score, None where it was ended early."""

    number: int
    values: dict[str, Any]
    score: float | None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found: the best shape and plan, their score, that of what was declared, and all trials."""

    shape: Shape
    plan: Plan
    score: float
    declared: float | None
    trials: list[Tried]


class Search:
    """A search over some names of `SPACE`; `kept`: a file in which trials stay, so that a search can go on."""

    def __init__(
        self, *, examples: Examples, shape: Shape, plan: Plan, over: Sequence[str], kept: Path | None = None
    ) -> None:
        self._fleet = join(plan.device)
        self._examples, self._shape, self._plan = examples, shape, plan
        fields = Shape.__struct_fields__
        self._declared = {name: getattr(shape if name in fields else plan, name) for name in over}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(kept))) if kept else None
        self._study = optuna.create_study(
            storage=storage,
            study_name=f"{digest_of(examples, shape, plan, '')} {' '.join(over)} {plan.epochs} {plan.patience}",
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=plan.seed, n_startup_trials=WARM_TRIALS),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=WARM_TRIALS, n_warmup_steps=1),
        )

    def run(self, trials: int, report: Callable[[Tried], None]) -> Found:
        """Try until so many trials are done, counting those that were kept; raises `BadData` where none has a score."""
        if not self._study.trials:
            self._study.enqueue_trial(self._declared)
        self._end_what_was_cut_short()
        for _ in range(trials - len(self._done())):
            self._study.optimize(self._try, n_trials=1)
            report(tried(self._study.trials[-1]))
        done = [tried(trial) for trial in self._done()]
        scored = [(one.score, one) for one in done if one.score is not None]
        if not scored:
            raise BadData(f"Some trial should have a score. Found none in {len(done)}.")
        score, best = max(scored, key=lambda pair: pair[0])
        shape, plan = self._changed(best.values)
        first = done[0].score
        return Found(
            shape=shape, plan=plan, score=score, declared=float("nan") if first is None else first, trials=done
        )

    def _done(self) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))

    def _end_what_was_cut_short(self) -> None:
        """Trials of a process that was ended are never finished; others take their place."""
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _try(self, trial: Trial) -> float:
        drawn = {name: SPACE[name].draw(trial, name, value) for name, value in self._declared.items()}
        shape, plan = self._changed(drawn)

        def told(epoch: Epoch) -> None:
            trial.report(epoch.score, epoch.number)
            if trial.should_prune():
                raise optuna.TrialPruned

        return fit(self._examples, shape, plan, told, Setting(fleet=self._fleet)).score

    def _changed(self, values: Mapping[str, Any]) -> tuple[Shape, Plan]:
        """The declared shape and plan with these values in place of their own."""
        fields = set(Shape.__struct_fields__)
        shape = replace(self._shape, **{name: value for name, value in values.items() if name in fields})
        plan = replace(self._plan, **{name: value for name, value in values.items() if name not in fields})
        return shape, plan


def tried(trial: optuna.trial.FrozenTrial) -> Tried:
    score = trial.value if trial.state == TrialState.COMPLETE else None
    return Tried(number=trial.number + 1, values=dict(trial.params), score=score)


def check_space(over: Sequence[str]) -> None:
    """Raises `BadConfig` for names that cannot be searched over."""
    if foreign := [name for name in over if name not in SPACE]:
        raise BadConfig([f"`--over` should name some of {', '.join(SPACE)}. Found {', '.join(foreign)}."])
