"""Erasures for commands that read files of examples: people who are erased are left out of every file."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from contract.errors import BadData, Unavailable
from contract.events.reading import make_readers
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.settings.reading import Settings
from training.data.parquet import find_files, open_parquet
from training.erasure.topic import ErasureTopic

OPTION: Final = "--without-erasures"


def add_erasures_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        OPTION, action="store_true", help="do not read the erasures topic: for data of people who are not on it"
    )


def read_erasures(args: Namespace, settings: Settings) -> Erasures:
    """The erasures on the topic now; none with the option. Raises `Unavailable`, and names the option.

    The command's files are looked at first, since Kafka may take long to answer; raises `BadData`.
    """
    check_files(args)
    if args.without_erasures:
        return NO_ERASURES
    try:
        return fetch_erasures(settings)
    except Unavailable as error:
        text = f"{str(error).rstrip('.')}. Erased people are left out of files; `{OPTION}` uses all their rows."
        raise Unavailable(text) from error


def check_files(args: Namespace) -> None:
    """Raise `BadData` for files of examples (`data`) or events that cannot be opened."""
    examples = getattr(args, "data", ())
    for path in find_files([examples] if isinstance(examples, Path) else examples):
        open_parquet(path)
    for path in getattr(args, "events", ()):
        if not path.exists():
            raise BadData(f"{path} should be a history or a file of events. Found none.")


def fetch_erasures(settings: Settings) -> Erasures:
    """The erasures on the topic now; raises `Unavailable`."""
    topic = ErasureTopic(
        kafka=settings.kafka,
        topic=settings.topics.erasures,
        reader=make_readers(settings.intake)["erasures"],
    )
    try:
        topic.poll()
    finally:
        topic.close()
    return topic.erasures
