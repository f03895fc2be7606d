"""Hyper-parameter search over the network and its training, by the score on held-out examples.

A tree-structured Parzen estimator (Bergstra et al. 2011) chooses trials; a trial below the median score of the others
at the same epoch is pruned. The first trial is the declared configuration, the baseline of the search. The best trial
was selected on the held-out part, so its score there is optimistic: `training evaluate` measures it on later examples.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import optuna
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import Trial, TrialState

from contract.errors import BadConfig, BadData
from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from training.data.examples import Examples
from training.trainer.distributed import join_process_group
from training.trainer.fit import Epoch, FitOptions, fit
from training.trainer.training_state import compute_digest

STARTUP_TRIALS: Final = 5  # drawn at random, and never pruned


class Range(NamedTuple):
    """Integers or floats, by the type of the declared value; `log`: uniform in the logarithm."""

    low: float
    high: float
    log: bool = False

    def suggest(self, trial: Trial, name: str, declared: Any) -> Any:
        low, high = min(self.low, declared), max(self.high, declared)
        if isinstance(declared, int):
            return trial.suggest_int(name, int(low), int(high))
        return trial.suggest_float(name, low, high, log=self.log)


class Choices(NamedTuple):
    """A categorical choice."""

    values: tuple[Any, ...]

    def suggest(self, trial: Trial, name: str, declared: Any) -> Any:
        return trial.suggest_categorical(name, list(dict.fromkeys([*self.values, declared])))


# The declared value is always part of the space.
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
    """The values of a trial, and its score, None if it was pruned."""

    number: int
    values: dict[str, Any]
    score: float | None


class SearchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The best configuration and its score, the score of the declared one, and all trials."""

    model_config: ModelConfig
    config: TrainingConfig
    score: float
    declared: float | None
    trials: list[TrialResult]


class HyperparameterSearch:
    """A search over some names of `SPACE`. `journal_path`: a file of trials, from which a later search continues."""

    def __init__(
        self,
        *,
        examples: Examples,
        model_config: ModelConfig,
        config: TrainingConfig,
        names: Sequence[str],
        journal_path: Path | None = None,
    ) -> None:
        self._process_group = join_process_group(config.device)
        self._examples = examples
        self._model_config = model_config
        self._config = config
        model_fields = ModelConfig.model_fields
        self._declared = {name: getattr(model_config if name in model_fields else config, name) for name in names}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = JournalStorage(JournalFileBackend(str(journal_path))) if journal_path else None
        digest = compute_digest(examples, model_config, config, "")
        self._study = optuna.create_study(
            storage=storage,
            study_name=f"{digest} {' '.join(names)} {config.epochs} {config.patience}",
            load_if_exists=True,
            direction="maximize",
            sampler=optuna.samplers.TPESampler(seed=config.seed, n_startup_trials=STARTUP_TRIALS),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1),
        )

    def run(self, trials: int, report: Callable[[TrialResult], None]) -> SearchResult:
        """Run until `trials` are finished, including those of the journal; raises `BadData` if none has a score."""
        if not self._study.trials:
            self._study.enqueue_trial(self._declared)
        self._fail_interrupted()
        for _ in range(trials - len(self._list_finished_trials())):
            self._study.optimize(self._evaluate_trial, n_trials=1)
            report(to_trial_result(self._study.trials[-1]))
        results = [to_trial_result(trial) for trial in self._list_finished_trials()]
        scored = [(result.score, result) for result in results if result.score is not None]
        if not scored:
            raise BadData(f"Some trial should have a score. Found none in {len(results)}.")
        score, best = max(scored, key=lambda pair: pair[0])
        model_config, config = self._apply(best.values)
        declared = results[0].score
        return SearchResult(
            model_config=model_config,
            config=config,
            score=score,
            declared=float("nan") if declared is None else declared,
            trials=results,
        )

    def _list_finished_trials(self) -> list[optuna.trial.FrozenTrial]:
        return self._study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED))

    def _fail_interrupted(self) -> None:
        """Mark the running trials of an interrupted process as failed, so that they do not count."""
        for trial in self._study.get_trials(states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)

    def _evaluate_trial(self, trial: Trial) -> float:
        values = {name: SPACE[name].suggest(trial, name, value) for name, value in self._declared.items()}
        model_config, config = self._apply(values)
        options = FitOptions(process_group=self._process_group)

        def report_epoch(epoch: Epoch) -> None:
            trial.report(epoch.score, epoch.number)
            if trial.should_prune():
                raise optuna.TrialPruned

        scored = config.model_copy(update={"refit": False})  # it does not change the score
        return fit(self._examples, model_config, scored, report_epoch, options).score

    def _apply(self, values: Mapping[str, Any]) -> tuple[ModelConfig, TrainingConfig]:
        """The declared configuration with these values."""
        fields = ModelConfig.model_fields
        model_values = {name: value for name, value in values.items() if name in fields}
        training_values = {name: value for name, value in values.items() if name not in fields}
        return self._model_config.model_copy(update=model_values), self._config.model_copy(update=training_values)


def to_trial_result(trial: optuna.trial.FrozenTrial) -> TrialResult:
    score = trial.value if trial.state == TrialState.COMPLETE else None
    return TrialResult(number=trial.number + 1, values=dict(trial.params), score=score)


def check_space(names: Sequence[str]) -> None:
    """Raises `BadConfig` for names that are not in the space."""
    if unknown := [name for name in names if name not in SPACE]:
        raise BadConfig([f"`--over` should name some of {', '.join(SPACE)}. Found {', '.join(unknown)}."])
