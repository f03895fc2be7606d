"""The browsing lane's scorer over a small catalogue, with profiles in memory, fed with records."""

from contract.encoding import Encoder
from contract.memory import MemoryProfiles, fold
from contract.settings import Lists
from contract.touches import columns
from tests.worker.bundles import ITEMS
from tests.worker.shop import FEATURES, KINDS, NOW_MS, click, product, record
from worker.answers import Answers
from worker.batch import Batch, open_records
from worker.browsing import Browser
from worker.catalogue import Catalogue
from worker.intake import Place, Record

SOURCES = {Place(topic, 0): f"{kind}/0" for topic, kind in KINDS.items()}
VALUE = 5.0


class Lane:
    """The browsing lane's scorer over a catalogue of four items, i0 to i3, each dearer than the one before."""

    def __init__(self, **of_lists: float) -> None:
        encoder = Encoder(FEATURES)
        self.catalogue = Catalogue(encoder)
        for price, item in enumerate(ITEMS):
            self.catalogue.put(product(item, price=price))
        lists = Lists.model_validate({"refresh_ms": 0, "purchase_value": VALUE, **of_lists})
        self.profiles = MemoryProfiles()
        self.browser = Browser(lists=lists, encoder=encoder, catalogue=self.catalogue)
        self.offset = 0

    def answer(self, *records: Record, now_ms: int = NOW_MS) -> Answers:
        batch: Batch = open_records(records, KINDS, SOURCES, ("orders",))
        touches = columns(batch.arrivals, self.browser.watched(batch, now_ms))
        memory = fold(self.profiles.read(touches.entities), touches)
        self.profiles.slices.update(memory.writes().mapping())
        answers = self.browser.answer(batch, range(len(batch.arrivals)), memory, now_ms)
        answers.add(self.browser.refresh(memory, now_ms))
        return answers


def clicked(ident: str, item: str = "i0", user: str = "u", offset: int = 0) -> Record:
    return record(click(ident, item, user=user), offset, topic="shop.clicks")
