"""The orders lane's scorer, fed with orders."""

from contract.events.model import Order
from contract.features.encoder import Encoder
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import FoldedBatch, fold
from contract.settings.reading import Settings
from contract.settings.worker import Rule
from tests.worker.events import FEATURES, KINDS, make_record
from transport.records import TopicPartition
from worker.catalogue.catalogue import Catalogue
from worker.records.batch import Batch, decode_records
from worker.scoring.handlers import HANDLERS
from worker.scoring.results import BatchResults
from worker.scoring.scorer import LaneHandlers, LaneScorer, ScoringResources

RULE = Rule(feature="device_first_links_1d", above=5, action="review", reason="busy")
SETTINGS = Settings().model_copy(update={"rules": (RULE,), "thresholds": {}})


def make_scorer(settings: Settings = SETTINGS, handlers: LaneHandlers = HANDLERS["orders"]) -> LaneScorer:
    encoder = Encoder(FEATURES)
    return LaneScorer(handlers, ScoringResources(settings=settings, encoder=encoder, catalogue=Catalogue(encoder, 1)))


def make_batch(*orders: Order) -> Batch:
    records = [make_record(order, offset) for offset, order in enumerate(orders)]
    return decode_records(records, KINDS, {TopicPartition("shop.orders", 0): "orders/0"}, ())


def fold_batch(batch: Batch) -> FoldedBatch:
    """The batch folded into empty profiles."""
    updates = to_updates(batch.arrivals)
    return fold([{} for _ in updates.entities], updates)


def decide_orders(scorer: LaneScorer, *orders: Order) -> BatchResults:
    batch = make_batch(*orders)
    return scorer.answer(batch, range(len(orders)), fold_batch(batch), 0)
