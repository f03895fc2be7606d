"""A fit that trees may teach: the network is fitted, and again where trees are ahead of it; the better one is kept."""

from collections.abc import Callable
from dataclasses import replace
from functools import reduce

from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from contract.tasks import Task
from training.data.examples import Examples
from training.data.streaming import ExampleStream
from training.metrics.losses import log_loss
from training.teaching.teacher import can_be_taught, predict_by_trees, teach
from training.trainer.fit import DEFAULT_OPTIONS, EpochCallback, FitOptions, FitResult, fit
from training.trainer.partition import prepare_data, split_held_out

# Probabilities have less noise than labels, so the score goes on rising for longer.
EPOCHS_TIMES, PATIENCE_TIMES = 2.5, 2


def fit_taught(
    examples: Examples | ExampleStream,
    model_config: ModelConfig,
    config: TrainingConfig,
    report: EpochCallback,
    options: FitOptions = DEFAULT_OPTIONS,
    on_taught: Callable[[tuple[Task, ...]], None] = lambda tasks: None,
) -> FitResult:
    """`training.trainer.fit.fit`, and once more with a teacher where the settings have one and it is ahead.

    `on_taught` is called with the tasks that trees teach before the second fit, which is not resumed. The networks are
    compared by their scores on the same validation part. Raises `BadData`, `BadConfig`.
    """
    fitted = fit(examples, model_config, config, report, options)
    if config.teacher == "none" or options.transfer or not isinstance(examples, Examples):
        return fitted
    tasks = find_behind(examples, config, fitted)
    if not tasks:
        return fitted
    on_taught(tasks)
    longer = config.model_copy(
        update={"epochs": round(EPOCHS_TIMES * config.epochs), "patience": PATIENCE_TIMES * config.patience}
    )

    def teach_all(part: Examples) -> Examples:
        return reduce(lambda taught, task: teach(task, taught, config.threads, config.seed), tasks, part)

    taught = fit(examples, model_config, longer, report, replace(options, state_path=None, teach=teach_all))
    return taught if taught.score > fitted.score else fitted


def find_behind(examples: Examples, config: TrainingConfig, fitted: FitResult) -> tuple[Task, ...]:
    """The tasks on whose validation rows trees of the training part lose less than the network did."""
    data = prepare_data(examples, config)
    _, validation = split_held_out(data.held_out)

    def is_behind(task: Task) -> bool:
        rows = validation.take(validation.has_label(task))
        if not len(rows) or not can_be_taught(task, data.statistics_sample):
            return False
        p = predict_by_trees(task, data.statistics_sample, rows, config.threads, config.seed)
        return log_loss(rows.labels[task.name], p) < fitted.evaluation[task.name]["log_loss"]

    return tuple(filter(is_behind, fitted.network.tasks))
