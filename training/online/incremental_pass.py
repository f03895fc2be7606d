"""One lesson of a network that goes on learning: what is new, beside what is kept, before the eyes of its teacher."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from contract.hashing import hash_texts
from contract.settings import TrainingConfig
from model.network import Network
from training.data.examples import Examples
from training.online.delayed_feedback import DelayedFeedback
from training.online.distillation import add_teacher_targets
from training.online.replay_buffer import ReplayBuffer, concatenate_examples
from training.trainer.learner import Learner, predict, to_batch

Predictions: TypeAlias = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class IncrementalPass:
    """`arriving`: new examples in the order in which they became known. `replayed`: kept ones to draw from beside them.

    `late`: what is known of labels that may still change.
    """

    teacher: Network
    new_examples: Examples
    replay_buffer: ReplayBuffer | None = None
    delayed_feedback: DelayedFeedback = field(default_factory=DelayedFeedback)


def learn_progressively(learner: Learner, increment: IncrementalPass, plan: TrainingConfig) -> Predictions:
    """One pass over what is new, kept examples in each batch; returns what was said before learning, by task."""
    new_examples, predictions = increment.new_examples, Predictions()
    rng, probabilities = (
        create_replay_rng(new_examples, plan),
        increment.replay_buffer.probabilities() if increment.replay_buffer else np.zeros(0),
    )
    for rows in np.array_split(np.arange(len(new_examples)), max(-(-len(new_examples) // plan.update_batch), 1)):
        examples = new_examples.take(rows)
        for task, prediction in predict(learner.network, examples).items():
            whole = np.full((len(new_examples), *prediction.shape[1:]), np.nan, np.float32)
            predictions.setdefault(task, whole)[rows] = prediction
        if increment.replay_buffer and (again := max(round(plan.replay * len(rows)), plan.update_batch - len(rows))):
            replayed = rng.choice(len(probabilities), again, p=probabilities)
            examples = concatenate_examples([examples, increment.replay_buffer.examples.take(replayed)])
        batch = increment.delayed_feedback.weigh(learner.network, to_batch(examples), examples, len(rows))
        learner.train_step(add_teacher_targets(increment.teacher, batch, len(rows)) if plan.distillation else batch)
    return predictions


def create_replay_rng(new_examples: Examples, plan: TrainingConfig) -> np.random.Generator:
    """What draws the replayed rows: by what arrives, or each update would draw those that the last one drew."""
    return np.random.default_rng([plan.seed, int(hash_texts(new_examples.example_id[:1].tolist()).sum())])
