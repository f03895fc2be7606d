"""`python -m training watch`: what is served and what became true in, figures, alarms and rollbacks out."""

import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from contract.errors import Unavailable
from contract.features import FeatureSet
from contract.settings import Settings
from training import telemetry
from training.portions import Portions
from training.report import print_json, say, show_evaluation
from training.telemetry import Served
from training.watch import Seen, Watcher, told
from training.watching import Watching, read_watching


def run(args: Namespace, settings: Settings, features: FeatureSet) -> int:
    """Watch once, or for ever."""
    bundles: Path = args.bundles or settings.bundles
    watching = read_watching(settings.watch)
    torch.set_num_threads(1)
    with watcher(settings, features, bundles, watching) as watches:
        if args.once:
            print_json(**told(watches.look()))
            return 0
        return watch(watches, settings, watching)


@contextmanager
def watcher(settings: Settings, features: FeatureSet, bundles: Path, watching: Watching) -> Iterator[Watcher]:
    """A watcher of this shop's topics. What was scored is read from its latest rows on, feedback as far as it goes."""
    topics = settings.topics
    scored = Portions(kafka=settings.kafka, topic=topics.scored, most=watching.portion, behind=watching.portion)
    feedback = Portions(kafka=settings.kafka, topic=topics.feedback, most=watching.portion)
    try:
        yield Watcher(
            settings=settings,
            features=features,
            bundles=bundles,
            watching=watching,
            scored=scored,
            feedback=feedback,
        )
    finally:
        scored.close()
        feedback.close()


def watch(watches: Watcher, settings: Settings, watching: Watching) -> int:
    """Look again and again until told to end."""
    served, shown = Served(port=watching.http_port), Seen()
    say(f"Metrics are served on port {served.port}.")
    try:
        while True:
            shown = look_patiently(watches, settings, watching, shown)
            time.sleep(watching.pause_s)
    except KeyboardInterrupt:
        return 0
    finally:
        served.close()


def look_patiently(watches: Watcher, settings: Settings, watching: Watching, shown: Seen) -> Seen:
    """Look once, and show the figures that are not those shown before; a Kafka that is away is waited for."""
    try:
        seen = watches.look()
    except Unavailable as error:
        telemetry.RETRIES.inc()
        say(f"{error} Trying again in {watching.pause_s:g} s.")
        return shown
    for version, figures in seen.figures.items():
        if figures != shown.figures.get(version):
            show_evaluation(settings.tasks, figures, f"what {version} said, by labels that have matured")
    return seen
