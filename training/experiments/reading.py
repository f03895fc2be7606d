"""Reads what an experiment's users did: the scored, feedback, orders and products topics."""

from collections.abc import Callable

from contract.events.model import Order, Product
from contract.events.reading import make_readers
from contract.settings.reading import Settings
from training.erasure.arguments import fetch_erasures
from training.experiments.outcomes import ExperimentStore
from training.feedback.feedback_reader import FeedbackReader
from training.feedback.topic_events import decode_event, read_records
from transport.kafka_times import KafkaTimes


def read_experiment(settings: Settings, experiment: str) -> ExperimentStore:
    """Lists, examples and orders of an experiment, without erased people's; raises `Unavailable`."""
    erasures, store = fetch_erasures(settings), ExperimentStore(experiment)
    for topic, add in ((settings.topics.scored, store.add_list), (settings.topics.feedback, store.add_example)):
        reader = FeedbackReader(kafka=settings.kafka, topic=topic, erasures=erasures)
        try:
            reader.for_each({}, add)
        finally:
            reader.close()
    read_events(settings, "orders", lambda event: store.add_order(event) if isinstance(event, Order) else None)
    return store


def count_items(settings: Settings) -> int:
    """The items on the products topic; raises `Unavailable`."""
    items = set[str]()
    read_events(settings, "products", lambda event: items.add(event.item_id) if isinstance(event, Product) else None)
    return len(items)


def read_events(settings: Settings, kind: str, add: Callable[[object], None]) -> None:
    reader, kafka_times = make_readers(settings.intake)[kind], KafkaTimes()
    for record in read_records(settings, kind):
        add(decode_event(reader, record, kafka_times))
