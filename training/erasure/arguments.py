"""Erasures for commands that read files of examples: people who are erased are left out of every file."""

from argparse import ArgumentParser, Namespace
from typing import Final

from contract.errors import Unavailable
from contract.events import make_readers
from contract.profiles.erasures import NO_ERASURES, Erasures
from contract.settings.reading import Settings
from training.erasure.topic import ErasureTopic

OPTION: Final = "--without-erasures"


def add_erasures_argument(parser: ArgumentParser) -> None:
    parser.add_argument(
        OPTION, action="store_true", help="do not read the erasures topic: for data of people who are not on it"
    )


def read_erasures(args: Namespace, settings: Settings) -> Erasures:
    """The erasures on the topic now; none with the option. Raises `Unavailable`, and names the option."""
    if args.without_erasures:
        return NO_ERASURES
    try:
        return fetch_erasures(settings)
    except Unavailable as error:
        raise Unavailable(f"{error} Erased people are left out of files; `{OPTION}` uses all their rows.") from error


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
