"""The commands of `python -m training`, each from its arguments to its last line of JSON."""

import math
import time
from argparse import Namespace

import numpy as np
import torch

from contract.bundle import current_version
from contract.features import FeatureSet
from contract.settings import Settings
from export.interactions import read_all
from model.checkpoint import Checkpoint, describe, write_checkpoint
from model.declared import read_shape
from training.examples import Examples
from training.fit import fit
from training.interactions import interactions_of, latest_interactions
from training.plan import read_plan
from training.report import print_json, say, show_epoch, show_evaluation
from training.table import read_examples, to_parquet


def fit_command(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Fit a network to a Parquet file of examples and keep it as a checkpoint."""
    begun, bundles = time.monotonic(), args.bundles or settings.bundles
    shape = read_shape(settings.model)
    plan = read_plan(settings.training | {k: v for k, v in (("epochs", args.epochs), ("seed", args.seed)) if v})
    torch.set_num_threads(plan.threads)
    examples = read_examples(args.data, features, settings.tasks)
    fitted = fit(examples, shape, plan, show_epoch)
    say(list(fitted.left_out.values()))
    about = describe(
        fitted.network,
        parent=current_version(bundles),
        created_ms=time.time_ns() // 1_000_000,
        evaluation=fitted.evaluation,
        positions={},
    )
    learned = examples.for_tasks(fitted.network.tasks)
    checkpoint = Checkpoint(
        about=about,
        weights=fitted.network.state_dict(),
        optimizer=fitted.optimizer,
        sample=sample_of(learned, plan.keep, plan.seed),
        interactions=latest_interactions(interactions_of(learned), read_all(args.interactions)),
    )
    path = write_checkpoint(bundles, checkpoint)
    show_evaluation(settings.tasks, fitted.evaluation, f"{about.version} on held-out examples")
    print_json(
        version=about.version,
        checkpoint=str(path),
        score=None if math.isnan(fitted.score) else fitted.score,
        evaluation=fitted.evaluation,
        left_out=fitted.left_out,
        examples=len(examples),
        seconds=round(time.monotonic() - begun, 2),
    )
    return 0


def sample_of(examples: Examples, keep: int, seed: int) -> bytes:
    """At most `keep` examples drawn from these, as Parquet; none: no bytes."""
    chosen = np.random.default_rng(seed).permutation(len(examples))[:keep]
    return to_parquet(examples.take(np.sort(chosen))) if len(chosen) else b""
