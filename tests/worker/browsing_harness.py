"""The browsing lane's scorer over a small catalogue, with profiles in memory, fed with records."""

from collections.abc import Mapping

from contract.features.encoder import Encoder
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import InMemoryProfileStore, fold
from contract.settings.experiments import ExperimentSettings
from contract.settings.reading import Settings
from contract.settings.worker import ListSettings
from testkit.environment.tiny_bundle import ITEMS
from tests.worker.events import FEATURES, KINDS, NOW_MS, make_click, make_product, make_record
from transport.records import Record, TopicPartition
from worker.catalogue.catalogue import Catalogue
from worker.people.samples import InMemoryPeopleStore
from worker.records.batch import decode_records
from worker.scoring.browsing import ListRefresher
from worker.scoring.handlers import HANDLERS
from worker.scoring.results import BatchResults
from worker.scoring.scorer import LaneScorer, ScoringResources

SOURCES = {TopicPartition(topic, 0): f"{kind}/0" for topic, kind in KINDS.items()}
PURCHASE_VALUE = 5.0


class BrowsingHarness:
    """The browsing lane's scorer over a catalogue of four items, i0 to i3, each more expensive than the one before."""

    def __init__(
        self, experiments: Mapping[str, ExperimentSettings] | None = None, **list_settings: float | str
    ) -> None:
        encoder = Encoder(FEATURES)
        self.catalogue = Catalogue(encoder)
        for price, item in enumerate(ITEMS):
            self.catalogue.put(make_product(item, price=price))
        lists = ListSettings.model_validate({"refresh_ms": 0, "purchase_value": PURCHASE_VALUE, **list_settings})
        settings = Settings().model_copy(update={"lists": lists, "experiments": experiments or {}})
        self.profiles, self.people = InMemoryProfileStore(), InMemoryPeopleStore()
        self.scorer = LaneScorer(
            HANDLERS["browsing"],
            ScoringResources(settings=settings, encoder=encoder, catalogue=self.catalogue, people=self.people),
        )
        assert isinstance(self.scorer.refresher, ListRefresher)
        self.refresher: ListRefresher = self.scorer.refresher

    def answer(self, *records: Record, now_ms: int = NOW_MS, refresh_max: int = 50) -> BatchResults:
        """The answers to a batch of these records, and at most `refresh_max` lists that are due by then."""
        batch = decode_records(records, KINDS, SOURCES, ("orders",))
        updates = to_updates(batch.arrivals, self.scorer.entities_to_read(batch, now_ms, refresh_max))
        memory = fold(self.profiles.read(updates.entities), updates)
        self.people.add(updates)
        self.profiles.slices.update(memory.slice_writes().to_mapping())
        results = self.scorer.answer(batch, range(len(batch.arrivals)), memory, now_ms)
        results.extend(self.scorer.refresh(memory, now_ms, refresh_max))
        return results

    def run_periodic(self, now_ms: int = NOW_MS) -> None:
        self.scorer.run_periodic(self.profiles, now_ms)


def make_click_record(ident: str, item: str = "i0", user: str = "u", offset: int = 0) -> Record:
    return make_record(make_click(ident, item, user=user), offset, topic="shop.clicks")
