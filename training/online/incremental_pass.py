"""One incremental training pass: new examples mixed with replayed ones, with distillation from the serving model."""

from dataclasses import dataclass, field

import numpy as np

from contract.arrays import Array, Predictions
from contract.hashing import hash_texts
from contract.settings.training import TrainingConfig
from model.network import Network
from training.data.examples import Examples, concatenate_examples
from training.online.delayed_feedback import DelayedFeedback
from training.online.distillation import add_teacher_targets
from training.online.replay_buffer import ReplayBuffer
from training.trainer.batching import to_batch
from training.trainer.learner import Learner, predict


@dataclass(frozen=True, slots=True)
class IncrementalPass:
    """`new_examples` are ordered by when their labels became available; `delayed_feedback` weighs corrected labels."""

    teacher: Network
    new_examples: Examples
    replay_buffer: ReplayBuffer | None = None
    delayed_feedback: DelayedFeedback = field(default_factory=DelayedFeedback)


def learn_progressively(learner: Learner, increment: IncrementalPass, config: TrainingConfig) -> Predictions:
    """One pass over the new examples, replayed ones in each batch; returns the predictions made before learning."""
    new_examples, buffer = increment.new_examples, increment.replay_buffer
    predictions = dict[str, Array]()
    rng = create_replay_rng(new_examples, config)
    probabilities = buffer.probabilities() if buffer else np.zeros(0)
    batches = max(-(-len(new_examples) // config.update_batch), 1)
    for rows in np.array_split(np.arange(len(new_examples)), batches):
        examples = new_examples.take(rows)
        for task, prediction in predict(learner.network, examples).items():
            unpredicted = np.full((len(new_examples), *prediction.shape[1:]), np.nan, np.float32)
            predictions.setdefault(task, unpredicted)[rows] = prediction
        replay_rows = max(round(config.replay * len(rows)), config.update_batch - len(rows))
        if buffer and replay_rows:
            replayed = rng.choice(len(probabilities), replay_rows, p=probabilities)
            examples = concatenate_examples([examples, buffer.examples.take(replayed)])
        batch = increment.delayed_feedback.weigh(learner.network, to_batch(examples), examples, len(rows))
        if config.distillation:
            batch = add_teacher_targets(increment.teacher, batch, len(rows))
        learner.train_step(batch)
    return predictions


def create_replay_rng(new_examples: Examples, config: TrainingConfig) -> np.random.Generator:
    """The generator of replayed rows. The first new example seeds it too, so that each update draws different rows."""
    return np.random.default_rng([config.seed, int(hash_texts(new_examples.example_id[:1].tolist()).sum())])
