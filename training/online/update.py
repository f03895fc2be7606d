"""One update of the serving model: learn the feedback that arrived since, and keep the result if it is not worse.

Every new example is predicted before it is learned (progressive validation). The newest examples are held out for the
promotion gate, and the next update learns them first. The read positions are part of the checkpoint, so they always
match what its model has learned.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from contract.arrays import Predictions
from contract.bundle import current_version
from contract.errors import BadBundle, BadData
from contract.settings.training import TrainingConfig
from contract.settings.worker import LabelDelay
from export.interactions import read_interactions
from model.checkpoint import Checkpoint, CheckpointMetadata, checkpoint_path, make_metadata, read_checkpoint
from model.network import Network
from training.data.examples import Examples, merge_examples
from training.data.interactions import extract_interactions, merge_interactions
from training.feedback.feedback_reader import FeedbackBatch
from training.next_item.judgement import judge_order, reset_ranker
from training.online.embedding_rows import update_embedding_rows
from training.online.example_filters import filter_examples
from training.online.incremental_pass import IncrementalPass, learn_progressively
from training.online.label_checks import check_labels
from training.online.learned_labels import drop_learned
from training.online.promotion_gate import GateResult, check_finite_weights, check_ranked_order, check_update
from training.online.replay_buffer import encode_buffer
from training.online.update_inputs import UpdateInputs, decode_usable, read_buffer, read_deferred
from training.stats.paired_predictions import PairedPredictions
from training.trainer.evaluation import Evaluation, evaluate_predictions
from training.trainer.learner import Learner, predict

TrainFunction = Callable[[Learner, IncrementalPass, TrainingConfig], Predictions]


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """The result of one update: `checkpoint` if it passed, otherwise `rejections` and the `rejected_checkpoint`.

    `reset`: why the next-item part has the order of its neighbours again. `left_out`: unusable records by reason.
    `progressive`: metrics of new examples before they were learned; `held_out`: of the newest ones afterwards.
    `gate_metrics`: by hold-out set and task.
    """

    examples: int
    left_out: dict[str, int]
    progressive: Evaluation = field(default_factory=dict)
    held_out: Evaluation = field(default_factory=dict)
    rejections: Sequence[str] = ()
    checkpoint: Checkpoint | None = None
    gate_metrics: Mapping[str, dict[str, float]] = field(default_factory=dict)
    rejected_checkpoint: Checkpoint | None = None
    reset: Sequence[str] = ()


def read_serving_checkpoint(bundles: Path) -> Checkpoint:
    """The checkpoint of the serving bundle; raises `BadBundle` when there is none."""
    version = current_version(bundles)
    if version is None:
        raise BadBundle(f"{bundles} should have a serving bundle to update. Found none; `export` publishes one.")
    return read_checkpoint(checkpoint_path(bundles, version))


def update(
    checkpoint: Checkpoint,
    feedback: FeedbackBatch,
    config: TrainingConfig,
    delays: Mapping[str, LabelDelay] = MappingProxyType({}),
    train: TrainFunction = learn_progressively,
) -> UpdateResult:
    """Learn a batch of feedback, if it has usable examples; `checkpoint` is not changed.

    `delays`: the tasks whose first label may be corrected later.
    """
    new, left_out = decode_usable(feedback.values, checkpoint)
    new, learned_before = drop_learned(new, checkpoint.metadata.learned)
    left_out |= learned_before
    buffer = read_buffer(checkpoint)
    buffered = buffer.examples if buffer else None
    rows, filtered_out = filter_examples(new.examples, buffered, feedback.newest_ms, config.user_share)
    new = new.take(rows)
    left_out |= filtered_out
    if not len(new):
        return UpdateResult(0, left_out)

    serving = checkpoint.build_network()
    inputs = UpdateInputs.build(new, buffer, read_deferred(checkpoint), config.held_out)
    pending = new.pending()
    predictions = predict(serving, pending)
    buffer_holdout = inputs.predict_buffer_holdout(serving)
    evaluation = checkpoint.metadata.evaluation
    rejections = list(check_labels(serving.tasks, (pending, predictions), buffer_holdout, config.jump, evaluation))
    untrained = UpdateResult(len(new), left_out, evaluate_predictions(serving.tasks, pending, predictions))
    if rejections:
        return replace(untrained, rejections=rejections)

    start = update_embedding_rows(checkpoint, serving, new.first_seen(), config)
    learner = create_update_learner(start.build_network(), start.optimizer, config)
    try:
        trained = train_and_evaluate(learner, inputs.build_pass(serving, delays), inputs.holdouts(), config, train)
    except BadData as error:
        return replace(untrained, rejections=[str(error)])
    result = replace(trained, examples=len(new), left_out=left_out)
    metadata = describe_update(checkpoint, learner.network, result.held_out, feedback.positions)
    if result.rejections:
        rejected = Checkpoint(metadata=metadata, weights=learner.network.state_dict())
        return replace(result, rejected_checkpoint=rejected)
    former, interactions = read_interactions(checkpoint.interactions), extract_interactions(new.examples)
    next_item, refusal = keep_next_item(checkpoint, former, interactions, config)
    updated = Checkpoint(
        metadata=metadata,
        weights=learner.network.state_dict(),
        optimizer=learner.optimizer.state_dict(),
        replay_buffer=encode_buffer(merge_examples(inputs.buffer_candidates), config.keep, config.seed),
        pending_examples=inputs.deferred.to_parquet(),
        id_counts=start.id_counts,
        interactions=merge_interactions(former, interactions),
        next_item=next_item,
        together=checkpoint.together,
    )
    gate_metrics = {**result.gate_metrics, **refusal.metrics}
    return replace(result, checkpoint=updated, gate_metrics=gate_metrics, reset=refusal.rejections)


def keep_next_item(
    checkpoint: Checkpoint, former: Any, new: Any, config: TrainingConfig
) -> tuple[Mapping[str, Tensor], GateResult]:
    """The next-item part, with its ranker if that is not worse on the new interactions; and the gate's result."""
    result = GateResult()
    if not checkpoint.next_item:
        return {}, result
    judgement = judge_order(checkpoint.next_item, former, new, new_items_only=config.new_items_only, seed=config.seed)
    result.rejections += check_ranked_order(result, judgement.lost, judgement.user)
    return (reset_ranker(checkpoint.next_item) if result.rejections else checkpoint.next_item), result


def create_update_learner(network: Network, optimizer: Mapping[str, Any], config: TrainingConfig) -> Learner:
    """A learner at the reduced learning rate of updates, whatever rate the optimizer's state has."""
    config = config.model_copy(update={"learning_rate": config.learning_rate * config.update_rate})
    return Learner(network=network.train(), config=config, state=optimizer)


def train_and_evaluate(
    learner: Learner,
    increment: IncrementalPass,
    holdouts: Mapping[str, Examples],
    config: TrainingConfig,
    train: TrainFunction,
) -> UpdateResult:
    """Run the pass, then compare the network with the serving one on each hold-out set.

    The result has no counts and no checkpoint yet. Raises `BadData` where the loss is not finite.
    """
    network = learner.network
    before = {name: predict(increment.teacher, examples) for name, examples in holdouts.items()}
    progressive = train(learner, increment, config)
    network.eval()
    sets = [
        PairedPredictions(name, examples, before[name], predict(network, examples))
        for name, examples in holdouts.items()
    ]
    gate_result = check_update(network.tasks, sets, config.margin)
    return UpdateResult(
        0,
        {},
        evaluate_predictions(network.tasks, increment.new_examples, progressive),
        evaluate_predictions(network.tasks, sets[0].examples, sets[0].after),
        [*check_finite_weights(network), *gate_result.rejections],
        gate_metrics=gate_result.metrics,
    )


def describe_update(
    checkpoint: Checkpoint, network: Network, evaluation: Evaluation, positions: Mapping[str, int]
) -> CheckpointMetadata:
    """Metadata of the network that follows `checkpoint`; its version sorts after, even if the clock went back."""
    return make_metadata(
        network,
        parent=checkpoint.metadata.version,
        created_ms=max(time.time_ns() // 1_000_000, checkpoint.metadata.created_ms + 1),
        evaluation=evaluation,
        positions=positions,
        learned=checkpoint.metadata.learned,
        profile_share=checkpoint.metadata.profile_share,
    )
