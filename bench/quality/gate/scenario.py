"""The scenario of the gate bench: a first model, examples for updates, and test examples."""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch

from bench.quality.simulated_shop import SHOP_CODE_PATHS, load_or_simulate
from bench.results.cache import load_or_make
from bench.results.digest import digest_inputs
from contract.arrays import Predictions
from contract.settings.model import ModelConfig
from contract.settings.reading import read_settings
from contract.settings.training import TrainingConfig
from contract.units import DAY_MS
from model.checkpoint import Checkpoint, make_metadata, read_checkpoint, write_checkpoint
from training.analysis.baselines import ignore_epoch
from training.commands.fit import read_configs
from training.data.examples import Examples
from training.data.split import assign_families
from training.online.replay_buffer import encode_buffer
from training.trainer.fit import fit
from training.trainer.learner import predict

SHAPE: Final = ModelConfig(embedding=8, hidden=32, factors=8, experts=2, expert=32, tower=16, rows=4_096)
TRAIN_SHARE: Final = 0.5  # of the days, for the first model
TRUTH_FROM: Final = 0.86  # of the days; the rest tests every model
TRUTH_ROWS: Final = 1_500  # maximum of each family
CODE_PATHS: Final = (*SHOP_CODE_PATHS, "bench/quality/gate/scenario.py", "export", "model", "training", "transport")


@dataclass(frozen=True, slots=True)
class GateScenario:
    """The first model, the examples of updates in order of time, and the test examples `truth`."""

    base: Checkpoint
    update_examples: Examples
    truth: Examples
    base_predictions: Predictions
    plan: TrainingConfig


def load_scenario(arguments: argparse.Namespace) -> GateScenario:
    """The shop's examples and the first model, both kept in the folder `kept`."""
    settings, features = read_settings()
    plan = read_configs(settings, features, {})[1]
    plan = plan.model_copy(update={"batch": 256, "epochs": 3})
    torch.set_num_threads(plan.threads)
    examples = load_or_simulate(arguments, settings, features)
    day = (examples.ts_ms - examples.ts_ms.min()) / DAY_MS / arguments.days
    is_later = np.random.default_rng(0).random(len(examples)) < 0.3  # of products, which have no time of their own
    is_product = examples.user_id == ""
    day = np.where(is_product, np.where(is_later, np.random.default_rng(1).uniform(TRAIN_SHARE, 1, len(day)), 0.0), day)
    order = np.argsort(day, kind="stable")
    examples, day = examples.take(order), day[order]
    path = arguments.kept / f"gate-{arguments.days:g}-{arguments.people}-{arguments.items}.pt"
    base = load_or_fit_base(examples.take(day < TRAIN_SHARE), plan, path)
    later = examples.take((day >= TRAIN_SHARE) & (day < TRUTH_FROM))
    truth = cap_per_family(examples.take(day >= TRUTH_FROM))
    return GateScenario(base, later, truth, predict(base.build_network(), truth), plan)


def load_or_fit_base(examples: Examples, plan: TrainingConfig, path: Path) -> Checkpoint:
    """The first model, trained once and kept while the code and the settings stay the same."""

    def fit_base() -> None:
        fitted = fit(examples, SHAPE, plan, ignore_epoch)
        metadata = make_metadata(
            fitted.network, parent=None, created_ms=1_000, evaluation=fitted.evaluation, positions={}
        )
        base = Checkpoint(
            metadata=metadata,
            weights=fitted.network.state_dict(),
            optimizer=fitted.optimizer,
            replay_buffer=encode_buffer(examples.for_tasks(fitted.network.tasks), plan.keep, plan.seed),
        )
        write_checkpoint(path.parent, base).rename(path)

    digest = digest_inputs(CODE_PATHS, libraries=("torch", "numpy"))
    return load_or_make(path, digest, fit_base, read=read_checkpoint)


def cap_per_family(examples: Examples) -> Examples:
    """At most `TRUTH_ROWS` random rows of each family."""
    family, shuffled = assign_families(examples), np.random.default_rng(0).permutation(len(examples))
    chosen = [shuffled[family[shuffled] == family_id][:TRUTH_ROWS] for family_id in np.unique(family)]
    return examples.take(np.sort(np.concatenate(chosen)))
