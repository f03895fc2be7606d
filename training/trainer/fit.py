"""Training: examples in, a trained and calibrated network out, validated on the latest examples.

Each family of examples is split by time into training, calibration and validation parts. The validation part selects
the epoch and gives the metrics; neither weights nor calibrators have seen it. Each epoch is scored after calibration,
as the network would serve: overconfidence that calibration removes should not outweigh what the tasks have learned.
With `refit` the network that is returned has then learned all examples, for as many epochs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from model.checkpoint import LearnedUntil
from model.feature_statistics import measure
from model.network import Network
from training.data.examples import Examples
from training.data.learned_until import measure_learned
from training.data.profile_share import measure_profile_share
from training.data.split import assign_families
from training.data.streaming import ExampleStream
from training.trainer.base_rate import measure_worse_share, merge_evaluations
from training.trainer.batching import alternate_batches, mix_batches, to_batch
from training.trainer.calibration import calibrate
from training.trainer.distributed import SINGLE_PROCESS, ProcessGroup
from training.trainer.evaluation import Evaluation, compute_weighted_score, evaluate
from training.trainer.learner import Learner, copy_state
from training.trainer.loss_balancing import prioritize_tasks
from training.trainer.partition import TrainingData, prepare_data, split_held_out
from training.trainer.training_state import TrainingState, compute_digest
from training.trainer.transfer import Transfer

Losses = Mapping[str, float]
EpochCallback = Callable[["Epoch"], None]
ProgressCallback = Callable[[int, int, Losses], None]  # steps done, steps in all, losses of the last step


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training part: the tasks' mean training losses, and the score on the validation part.

    `weights`: the loss weights of the next epoch, where `focus` changes them.
    """

    number: int
    losses: Losses
    score: float
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class FitResult:
    """The calibrated network of the best epoch, its metrics, why some tasks were excluded, and what it has learned.

    With `refit` the metrics are those of the network before it, which has not seen the held-out part.
    """

    network: Network
    optimizer: Mapping[str, Any]
    evaluation: Evaluation
    score: float
    left_out: dict[str, str]
    learned: dict[str, LearnedUntil]
    profile_share: float | None


def ignore_progress(done: int, steps: int, losses: Losses) -> None:
    """The default: no progress is reported."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a fit runs, in addition to its config. `state_path`: a file to save each epoch to and to resume from.

    `transfer`: the trained network to start from. `teach` gives the training part with the labels that are learned.
    `process_group`: the processes that train together; all return the same result, and the main one saves the state.
    `progress` is called after every step.
    """

    state_path: Path | None = None
    transfer: Transfer | None = None
    process_group: ProcessGroup = SINGLE_PROCESS
    progress: ProgressCallback = ignore_progress
    teach: Callable[[Examples], Examples] | None = None


DEFAULT_OPTIONS = FitOptions()


def fit(
    examples: Examples | ExampleStream,
    model_config: ModelConfig,
    config: TrainingConfig,
    report: EpochCallback,
    options: FitOptions = DEFAULT_OPTIONS,
) -> FitResult:
    """Train until the score stops rising. Equal seeds give equal weights. Raises `BadData`, `BadConfig`."""
    transfer = options.transfer
    if transfer:
        transfer.check(examples, model_config)
    data = prepare_data(examples, config, transfer)
    if options.teach:
        data = replace_training_part(data, options.teach(data.statistics_sample))
    calibrating, validation = split_held_out(data.held_out)
    network = build_network(data.statistics_sample, model_config, transfer).to(options.process_group.device)
    if transfer:
        calibrating = transfer.drop_frozen_labels(calibrating)
    groups = transfer.parameter_groups(network, config.learning_rate) if transfer else None
    learner = Learner(network=network, config=config, groups=groups, process_group=options.process_group)
    state = TrainingState(learner=learner, seed=config.seed)
    digest = ""
    if options.state_path:
        digest = compute_digest(examples, model_config, config, transfer.name if transfer else "")
        if options.state_path.is_file():
            state.restore(options.state_path, digest)
    while state.epochs_done < config.epochs and state.best.epochs_without_gain < config.patience:
        epoch = run_epoch(state, data, calibrating, validation, config, options.progress)
        if options.state_path and options.process_group.is_main:
            state.save(options.state_path, digest)
        report(epoch)
    network.load_state_dict(state.best.weights)
    worse_shares = measure_worse_share(network.eval(), data.statistics_sample, validation)
    evaluation = merge_evaluations(evaluate(network, validation), worse_shares)
    optimizer = state.best.optimizer if groups is None else {}  # updates train other parameters than a transfer does
    trained = transfer.drop_frozen_labels(data.statistics_sample) if transfer else data.statistics_sample
    if config.refit and not transfer and isinstance(examples, Examples):
        trained = examples.for_tasks(network.tasks)
        learner = refit(state, trained, config, options)
        network, optimizer = learner.network, copy_state(learner.optimizer.state_dict())
    return FitResult(
        network=network.cpu().requires_grad_(True),
        optimizer=optimizer,
        evaluation=evaluation,
        score=state.best.score,
        left_out=data.left_out,
        learned=measure_learned(trained),
        profile_share=measure_profile_share(data.statistics_sample),
    )


def replace_training_part(data: TrainingData, taught: Examples) -> TrainingData:
    """The same partition, whose training part is learned as `taught`."""
    return replace(data, chunks=lambda rng: [taught])


def refit(state: TrainingState, examples: Examples, config: TrainingConfig, options: FitOptions) -> Learner:
    """A new network, trained on all `examples` up to the best epoch of `state`, with the calibrators of its network.

    The latest examples say most about what comes next, and are many of a small table. Nothing is left to choose the
    epoch or to fit calibrators by, so both are those that the held-out part gave.
    """
    network, epochs = state.learner.network, state.epochs_done - state.best.epochs_without_gain
    torch.manual_seed(config.seed)  # also after a resumption: equal seeds give equal weights
    new = build_network(examples, network.config).to(options.process_group.device)
    learner = Learner(network=new, config=config, process_group=options.process_group)
    learner.weights = dict(state.learner.weights)
    learned = options.teach(examples) if options.teach else examples
    data = TrainingData(
        statistics_sample=examples,
        held_out=examples.take(np.arange(0)),
        chunks=lambda rng: [learned],
        rows=len(examples),
        left_out={},
    )
    rng = np.random.default_rng(config.seed)
    for _ in range(epochs):
        train_epoch(learner, data, config, rng, options.progress)
    new.calibrators.load_state_dict(network.calibrators.state_dict())
    new.eval()
    return learner


def run_epoch(
    state: TrainingState,
    data: TrainingData,
    calibrating: Examples,
    validation: Examples,
    config: TrainingConfig,
    progress: ProgressCallback,
) -> Epoch:
    """Train one epoch, calibrate, score, and update the best weights and the tasks' loss weights."""
    learner = state.learner
    losses = train_epoch(learner, data, config, state.rng, progress)
    calibrate(learner.network.eval(), calibrating)  # training losses ignore calibrators, so training is unaffected
    evaluation = evaluate(learner.network, validation)
    score = compute_weighted_score(learner.network.tasks, evaluation)
    state.epochs_done += 1
    state.best.update(score, learner)
    learner.weights = prioritize_tasks(learner.network.tasks, evaluation, config.focus)
    return Epoch(state.epochs_done, losses, score, learner.weights if config.focus else {})


def build_network(training: Examples, model_config: ModelConfig, transfer: Transfer | None = None) -> Network:
    """An untrained network with the feature statistics of the training part, or the start that `transfer` gives."""
    groups = dict.fromkeys(group for task in training.tasks for group in task.groups)
    blocks = {group: training.blocks[group] for group in groups}
    features, tasks = training.features, training.tasks
    statistics = measure(
        features, blocks, training.labels, tasks, training.classes, model_config.rows, model_config.bins
    )
    if transfer:
        statistics = transfer.merge_statistics(statistics)
    network = Network(features=features, tasks=tasks, config=model_config, statistics=statistics)
    network.init_embeddings({group: inputs for group, inputs in to_batch(training).inputs.items() if group in groups})
    if transfer:
        transfer.copy_weights(network)
    return network


def train_epoch(
    learner: Learner,
    data: TrainingData,
    config: TrainingConfig,
    rng: np.random.Generator,
    progress: ProgressCallback = ignore_progress,
) -> Losses:
    """One pass over the training part in a new order; returns each task's mean loss."""
    losses_by_task: dict[str, list[float]] = {}
    sample_batches = alternate_batches if config.turns else mix_batches
    steps = -(-data.rows // config.batch)
    done = 0
    for chunk in data.chunks(rng):
        for rows in sample_batches(assign_families(chunk), config.batch, rng):
            losses = learner.train_step(to_batch(chunk, learner.process_group.local_rows(rows)))
            for task, loss in losses.items():
                losses_by_task.setdefault(task, []).append(loss)
            done += 1
            progress(done, max(done, steps), losses)
    learner.balancer.end_epoch()
    return {task: float(np.mean(values)) for task, values in losses_by_task.items()}
