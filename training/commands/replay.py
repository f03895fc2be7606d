"""`python -m training replay`: from its arguments to its last line of JSON."""

import time
from argparse import Namespace
from collections import Counter

from contract.errors import BadData
from contract.features.declaration import FeatureSet
from contract.settings import Settings
from training.data.examples import from_rows
from training.data.interactions import write_interactions
from training.data.parquet import write_examples
from training.replay.event_reader import read_history
from training.replay.replay import Replay
from training.report.console import print_json


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Turn events of before the first log into a Parquet file of examples."""
    started_s, rejected = time.monotonic(), Counter[str]()
    replay = Replay(features=features, tasks=settings.tasks, feedback=settings.feedback)
    rows = replay.run(read_history(args.events, rejected))
    examples = from_rows(rows, features, settings.tasks)
    if not len(examples):
        raise BadData(f"History should give examples with labels of {[t.name for t in settings.tasks]}. Found none.")
    write_examples(args.out, examples)
    if args.interactions:
        write_interactions(args.interactions, replay.interactions)
    print_json(
        examples=len(examples),
        labels={task.name: int(examples.has_label(task).sum()) for task in settings.tasks},
        rejected=dict(rejected),
        seconds=round(time.monotonic() - started_s, 2),
    )
    return 0
