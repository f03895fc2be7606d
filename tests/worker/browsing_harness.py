"""The browsing lane's scorer over a small catalogue, with profiles in memory, fed with records."""

from contract.features.encoder import Encoder
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import InMemoryProfileStore, fold
from contract.settings import ListSettings
from tests.worker.events import FEATURES, KINDS, NOW_MS, make_click, make_product, make_record
from tests.worker.tiny_bundle import ITEMS
from transport.records import Record, TopicPartition
from worker.catalogue.catalogue import Catalogue
from worker.records.batch import Batch, decode_records
from worker.scoring.browsing import BrowsingScorer
from worker.scoring.results import BatchResults

SOURCES = {TopicPartition(topic, 0): f"{kind}/0" for topic, kind in KINDS.items()}
VALUE = 5.0


class BrowsingHarness:
    """The browsing lane's scorer over a catalogue of four items, i0 to i3, each dearer than the one before."""

    def __init__(self, **list_settings: float) -> None:
        encoder = Encoder(FEATURES)
        self.catalogue = Catalogue(encoder)
        for price, item in enumerate(ITEMS):
            self.catalogue.put(make_product(item, price=price))
        lists = ListSettings.model_validate({"refresh_ms": 0, "purchase_value": VALUE, **list_settings})
        self.profiles = InMemoryProfileStore()
        self.browser = BrowsingScorer(lists=lists, encoder=encoder, catalogue=self.catalogue)
        self.offset = 0

    def answer(self, *records: Record, now_ms: int = NOW_MS) -> BatchResults:
        batch: Batch = decode_records(records, KINDS, SOURCES, ("orders",))
        touches = to_updates(batch.arrivals, self.browser.entities_to_read(batch, now_ms))
        memory = fold(self.profiles.read(touches.entities), touches)
        self.profiles.slices.update(memory.slice_writes().to_mapping())
        answers = self.browser.answer(batch, range(len(batch.arrivals)), memory, now_ms)
        answers.extend(self.browser.refresh(memory, now_ms))
        return answers


def make_click_record(ident: str, item: str = "i0", user: str = "u", offset: int = 0) -> Record:
    return make_record(make_click(ident, item, user=user), offset, topic="shop.clicks")
