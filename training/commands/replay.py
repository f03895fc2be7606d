"""`python -m training replay`: examples from historic events, from before served rows were logged."""

import time
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from contract.errors import BadData
from contract.events.reading import make_readers
from contract.features.declaration import FeatureSet
from contract.folders import check_writable
from contract.history.format import HistoricEvent
from contract.profiles.erasures import Erasures
from contract.settings.reading import Settings
from training.data.examples import from_rows
from training.data.interactions import write_interactions
from training.data.parquet import write_examples
from training.erasure.arguments import add_erasures_argument, read_erasures
from training.replay.event_reader import read_history
from training.replay.foreign_labels import describe_foreign, drop_foreign_negatives
from training.replay.replay import Replay
from training.replay.unsettled_labels import drop_unsettled_labels
from training.report.console import print_json, print_lines

DAY_S: Final = 86_400


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "events", type=Path, nargs="+", help='histories, or files of {"kind": ..., "event": ...} in time order'
    )
    parser.add_argument("--out", type=Path, required=True, help="where to write the examples, as Parquet")
    parser.add_argument("--interactions", type=Path, help="where to write user-item interactions, as Parquet")
    add_erasures_argument(parser)


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Replay historic events into a Parquet file of examples."""
    started_s, rejected = time.monotonic(), Counter[str]()
    for option, path in (("--out", args.out), ("--interactions", args.interactions)):
        if path is not None:
            check_writable(path.parent, option)
    erasures = read_erasures(args, settings)
    ignored, doubtful = Counter[str](), Counter[str]()
    readers = make_readers(
        settings.intake,
        settings.tasks,
        on_ignored=lambda kind, field: ignored.update([f"{kind}.{field}"]),
        on_doubtful=lambda kind, field, unit: doubtful.update([f"{kind}.{field} {unit}"]),
    )
    replay = Replay(
        features=features,
        tasks=settings.tasks,
        feedback=settings.feedback,
        entity_kinds=settings.entity_kinds(),
    )
    rows = replay.run(drop_erased_events(read_history(args.events, rejected, readers), erasures, rejected))
    window_s = settings.feedback.fraud_window_s
    examples = drop_foreign_negatives(
        from_rows(rows, features, settings.tasks), replay.foreign_labels, settings.tasks, window_s * 1000
    )
    examples, unsettled = drop_unsettled_labels(examples, settings.tasks, window_s * 1000)
    print_lines(*describe_foreign(replay.foreign_labels))
    if not len(examples):
        names = [task.name for task in settings.tasks]
        raise BadData(f"History should give examples with labels of {names}. Found none.")
    write_examples(args.out, examples)
    if args.interactions:
        write_interactions(args.interactions, replay.interactions)
    for task, count in unsettled.items():
        print_lines(
            f"{count} labels of `{task}` are left out: an event without one counts as a negative after "
            f"{window_s / DAY_S:g} days (feedback.fraud_window_s), and of as late events only the positives are known."
        )
    print_json(
        examples=len(examples),
        labels={task.name: int(examples.has_label(task).sum()) for task in settings.tasks},
        unsettled=dict(unsettled),
        foreign=dict(Counter(label.task for label in replay.foreign_labels)),
        rejected=dict(rejected),
        ignored=dict(ignored),
        doubtful=dict(doubtful),
        seconds=round(time.monotonic() - started_s, 2),
    )
    return 0


def drop_erased_events(
    history: Iterable[HistoricEvent], erasures: Erasures, rejected: Counter[str]
) -> Iterator[HistoricEvent]:
    """The events that no erasure covers; the others are counted."""
    for historic in history:
        if erasures.covers_event(historic.event):
            rejected["of erased people"] += 1
        else:
            yield historic
