"""One lesson of a network that goes on learning: what is new, beside what is kept, before the eyes of its teacher."""

from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from contract.hashing import digests
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
    order, chances = drawing(arriving, plan), lesson.replayed.chances() if lesson.replayed else np.zeros(0)
    for rows in np.array_split(np.arange(len(arriving)), max(-(-len(arriving) // plan.update_batch), 1)):
        examples = arriving.take(rows)
        for task, guess in predict(learner.network, examples).items():
            whole = np.full((len(arriving), *guess.shape[1:]), np.nan, np.float32)
            guesses.setdefault(task, whole)[rows] = guess
        if lesson.replayed and (again := max(round(plan.replay * len(rows)), plan.update_batch - len(rows))):
            drawn = order.choice(len(chances), again, p=chances)
            examples = one_after_another([examples, lesson.replayed.examples.take(drawn)])
        weighed = lesson.late.weigh(learner.network, as_batch(examples), examples, len(rows))
        learner.learn(taught(lesson.teacher, weighed, len(rows)) if plan.distillation else weighed)
    return guesses


def drawing(arriving: Examples, plan: Plan) -> np.random.Generator:
    """What draws the replayed rows: by what arrives, or each update would draw those that the last one drew."""
    return np.random.default_rng([plan.seed, int(digests(arriving.example_id[:1].tolist()).sum())])
