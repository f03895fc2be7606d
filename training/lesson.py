"""One lesson of a network that goes on learning: what is new, beside what is kept, before the eyes of its teacher."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from model.network import Network
from training.delay import Late
from training.examples import Examples
from training.learner import Learner, as_batch, predict
from training.plan import Plan
from training.sample import Sample, one_after_another
from training.teacher import taught

Predictions: TypeAlias = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Lesson:
    """`arriving`: new examples in the order in which they became known. `replayed`: kept ones to draw from beside them.

    `late`: what is known of labels that may still change.
    """

    teacher: Network
    arriving: Examples
    replayed: Sample | None = None
    late: Late = field(default_factory=Late)


def learn_progressively(learner: Learner, lesson: Lesson, plan: Plan) -> Predictions:
    """One pass over what is new, kept examples in each batch; returns what was said before learning, by task."""
    arriving, guesses = lesson.arriving, Predictions()
    order = np.random.default_rng(plan.seed)
    chances = lesson.replayed.chances() if lesson.replayed else np.zeros(0)
    for start in range(0, len(arriving), plan.update_batch):
        rows = np.arange(start, min(start + plan.update_batch, len(arriving)))
        examples = arriving.take(rows)
        for task, guess in predict(learner.network, examples).items():
            whole = np.full((len(arriving), *guess.shape[1:]), np.nan, np.float32)
            guesses.setdefault(task, whole)[rows] = guess
        if lesson.replayed and (again := round(plan.replay * len(rows))):
            drawn = order.choice(len(chances), again, p=chances)
            examples = one_after_another([examples, lesson.replayed.examples.take(drawn)])
        batch = lesson.late.weigh(
            learner.network, as_batch(examples), examples, len(rows), calibrated=learner.calibrated
        )
        learner.learn(taught(lesson.teacher, batch, len(rows)) if plan.distillation else batch)
    return guesses
