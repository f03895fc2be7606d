"""The methods of the fraud bench: each is trained on the payments before a week and predicts its test payments.

Our network goes through all stages: training as by `python -m training fit`, checkpoint, export, and prediction by the
bundle in the worker's own runtime, from feature blocks as in the worker. Hyperparameters were chosen on weeks before
the first test week.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import lightgbm
import numpy as np
from msgspec.structs import replace

from bench.quality.fraud.dataset import Payments
from bench.quality.fraud.features import DECISION_GROUPS, Blocks
from bench.quality.fraud.protocol import WeekSplit, build_examples, select_columns
from contract.arrays import Floats, Integers
from contract.bundle import current_version, read_bundle
from contract.features.declaration import Feature, FeatureSet
from contract.settings.model import ModelConfig
from contract.settings.training import TrainingConfig
from contract.tasks import Task
from export.exporter import export
from model.checkpoint import Checkpoint, make_metadata
from model.network import Network
from training.analysis.baselines import ignore_epoch
from training.data.examples import Examples
from training.trainer.fit import fit
from worker.model.onnx_model import Model

NEGATIVE_RATE: Final = 0.1  # share of the honest payments that the network is trained on
TASK: Final = Task("fraud", "binary", DECISION_GROUPS, "decide", negative_rate=NEGATIVE_RATE)
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
TREE_PARAMETERS: Final = {
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
TREE_COUNT, TREE_NEGATIVE_RATE = 200, 0.2  # ranks better than training on all honest payments
HISTORY_DAYS: Final = 84
PREDICT_BATCH: Final = 4_096


@dataclass(frozen=True, slots=True)
class FraudData:
    """Inputs of all methods: payments, and blocks of those from row `first` on, in the columns of `features`."""

    payments: Payments
    features: FeatureSet
    blocks: Blocks
    first: int

    def select_examples(self, rows: Integers, wanted: FeatureSet) -> Examples:
        """The payments of these rows as examples, in the columns of `wanted`."""
        blocks = select_columns(self.blocks, self.features, wanted, rows - self.first)
        groups = {feature.group for feature in wanted.features}
        task = replace(TASK, groups=tuple(group for group in DECISION_GROUPS if group in groups))
        return build_examples(self.payments, rows, blocks, wanted, task)


Method = Callable[[FraudData, WeekSplit], Floats]  # probabilities (N,) of the week's test payments


def make_network_method(*, profiles: bool) -> Method:
    """Our network, with or without profile features."""

    def predict(data: FraudData, week: WeekSplit) -> Floats:
        wanted = select_features(data, week.train, profiles=profiles)
        train = data.select_examples(sample_negatives(week.train, data.payments.fraud, NEGATIVE_RATE), wanted)
        fitted = fit(train, SHAPE, PLAN, ignore_epoch)
        with TemporaryDirectory(prefix="shopstream-bench-") as bundles:
            model = export_and_load(fitted.network, Path(bundles), data.features)
        return predict_served(model, data, week.test)

    return predict


def predict_with_trees(data: FraudData, week: WeekSplit) -> Floats:
    """Gradient-boosted trees on the same number features."""
    wanted = select_features(data, week.train, profiles=True)
    rows = sample_negatives(week.train, data.payments.fraud, TREE_NEGATIVE_RATE)
    train_set = lightgbm.Dataset(to_matrix(data, rows, wanted), data.payments.fraud[rows])
    booster = lightgbm.train(TREE_PARAMETERS, train_set, TREE_COUNT)
    return np.asarray(booster.predict(to_matrix(data, week.test, wanted)))


METHODS: Final[dict[str, Method]] = {
    "ours": make_network_method(profiles=True),
    "lightgbm": predict_with_trees,
    "ours_without_profiles": make_network_method(profiles=False),
}


def select_features(data: FraudData, rows: Integers, *, profiles: bool) -> FeatureSet:
    """The features that vary over these payments; without `profiles`, only those of the event itself."""
    varying = set[str]()
    for group, block in data.blocks.items():
        selected = block.take(rows - data.first)
        varying |= {
            f.name
            for f, column in zip(data.features.numbers(group), selected.numbers.T, strict=False)
            if varies(column)
        }
        spans = data.features.spans(group)
        varying |= {
            span.feature.name for span in spans if varies(selected.ids[:, span.start : span.start + span.width])
        }
    wanted = varying if profiles else varying & list_event_features(data.features)
    for feature in reversed(data.features.features):  # a ratio comes after its operands
        if feature.name in wanted:
            wanted |= list_ratio_operands(feature)
    return data.features.select(wanted)


def varies(column: Floats | Integers) -> bool:
    """Whether a column (N,) or columns (N, w) hold more than one known value."""
    values = column[~np.isnan(column)]
    return bool(len(values)) and bool((values != values[0]).any())


def list_event_features(features: FeatureSet) -> set[str]:
    """The features that use no profile, directly or by a ratio."""
    names = set[str]()
    for feature in features.features:
        if not feature.source.startswith("profile.") and list_ratio_operands(feature) <= names:
            names.add(feature.name)
    return names


def list_ratio_operands(feature: Feature) -> set[str]:
    """The two features of a ratio; empty for other features."""
    if not feature.source.startswith("ratio "):
        return set()
    return set(feature.source.removeprefix("ratio ").split(" / "))


def sample_negatives(rows: Integers, fraud: Floats, rate: float) -> Integers:
    """The rows of all frauds, and a random share of the others."""
    draws = np.random.default_rng(PLAN.seed).random(len(rows))
    return rows[(fraud[rows] > 0) | (draws < rate)]


def export_and_load(network: Network, bundles: Path, features: FeatureSet) -> Model:
    """The network as a worker with `features` loads it: checkpoint, export, bundle, runtime."""
    about = make_metadata(network, parent=None, created_ms=0, evaluation={}, positions={})
    export(Checkpoint(metadata=about, weights=network.state_dict()), bundles, {})
    version = current_version(bundles)
    assert version is not None
    return Model(read_bundle(bundles, version), features)


def predict_served(model: Model, data: FraudData, rows: Integers) -> Floats:
    """The bundle's fraud probabilities of these payments (N,)."""
    predictions = list[Floats]()
    for start in range(0, len(rows), PREDICT_BATCH):
        chunk = rows[start : start + PREDICT_BATCH] - data.first
        blocks = {group: block.take(chunk) for group, block in data.blocks.items()}
        predictions.append(model.run("decide", blocks)[TASK.name].astype(np.float64))
    return np.concatenate(predictions)


def to_matrix(data: FraudData, rows: Integers, wanted: FeatureSet) -> Floats:
    """The number features (N, columns) for LightGBM."""
    blocks = select_columns(data.blocks, data.features, wanted, rows - data.first)
    return np.concatenate([blocks[group].numbers for group in DECISION_GROUPS], 1).astype(np.float32)
