"""Following: learn once from the feedback that came since, and publish what is not worse.

Every example is predicted before it is learned from, which is the most honest figure there is (progressive validation).
The newest examples are held out for the gate; the next update learns from them first. Positions move on inside the
checkpoint, so a bundle and what it has learned from cannot come apart.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import msgspec

from contract.bundle import current_version
from contract.errors import BadBundle, BadData
from contract.messages import Example, read_example
from contract.settings import LabelDelay, TrainingConfig
from export.interactions import read_interactions
from model.checkpoint import Checkpoint, CheckpointMetadata, checkpoint_path, make_metadata, read_checkpoint
from model.network import Network
from training.data.examples import Examples, from_rows
from training.data.interactions import extract_interactions, merge_interactions
from training.data.labels import find_label_error
from training.feedback.feedback_reader import FeedbackBatch
from training.online.delayed_feedback import collect_delayed_feedback
from training.online.embedding_rows import update_embedding_rows
from training.online.example_filters import filter_examples
from training.online.holdout import split_buffer
from training.online.incremental_pass import IncrementalPass, Predictions, learn_progressively
from training.online.label_checks import check_labels
from training.online.new_labels import (
    NewLabels,
    concatenate_pending,
    estimate_negative_delays,
    find_new_labels,
    merge_new_labels,
    read_new_labels,
)
from training.online.promotion_gate import check_finite_weights, check_update
from training.online.replay_buffer import ReplayBuffer, decode_buffer, encode_buffer, merge_examples, read_schema
from training.online.update_learner import create_update_learner
from training.stats.bootstrap import PairedPredictions
from training.trainer.evaluation import Evaluation, evaluate_predictions
from training.trainer.learner import Learner, predict

TrainFunction = Callable[[Learner, IncrementalPass, TrainingConfig], Predictions]


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """What came of one look at the feedback. `checkpoint`: the better model, or None with `refused` saying why.

    `figures`: what the gate found, by set and task; `aside`: the network that it refused.
    """

    examples: int
    left_out: dict[str, int]
    progressive: Evaluation = field(default_factory=dict)
    held_out: Evaluation = field(default_factory=dict)
    rejections: Sequence[str] = ()
    checkpoint: Checkpoint | None = None
    gate_metrics: Mapping[str, dict[str, float]] = field(default_factory=dict)
    rejected_checkpoint: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class UpdateInputs:
    """What an update has to do with: what came, and what the checkpoint carries.

    `parts` are learned from now, `held` judges first and is learned by the next update, `waiting` is what the next one
    gets besides: of the latest news yes may be known and no not yet, for which tasks have their `waits`. `replayed` is
    learned from again, `judging` never. `learned`: what the next sample is drawn from.
    """

    negative_delays: Mapping[str, int]
    parts: list[NewLabels]
    recent_holdout: NewLabels
    deferred: NewLabels
    buffer_candidates: list[Examples]
    replay_buffer: ReplayBuffer | None
    buffer_holdout: Examples | None

    @classmethod
    def build(
        cls, new: NewLabels, buffer: ReplayBuffer | None, deferred: list[NewLabels], holdout_share: float
    ) -> "UpdateInputs":
        replay_buffer, buffer_holdout = split_buffer(buffer) if buffer else (None, None)
        before, everything = [buffer.examples] if buffer else [], [*deferred, new]
        negative_delays = estimate_negative_delays([new.examples, *before])
        now_ms = int(new.available_ms({}).max())
        mature = [part.available_ms(negative_delays) <= now_ms for part in everything]
        if not any(mask.any() for mask in mature):
            mature = [~mask for mask in mature]  # so little that nothing else is to be had
        *due, last = [part.take(mask) for part, mask in zip(everything, mature, strict=True)]
        immature = [part.take(~mask) for part, mask in zip(everything, mature, strict=True)]
        latest = last.most_recent(holdout_share, negative_delays)
        recent_holdout, parts = last.take(latest), [*due, last.take(~latest)]
        buffer_candidates = [*before, *(part.examples for part in parts)]
        return cls(
            negative_delays,
            parts,
            recent_holdout,
            merge_new_labels([recent_holdout, *immature]),
            buffer_candidates,
            replay_buffer,
            buffer_holdout,
        )

    def holdouts(self) -> dict[str, Examples]:
        """The sets that judge, by name."""
        return {"recent": self.recent_holdout.pending()} | (
            {"kept": self.buffer_holdout} if self.buffer_holdout else {}
        )

    def predict_buffer_holdout(self, serving: Network) -> tuple[Examples, Predictions] | None:
        """What the present model says of the kept examples that judge, if there are some."""
        return (self.buffer_holdout, predict(serving, self.buffer_holdout)) if self.buffer_holdout else None

    def build_pass(self, teacher: Network, delays: Mapping[str, LabelDelay]) -> IncrementalPass:
        return IncrementalPass(
            teacher,
            concatenate_pending(self.parts, self.negative_delays),
            self.replay_buffer,
            collect_delayed_feedback(self.parts, delays),
        )


def read_serving_checkpoint(bundles: Path) -> Checkpoint:
    """The checkpoint behind the bundle that serves now; raises `BadBundle` when there is none."""
    version = current_version(bundles)
    if version is None:
        raise BadBundle(f"{bundles} should have a present bundle to go on from. Found none; `export` publishes one.")
    return read_checkpoint(checkpoint_path(bundles, version))


def update(
    checkpoint: Checkpoint,
    fed: FeedbackBatch,
    plan: TrainingConfig,
    delays: Mapping[str, LabelDelay] = MappingProxyType({}),
    train: TrainFunction = learn_progressively,
) -> UpdateResult:
    """Learn from what was fed, if there is anything to learn from; the checkpoint given stays as it is.

    `delays`: the tasks whose first label may be corrected.
    """
    new, left_out = decode_usable(fed.values, checkpoint)
    buffer = read_buffer(checkpoint)
    rows, unfit = filter_examples(new.examples, buffer.examples if buffer else None, fed.newest_ms, plan.user_share)
    new, left_out = new.take(rows), left_out | unfit
    if not len(new):
        return UpdateResult(0, left_out)
    serving, inputs = (
        checkpoint.build_network(),
        UpdateInputs.build(new, buffer, read_deferred(checkpoint), plan.held_out),
    )
    pending, expected = new.pending(), checkpoint.metadata.evaluation
    predictions = predict(serving, pending)
    untrained = UpdateResult(len(new), left_out, evaluate_predictions(serving.tasks, pending, predictions))
    if rejections := list(
        check_labels(serving.tasks, (pending, predictions), inputs.predict_buffer_holdout(serving), plan.jump, expected)
    ):
        return replace(untrained, rejections=rejections)
    start = update_embedding_rows(checkpoint, serving, new.first_seen(), plan)
    network = start.build_network()
    learner = create_update_learner(network, start.optimizer, plan)
    try:
        attempt = train_and_evaluate(learner, inputs.build_pass(serving, delays), inputs.holdouts(), plan, train)
    except BadData as error:
        return replace(untrained, rejections=[str(error)])
    result = replace(attempt, examples=len(new), left_out=left_out)
    about = describe_update(checkpoint, network, result.held_out, fed.positions)
    if result.rejections:
        return replace(result, rejected_checkpoint=Checkpoint(metadata=about, weights=network.state_dict()))
    better = Checkpoint(
        metadata=about,
        weights=network.state_dict(),
        optimizer=learner.optimizer.state_dict(),
        replay_buffer=encode_buffer(merge_examples(inputs.buffer_candidates), plan.keep, plan.seed),
        pending_examples=inputs.deferred.to_parquet(),
        id_counts=start.id_counts,
        interactions=merge_interactions(read_interactions(checkpoint.interactions), extract_interactions(new.examples)),
    )
    return replace(result, checkpoint=better)


def train_and_evaluate(
    learner: Learner,
    increment: IncrementalPass,
    holdouts: Mapping[str, Examples],
    plan: TrainingConfig,
    train: TrainFunction,
) -> UpdateResult:
    """Take a lesson, then let the judges compare what the teacher says with what is said now.

    Raises `BadData` where learning comes to no end.
    """
    network, before = (
        learner.network,
        {name: predict(increment.teacher, examples) for name, examples in holdouts.items()},
    )
    progressive = train(learner, increment, plan)
    network.eval()
    sets = [
        PairedPredictions(name, examples, before[name], predict(network, examples))
        for name, examples in holdouts.items()
    ]
    gate_result = check_update(network.tasks, sets, plan.margin)
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
    """What is said of the network that comes after a checkpoint; its version sorts behind, whatever the clock says."""
    return make_metadata(
        network,
        parent=checkpoint.metadata.version,
        created_ms=max(time.time_ns() // 1_000_000, checkpoint.metadata.created_ms + 1),
        evaluation=evaluation,
        positions=positions,
    )


def decode_usable(values: Sequence[bytes], checkpoint: Checkpoint) -> tuple[NewLabels, dict[str, int]]:
    """The examples that this model can learn from, and how many were left out for which reason."""
    features, tasks, classes = read_schema(checkpoint.metadata)
    rows, left_out = list[Example](), {"unreadable": 0, "of other features": 0, "without a label": 0}
    for value in values:
        try:
            row = read_example(value)
        except msgspec.MsgspecError:
            left_out["unreadable"] += 1
            continue
        labels = {t.name: row.labels[t.name] for t in tasks if t.name in row.labels}
        labels = {t.name: labels[t.name] for t in tasks if t.name in labels and not find_label_error(t, labels[t.name])}
        if row.features != features.digest:
            left_out["of other features"] += 1
        elif not labels:
            left_out["without a label"] += 1
        else:
            rows.append(msgspec.structs.replace(row, labels=labels))
    new_labels = find_new_labels(rows, from_rows(rows, features, tasks, classes))
    return new_labels, {reason: count for reason, count in left_out.items() if count}


def read_buffer(checkpoint: Checkpoint) -> ReplayBuffer | None:
    """The examples that the checkpoint carries to be learned from again, if any."""
    return decode_buffer(checkpoint.replay_buffer, checkpoint.metadata) if checkpoint.replay_buffer else None


def read_deferred(checkpoint: Checkpoint) -> list[NewLabels]:
    """The examples that judged the checkpoint, and are to be learned from now; none or one."""
    return [read_new_labels(checkpoint.pending_examples, checkpoint.metadata)] if checkpoint.pending_examples else []
