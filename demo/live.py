"""The live part of the demo: the shop's people meet our lists, and everything that is sent has to come out answered."""

import time
from collections.abc import Iterable, Mapping
from typing import Final

from demo.crew import Failed
from demo.happenings import Happening
from demo.people import Person
from demo.probe import Probe
from demo.servers.child import free_ports
from demo.shop import Shop
from demo.site import Site
from demo.tally import Tally
from demo.teller import Say, Teller
from demo.visits import Shelf

RECORDS_PER_S: Final = 600.0  # so that lists are seen while they are fresh, on two cores
CALM_RECORDS_PER_S: Final = 20.0
LOOK_S: Final = 0.25
REST_S: Final = 1.5  # when nothing has come out of the joiner for so long, it has said what it can
WITHIN_S: Final = 90.0
PROCESSES: Final = {
    "orders": ("worker", "score", "--lane", "orders"),
    "browsing": ("worker", "score", "--lane", "browsing"),
    "joiner": ("worker", "feedback"),
}
LANES: Final = ("orders", "browsing")


class Live:
    """A shop that is open, and the processes that answer it. `tally`: what was sent; `seconds`: how long that took."""

    def __init__(self, *, site: Site, teller: Teller, shop: Shop) -> None:
        self.tally, self.seconds = Tally(), 0.0
        self.probes: Mapping[str, Probe] = {
            name: Probe(port) for name, port in zip(PROCESSES, free_ports(len(PROCESSES)), strict=True)
        }
        self._site, self._teller, self._shop = site, teller, shop

    def open(self) -> None:
        """Start all processes of the worker, each with its own port; they are ready before the first event."""
        for product in self._shop.products():
            self._site.sender.send(product)
        self._site.sender.flush()
        with self._teller.step("Starting the workers of both lanes and the joiner"):
            for name, words in PROCESSES.items():
                self._site.crew.start(
                    name, *words, environment={"SHOPSTREAM_WORKER__HTTP_PORT": self.probes[name].port}
                )
            probes = self.probes.values()
            self._site.crew.wait_until(lambda: all(p.is_ready() for p in probes), "Workers should be ready", WITHIN_S)

    def go(self, days: float) -> None:
        """Live through some days, and wait until all of it is answered and joined."""
        with self._teller.step(f"Going live for {days:g} days") as say:
            begun_s = time.monotonic()
            self._send(self._shop.live(self._read_shelf, days), RECORDS_PER_S, say)
            self.seconds += time.monotonic() - begun_s
            say(self._progress())
        with self._teller.step("Waiting for the last answers and examples") as say:
            self._site.crew.wait_until(lambda: self._is_answered(say), "Everything should be answered", WITHIN_S)
            self._site.crew.wait_until(self._has_rested, "The joiner should come to rest", WITHIN_S)
            say(self._progress())

    def meet(self, version: str) -> None:
        """Wait until the running workers serve that model, and until a decision on a new order carries it."""
        site = self._site
        with self._teller.step("Waiting until the running workers decide with the new model"):
            lanes = [self.probes[lane] for lane in LANES]
            site.crew.wait_until(lambda: all(p.serves() == version for p in lanes), "Workers should swap", WITHIN_S)
            known = len(self.tally.orders)
            for happening in self._shop.live(self._read_shelf, 1.0):
                self._send([happening], 0.0, hush)
                if len(self.tally.orders) > known:
                    break
            site.crew.wait_until(lambda: self._is_answered(hush), "The next order should be decided", WITHIN_S)
        if version not in {decision.model_version for decision in site.witness.decisions.values()}:
            raise Failed(f"A decision on a new order should carry the model {version}. Found none.")

    def stay(self) -> None:
        """Go on calmly for ever; the embedded Kafka forgets its oldest records by and by."""
        while True:
            self._send(self._shop.live(self._read_shelf, 1.0), CALM_RECORDS_PER_S, hush)

    def _send(self, happenings: Iterable[Happening], records_per_s: float, say: Say) -> None:
        """Send at a steady pace (0: none), counting what is sent and what has come out."""
        site, begun_s, told_s = self._site, time.monotonic(), 0.0
        for number, happening in enumerate(happenings):
            wait_s = begun_s + number / records_per_s - time.monotonic() if records_per_s else 0.0
            if wait_s > 0:
                time.sleep(wait_s)
            site.sender.send(happening)
            self.tally.note(happening)
            if time.monotonic() - told_s > LOOK_S:
                told_s = time.monotonic()
                site.crew.check()
                site.witness.look()
                say(self._progress())
        site.sender.flush()

    def _is_answered(self, say: Say) -> bool:
        """Whether every order is decided, every click logged, and every malformed record a dead letter."""
        witness, tally = self._site.witness, self.tally
        witness.look()
        say(self._progress())
        return (
            tally.orders <= witness.decisions.keys()
            and witness.scored >= tally.valid["orders"] + tally.valid["clicks"]
            and witness.dead_letters.total() >= tally.malformed.total()
        )

    def _has_rested(self) -> bool:
        """Whether there are examples, and none has come for a while."""
        witness = self._site.witness
        witness.look()
        return witness.last_example_s is not None and time.monotonic() - witness.last_example_s > REST_S

    def _progress(self) -> str:
        witness = self._site.witness
        return (
            f"{self.tally.records:,} events, {len(witness.decisions):,} decisions, {witness.scored:,} rows logged, "
            f"{witness.dead_letters.total()} dead letters, {len(witness.examples):,} examples"
        )

    def _read_shelf(self, person: Person) -> Shelf | None:
        """What a web shop does before it shows a home page: read the user's list, or what is popular."""
        page = self._site.reader.page(person.user_id)
        return Shelf(page.recommendation_id or "", page.items) if page.items else None


def hush(text: str) -> None:
    """Say nothing."""
