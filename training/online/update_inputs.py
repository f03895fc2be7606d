"""The inputs of one update: the labels to learn, the hold-outs that judge it, and the rows left to the next update."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from contract.arrays import Mask, Predictions
from contract.messages import Example, read_example
from contract.settings.worker import LabelDelay
from contract.tasks import Task
from model.checkpoint import Checkpoint
from model.network import Network
from training.data.examples import Examples, from_rows
from training.data.labels import is_valid_label
from training.feedback.decoding import decode_or_none
from training.online.delayed_feedback import collect_delayed_feedback
from training.online.incremental_pass import IncrementalPass
from training.online.new_labels import (
    NewLabels,
    concatenate_pending,
    estimate_negative_delays,
    find_new_labels,
    merge_new_labels,
    read_new_labels,
)
from training.online.replay_buffer import ReplayBuffer, decode_buffer, split_buffer
from training.trainer.learner import predict


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateInputs:
    """The examples of one update, by their use.

    `parts` are learned now and `replay_buffer` is replayed. `recent_holdout` judges this update and is learned by the
    next one; `buffer_holdout` judges every update and is never learned. `deferred` is left to the next update:
    `recent_holdout`, and rows whose negative label may still be pending (`negative_delays`, in ms by task). The next
    replay buffer is drawn from `buffer_candidates`.
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
        """`new`: the labels that arrived. `deferred`: left by the last update. `holdout_share`: of the mature rows."""
        buffered = [buffer.examples] if buffer else []
        replay_buffer, buffer_holdout = split_buffer(buffer) if buffer else (None, None)
        negative_delays = estimate_negative_delays([new.examples, *buffered])
        arrived = [*deferred, new]
        mature = find_mature(arrived, int(new.available_ms({}).max()), negative_delays)
        *earlier, latest = [part.take(mask) for part, mask in zip(arrived, mature, strict=True)]
        immature = [part.take(~mask) for part, mask in zip(arrived, mature, strict=True)]
        is_held_out = latest.most_recent(holdout_share, negative_delays)
        recent_holdout = latest.take(is_held_out)
        parts = [*earlier, latest.take(~is_held_out)]
        return cls(
            negative_delays=negative_delays,
            parts=parts,
            recent_holdout=recent_holdout,
            deferred=merge_new_labels([recent_holdout, *immature]),
            buffer_candidates=[*buffered, *(part.examples for part in parts)],
            replay_buffer=replay_buffer,
            buffer_holdout=buffer_holdout,
        )

    def holdouts(self) -> dict[str, Examples]:
        """The hold-out sets by name; the names are keys of the gate's figures."""
        holdouts = {"recent": self.recent_holdout.pending()}
        if self.buffer_holdout:
            holdouts["kept"] = self.buffer_holdout
        return holdouts

    def predict_buffer_holdout(self, serving: Network) -> tuple[Examples, Predictions] | None:
        """The buffer's hold-out with the serving model's predictions; None without a buffer."""
        return (self.buffer_holdout, predict(serving, self.buffer_holdout)) if self.buffer_holdout else None

    def build_pass(self, teacher: Network, delays: Mapping[str, LabelDelay]) -> IncrementalPass:
        return IncrementalPass(
            teacher,
            concatenate_pending(self.parts, self.negative_delays),
            self.replay_buffer,
            collect_delayed_feedback(self.parts, delays),
        )


def find_mature(parts: Sequence[NewLabels], now_ms: int, negative_delays: Mapping[str, int]) -> list[Mask]:
    """The rows of each part (N,) whose labels could be known by now, both ways; all rows where there is none."""
    mature = [part.available_ms(negative_delays) <= now_ms for part in parts]
    if any(mask.any() for mask in mature):
        return mature
    return [np.ones_like(mask) for mask in mature]


def decode_usable(values: Sequence[bytes], checkpoint: Checkpoint) -> tuple[NewLabels, dict[str, int]]:
    """The examples that this model can learn from, and the number of other records by reason."""
    features, tasks, classes = checkpoint.metadata.schema()
    rows = list[Example]()
    left_out = {"unreadable": 0, "of other features": 0, "without a label": 0}
    for value in values:
        if (row := decode_or_none(read_example, value)) is None:
            left_out["unreadable"] += 1
            continue
        labels = select_valid_labels(row, tasks)
        if row.features != features.digest:
            left_out["of other features"] += 1
        elif not labels:
            left_out["without a label"] += 1
        else:
            rows.append(msgspec.structs.replace(row, labels=labels))
    new_labels = find_new_labels(rows, from_rows(rows, features, tasks, classes))
    return new_labels, {reason: count for reason, count in left_out.items() if count}


def select_valid_labels(row: Example, tasks: Sequence[Task]) -> dict[str, float | str]:
    """The labels of a row that belong to one of the tasks and fit its kind."""
    return {
        task.name: row.labels[task.name]
        for task in tasks
        if task.name in row.labels and is_valid_label(task, row.labels[task.name])
    }


def read_buffer(checkpoint: Checkpoint) -> ReplayBuffer | None:
    """The replay buffer of a checkpoint, if it has one."""
    return decode_buffer(checkpoint.replay_buffer, checkpoint.metadata) if checkpoint.replay_buffer else None


def read_deferred(checkpoint: Checkpoint) -> list[NewLabels]:
    """The rows that the checkpoint's update left to the next one, at most one part."""
    return [read_new_labels(checkpoint.pending_examples, checkpoint.metadata)] if checkpoint.pending_examples else []
