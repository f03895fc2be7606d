"""The rows of the fraud bench: each learns from a week's past payments and says how likely each judged one is a fraud.

Ours goes the whole way: fitted as `python -m training fit` does, kept as a checkpoint, exported, and the bundle answers
in the worker's own runtime, from blocks as the worker would give them. Settings were chosen on weeks before the first
one that is tested.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import lightgbm
import numpy as np
from msgspec.structs import replace

from bench.fraud_replay import READ, Blocks
from bench.fraud_stream import Integers, Numbers, Payments
from bench.fraud_weeks import Week, examples_of, narrowed
from contract.bundle import current_version, read_bundle
from contract.features.declaration import Feature, FeatureSet
from contract.settings import ModelConfig, TrainingConfig
from contract.tasks import Task
from export.exporter import export
from model.checkpoint import Checkpoint, make_metadata
from model.network import Network
from training.data.examples import Examples
from training.trainer.fit import Epoch, fit
from worker.model.onnx_model import Model

NEGATIVE_RATE: Final = 0.1  # of honest payments, that teach the network; frauds all do
TASK: Final = Task("fraud", "binary", READ, "decide", negative_rate=NEGATIVE_RATE)
SHAPE: Final = ModelConfig(
    embedding=8,
    hidden=128,
    factors=0,
    experts=3,
    expert=48,
    tower=24,
    bins=32,
    cross=1,
    cross_rank=16,
    members=8,
    dropout=0.1,
)
PLAN: Final = TrainingConfig(batch=512, epochs=4, learning_rate=0.001, weight_decay=0.03, patience=2, held_out=0.1)
TREES: Final = {
    "objective": "binary",
    "learning_rate": 0.05,
    "num_leaves": 15,
    "min_child_samples": 50,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "lambda_l2": 5,
    "verbose": -1,
    "num_threads": 1,
    "seed": 1,
}
TREES_COUNT, TREES_NEGATIVE_RATE = 200, 0.2  # ranks better than all of them
HISTORY_DAYS: Final = 84
SCORED_ROWS: Final = 4_096


@dataclass(frozen=True, slots=True)
class Known:
    """What all rows may read: payments, and blocks of those from number `first` on, in the columns of `features`."""

    payments: Payments
    features: FeatureSet
    blocks: Blocks
    first: int

    def examples(self, rows: Integers, wanted: FeatureSet) -> Examples:
        """The payments with these numbers as examples, in the columns of `wanted`."""
        blocks = narrowed(self.blocks, self.features, wanted, rows - self.first)
        groups = {feature.group for feature in wanted.features}
        task = replace(TASK, groups=tuple(group for group in READ if group in groups))
        return examples_of(self.payments, rows, blocks, wanted, task)


Method = Callable[[Known, Week], Numbers]  # probabilities (N,) of the week's judged payments


def network(*, profiles: bool) -> Method:
    """The row of our network, with what profiles knew or without."""

    def answered(known: Known, week: Week) -> Numbers:
        wanted = telling(known, week.learning, profiles=profiles)
        learning = known.examples(sampled(week.learning, known.payments.fraud, NEGATIVE_RATE), wanted)
        fitted = fit(learning, SHAPE, PLAN, quiet)
        with TemporaryDirectory(prefix="shopstream-bench-") as bundles:
            model = served(fitted.network, Path(bundles), known.features)
        return scored(model, known, week.judging)

    return answered


def trees(known: Known, week: Week) -> Numbers:
    """Gradient-boosted trees on the same numbers."""
    wanted = telling(known, week.learning, profiles=True)
    rows = sampled(week.learning, known.payments.fraud, TREES_NEGATIVE_RATE)
    learned = lightgbm.Dataset(matrix(known, rows, wanted), known.payments.fraud[rows])
    booster = lightgbm.train(TREES, learned, TREES_COUNT)
    return np.asarray(booster.predict(matrix(known, week.judging, wanted)))


ROWS: Final[dict[str, Method]] = {
    "ours": network(profiles=True),
    "lightgbm": trees,
    "ours_without_profiles": network(profiles=False),
}


def telling(known: Known, rows: Integers, *, profiles: bool) -> FeatureSet:
    """The features that are not the same for all of these payments; without `profiles`, those of the event alone."""
    found = set[str]()
    for group, block in known.blocks.items():
        few = block.take(rows - known.first)
        found |= {f.name for f, x in zip(known.features.numbers(group), few.numbers.T, strict=False) if varies(x)}
        spans = known.features.spans(group)
        found |= {span.feature.name for span in spans if varies(few.ids[:, span.start : span.start + span.width])}
    wanted = found if profiles else found & of_events(known.features)
    for feature in reversed(known.features.features):  # a ratio stands behind what it is of
        wanted |= parts_of(feature) if feature.name in wanted else set()
    return known.features.select(wanted)


def varies(column: Numbers | Integers) -> bool:
    """Whether a column (N,) or columns (N, w) hold more than one known value."""
    values = column[~np.isnan(column)]
    return bool(len(values)) and bool((values != values[0]).any())


def of_events(features: FeatureSet) -> set[str]:
    """The features that no profile has a part in."""
    found = set[str]()
    for feature in features.features:
        if not feature.source.startswith("profile.") and parts_of(feature) <= found:
            found.add(feature.name)
    return found


def parts_of(feature: Feature) -> set[str]:
    """The features that a ratio is of; none for others."""
    return set(feature.source.removeprefix("ratio ").split(" / ")) if feature.source.startswith("ratio ") else set()


def sampled(rows: Integers, fraud: Numbers, rate: float) -> Integers:
    """All frauds among the rows, and of the others a random share."""
    chance = np.random.default_rng(PLAN.seed).random(len(rows))
    return rows[(fraud[rows] > 0) | (chance < rate)]


def served(network: Network, bundles: Path, features: FeatureSet) -> Model:
    """The network as a worker has it that serves `features`: checkpoint, export, bundle, runtime."""
    about = make_metadata(network, parent=None, created_ms=0, evaluation={}, positions={})
    export(Checkpoint(metadata=about, weights=network.state_dict()), bundles, {})
    version = current_version(bundles)
    assert version is not None
    return Model(read_bundle(bundles, version), features)


def scored(model: Model, known: Known, rows: Integers) -> Numbers:
    """What the bundle answers to these payments (N,)."""
    found = list[Numbers]()
    for start in range(0, len(rows), SCORED_ROWS):
        few = rows[start : start + SCORED_ROWS] - known.first
        blocks = {group: block.take(few) for group, block in known.blocks.items()}
        found.append(model.run("decide", blocks)[TASK.name].astype(np.float64))
    return np.concatenate(found)


def matrix(known: Known, rows: Integers, wanted: FeatureSet) -> Numbers:
    """The numbers (N, columns) as LightGBM reads them."""
    blocks = narrowed(known.blocks, known.features, wanted, rows - known.first)
    return np.concatenate([blocks[group].numbers for group in READ], 1).astype(np.float32)


def quiet(_: Epoch) -> None:
    """What an epoch has to say is not wanted here."""
