"""`python -m training fit`: from its arguments to its last line of JSON."""

import math
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from contract.bundle import current_version
from contract.errors import BadConfig
from contract.features import FeatureSet
from contract.settings import Settings
from contract.tasks import Task
from export.interactions import read_all, read_interactions
from model.checkpoint import About, Checkpoint, describe, path_of, read_checkpoint, write_checkpoint
from model.declared import Shape, check_tasks, read_shape
from training.commands.telling import Telling
from training.examples import Examples
from training.fit import Fitted, Setting, fit
from training.fleet import join
from training.interactions import interactions_of, latest_interactions
from training.labels import Classes
from training.plan import Plan, read_plan
from training.report import print_json, say, show_evaluation
from training.sample import meaning, sample_of, together
from training.stream import Stream
from training.table import files_of, read_examples, read_together, rows_in
from training.transfer import Transfer


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Fit a network to a Parquet file of examples and keep it as a checkpoint."""
    begun, bundles = time.monotonic(), args.bundles or settings.bundles
    given = {"epochs": args.epochs, "seed": args.seed}
    shape, plan = declared(settings, features, {name: value for name, value in given.items() if value is not None})
    torch.set_num_threads(plan.threads)
    fleet = join(plan.device)
    former = read_checkpoint(path_of(bundles, args.former)) if args.former else None
    transfer = Transfer(checkpoint=former, carried=args.carried) if former else None
    known = former.about.statistics.classes if former else None
    examples = read(args.data, features, settings.tasks, known, plan)
    fitted = learned(examples, shape, plan, Setting(args.resume, transfer, fleet), args.log)
    fleet.leave()
    if not fleet.leads:
        return 0  # the process that leads tells what all have found
    say(*fitted.left_out.values())
    about = describe(
        fitted.network,
        parent=former.about.version if former else current_version(bundles),
        created_ms=time.time_ns() // 1_000_000,
        evaluation=fitted.evaluation,
        positions={},
    )
    sample, interactions = remembered(examples, fitted.network.tasks, plan)
    taken = [interactions, *args.interactions, *([former.interactions] if former else [])]
    checkpoint = Checkpoint(
        about=about,
        weights=fitted.network.state_dict(),
        optimizer=fitted.optimizer,
        sample=sample_with(former, sample, about, plan),
        interactions=latest_interactions(read_all(taken)),
    )
    path = write_checkpoint(bundles, checkpoint)
    if args.resume:
        args.resume.unlink(missing_ok=True)  # its end is kept now; the next course begins anew
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


def learned(examples: Examples | Stream, shape: Shape, plan: Plan, setting: Setting, log: Path | None) -> Fitted:
    """Fit, and tell of it where this process leads."""
    if not setting.fleet.leads:
        return fit(examples, shape, plan, lambda epoch: None, setting)
    with Telling(log=log) as telling:
        return fit(examples, shape, plan, telling.epoch, replace(setting, progress=telling.step))


def read(
    paths: Sequence[Path], features: FeatureSet, tasks: Sequence[Task], classes: Classes | None, plan: Plan
) -> Examples | Stream:
    """The examples of some files or folders of files: in memory, or as a stream where they are too many."""
    files = files_of(paths)
    if sum(rows_in(path) for path in files) > plan.stream_rows:
        return Stream(paths=files, features=features, tasks=tasks, classes=classes)
    return read_together(files, features, tasks, classes)


def remembered(examples: Examples | Stream, tasks: Sequence[Task], plan: Plan) -> tuple[bytes, bytes]:
    """What a checkpoint carries of what it has learned from: a sample, and who took what; both as Parquet."""
    if isinstance(examples, Examples):
        learned = examples.for_tasks(tasks)
        return sample_of(learned, plan.keep, plan.seed), latest_interactions(interactions_of(learned))
    everything, taken = np.ones(len(examples), np.bool_), latest_interactions(read_all([]))
    for portion in examples.portions(everything):
        taken = latest_interactions(read_interactions(taken), interactions_of(portion.for_tasks(tasks)))
    return sample_of(examples.sample(everything, plan.keep).for_tasks(tasks), plan.keep, plan.seed), taken


def sample_with(former: Checkpoint | None, sample: bytes, about: About, plan: Plan) -> bytes:
    """The examples that the checkpoint carries: those of the new tasks, and where there was a former one, its own."""
    if former is None or not former.sample:
        return sample
    both = [read_examples(one, *meaning(about)) for one in (former.sample, sample)]
    return sample_of(together(both), plan.keep, plan.seed)


def declared(settings: Settings, features: FeatureSet, given: dict[str, int]) -> tuple[Shape, Plan]:
    """The network and the plan that the settings declare, with what was `given`; `BadConfig` lists all mistakes."""
    errors = list[str]()
    shape, plan = Shape(), Plan()
    try:
        shape = read_shape(settings.model)
    except BadConfig as error:
        errors += error.errors
    try:
        plan = read_plan({**settings.training, **given})
    except BadConfig as error:
        errors += error.errors
    try:
        check_tasks(settings.tasks, features)
    except BadConfig as error:
        errors += error.errors
    if errors:
        raise BadConfig(errors)
    return shape, plan
