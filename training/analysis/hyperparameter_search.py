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
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import Trial, TrialState

from contract.errors import BadConfig, BadData
from contract.settings import ModelConfig, TrainingConfig
from training.data.examples import Examples
from training.trainer.distributed import join_process_group
from training.trainer.fit import Epoch, FitOptions, fit
from training.trainer.training_state import compute_digest

STARTUP_TRIALS: Final = 5  # are never ended early, and drawn by chance


class Range(NamedTuple):
    """Numbers of the declared one's kind, whole or not; with `log` drawn evenly by their logarithm."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Trial, name: str, declared: Any) -> Any:
        low, high = min(self.low, declared), max(self.high, declared)
        if isinstance(declared, int):
            return trial.suggest_int(name, int(low), int(high))
        return trial.suggest_float(name, low, high, log=self.log)


class Choices(NamedTuple):
    """A few values."""

    values: tuple[Any, ...]

    def suggest(self, trial: Trial, name: str, declared: Any) -> Any:
        return trial.suggest_categorical(name, list(dict.fromkeys([*self.values, declared])))


# What is declared is always among what may be drawn.
SPACE: Final[Mapping[str, Range | Choices]] = {
    "architecture": Choices(("shared_bottom", "mmoe", "ple")),
    "embedding": Choices((8, 16, 32)),
    "hidden": Choices((32, 64, 128, 256)),
    "factors": Choices((0, 8, 16, 32)),
    "experts": Range(2, 8),
    "expert": Choices((32, 64, 128)),
    "tower": Choices((16, 32, 64)),
    "cross": Range(0, 2),
    "bins": Choices((0, 16, 32)),
    "dropout": Range(0.0, 0.3),
    "batch": Choices((256, 512, 1_024, 2_048)),
    "learning_rate": Range(1e-4, 2e-2, log=True),
    "weight_decay": Range(1e-4, 1e-1, log=True),
}


class TrialResult(msgspec.Struct, frozen=True, kw_only=True):
    """A trial: what was drawn, and its score, None where it was ended early."""

    number: int
    values: dict[str, Any]
    score: float | None


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found: the best shape and plan, their score, that of what was declared, and all trials."""

    shape: ModelConfig
    plan: TrainingConfig
    score: float
    declared: float | None
    trials: list[TrialResult]


class HyperparameterSearch:
    """A search over some names of `SPACE`; `kept`: a file in which trials stay, so that a search can go on."""

    def __init__(
        self,
        *,
        examples: Examples,
        shape: ModelConfig,
        plan: TrainingConfig,
        names: Sequence[str],
        journal_path: Path | None = None,
    ) -> None:
        self._process_group = join_process_group(plan.device)
        self._examples, self._shape, self._plan = examples, shape, plan
        model_fields = ModelConfig.model_fields
        self._declared = {name: getattr(shape if name in model_fields else plan, name) for name in names}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(journal_path))) if journal_path else None
        self._study = optuna.create_study(
            storage=storage,
            study_name=f"{compute_digest(examples, shape, plan, '')} {' '.join(names)} {plan.epochs} {plan.patience}",
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=plan.seed, n_startup_trials=STARTUP_TRIALS),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1),
        )

    def run(self, trials: int, report: Callable[[TrialResult], None]) -> SearchResult:
        """Try until so many trials are done, counting those that were kept; raises `BadData` where none has a score."""
        if not self._study.trials:
            self._study.enqueue_trial(self._declared)
        self._fail_interrupted()
        for _ in range(trials - len(self._finished_trials())):
            self._study.optimize(self._evaluate_trial, n_trials=1)
            report(to_trial_result(self._study.trials[-1]))
        results = [to_trial_result(trial) for trial in self._finished_trials()]
        scored = [(result.score, result) for result in results if result.score is not None]
        if not scored:
            raise BadData(f"Some trial should have a score. Found none in {len(results)}.")
        score, best = max(scored, key=lambda pair: pair[0])
        shape, plan = self._apply(best.values)
        first = results[0].score
        return SearchResult(
            shape=shape, plan=plan, score=score, declared=float("nan") if first is None else first, trials=results
        )

    def _finished_trials(self) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))

    def _fail_interrupted(self) -> None:
        """Trials of a process that was ended are never finished; others take their place."""
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _evaluate_trial(self, trial: Trial) -> float:
        values = {name: SPACE[name].suggest(trial, name, value) for name, value in self._declared.items()}
        shape, plan = self._apply(values)

        def report_epoch(epoch: Epoch) -> None:
            trial.report(epoch.score, epoch.number)
            if trial.should_prune():
                raise optuna.TrialPruned

        return fit(self._examples, shape, plan, report_epoch, FitOptions(process_group=self._process_group)).score

    def _apply(self, values: Mapping[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
        """The declared shape and plan with these values in place of their own."""
        fields = ModelConfig.model_fields
        shape = self._shape.model_copy(update={name: value for name, value in values.items() if name in fields})
        plan = self._plan.model_copy(update={name: value for name, value in values.items() if name not in fields})
        return shape, plan


def to_trial_result(trial: optuna.trial.FrozenTrial) -> TrialResult:
    score = trial.value if trial.state == TrialState.COMPLETE else None
    return TrialResult(number=trial.number + 1, values=dict(trial.params), score=score)


def check_space(names: Sequence[str]) -> None:
    """Raises `BadConfig` for names that cannot be searched over."""
    if unknown := [name for name in names if name not in SPACE]:
        raise BadConfig([f"`--over` should name some of {', '.join(SPACE)}. Found {', '.join(unknown)}."])
