"""`python -m demo run`: the whole way once, on one machine, from nothing.

A simulated shop brings its history; a model learns from it and is exported; workers answer the shop's live events; what
they answered is joined with what happened into examples; the model learns from those, and the running workers take up
the new one.
"""

import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from contract.bundle import current_version
from demo.crew import Failed
from demo.happenings import ENCODE, Happening
from demo.people import Person
from demo.probe import Probe
from demo.servers.child import free_ports
from demo.shop import Shop
from demo.site import Site
from demo.summary import Outcome, show
from demo.tally import Tally
from demo.teller import Say, Teller
from demo.visits import Shelf

HISTORY_DAYS: Final = 16.0
LIVE_DAYS: Final = 3.0
LIVE_RECORDS_PER_S: Final = 350.0  # so that lists are seen while they are fresh, on two cores
AFTER_RECORDS_PER_S: Final = 20.0
REST_S: Final = 2.0  # when nothing has come out of the joiner for so long, it has said what it can
PROCESSES: Final = {
    "orders": ("worker", "score", "--lane", "orders"),
    "browsing": ("worker", "score", "--lane", "browsing"),
    "joiner": ("worker", "feedback"),
}
LANES: Final = ("orders", "browsing")


class Demo:
    """One demo from nothing to a model that has learned from its own answers."""

    def __init__(self, *, seed: int, keep: bool) -> None:
        self._keep = keep
        self._teller, self._tally = Teller(), Tally()
        self._shop = Shop(seed)
        self._probes = {name: Probe(port) for name, port in zip(PROCESSES, free_ports(len(PROCESSES)), strict=True)}
        self._live_s = 0.0

    def run(self) -> int:
        """Tell the whole story; 0 at its end. Raises `Failed` with a log's end when a part of it does not work."""
        with ExitStack() as stack:
            with self._teller.step("Starting an embedded Kafka and Valkey"):
                self._site = Site(stack)
            self._learn_from_history()
            self._start()
            self._go_live()
            self._await_answers()
            before = self._version()
            self._learn_from_feedback()
            self._await_new_model()
            self._check_nothing_trimmed()
            show(self._teller.console, self._outcome(before))
            if self._keep:
                self._stay()
        return 0

    def _learn_from_history(self) -> None:
        events, examples = self._site.folder / "history.jsonl", self._site.folder / "examples.parquet"
        crew = self._site.crew
        with self._teller.step(f"Living through {HISTORY_DAYS:.0f} days of a simulated shop") as say:
            say(f"{write_history(events, self._shop.history(HISTORY_DAYS)):,} events")
        with self._teller.step("Turning history into examples, by the code that will serve"):
            crew.finish("training replay", "training", "replay", str(events), "--out", str(examples), within_s=120)
        with self._teller.step("Training the first model"):
            crew.finish("training fit", "training", "fit", str(examples), within_s=180)
        with self._teller.step("Exporting it to ONNX, checked against torch") as say:
            crew.finish("export", "export", "--latest", within_s=120)
            say(f"version {self._version()}")

    def _start(self) -> None:
        """All processes of the worker, each with its own port; ready before the first event."""
        for product in self._shop.products():
            self._site.sender.send(product)
        self._site.sender.flush()
        with self._teller.step("Starting the workers of both lanes and the joiner"):
            for name, words in PROCESSES.items():
                port = self._probes[name].url.rpartition(":")[2]
                self._site.crew.start(name, *words, environment={"SHOPSTREAM_WORKER__HTTP_PORT": port})
            ready = [probe.is_ready for probe in self._probes.values()]
            self._site.crew.wait_until(lambda: all(is_ready() for is_ready in ready), "Workers should be ready", 60)

    def _go_live(self) -> None:
        with self._teller.step(f"Going live for {LIVE_DAYS:.0f} days") as say:
            begun_s = time.monotonic()
            self._send(self._shop.live(self._read_shelf, LIVE_DAYS), LIVE_RECORDS_PER_S, say)
            self._live_s = time.monotonic() - begun_s

    def _send(self, happenings: Iterable[Happening], records_per_s: float, say: Say) -> None:
        """Send at a steady pace, counting what is sent and what has come out."""
        site, begun_s, told_s = self._site, time.monotonic(), 0.0
        for number, happening in enumerate(happenings):
            if (wait_s := begun_s + number / records_per_s - time.monotonic()) > 0:
                time.sleep(wait_s)
            site.sender.send(happening)
            self._tally.note(happening)
            if time.monotonic() - told_s > 0.25:
                told_s = time.monotonic()
                site.crew.check()
                site.witness.look()
                say(self._progress())
        site.sender.flush()

    def _progress(self) -> str:
        witness = self._site.witness
        return (
            f"{self._tally.records:,} events, {len(witness.decisions):,} decisions, {witness.scored:,} rows logged, "
            f"{witness.dead_letters.total()} dead letters, {len(witness.examples):,} examples"
        )

    def _await_answers(self) -> None:
        """Every order decided, every click logged, every malformed record a dead letter, and examples out."""
        with self._teller.step("Waiting for the last answers and examples") as say:
            self._site.crew.wait_until(lambda: self._is_answered(say), "Everything should be answered", 60)
            self._site.crew.wait_until(self._has_rested, "The joiner should come to rest", 60)
            say(self._progress())

    def _is_answered(self, say: Say) -> bool:
        witness, tally = self._site.witness, self._tally
        witness.look()
        say(self._progress())
        rows = tally.valid["orders"] + tally.valid["clicks"]
        return (
            tally.orders <= witness.decisions.keys()
            and witness.scored >= rows
            and witness.dead_letters.total() >= tally.malformed.total()
            and bool(witness.examples)
        )

    def _has_rested(self) -> bool:
        """Whether no example has come for a while."""
        witness = self._site.witness
        witness.look()
        return witness.last_example_s is not None and time.monotonic() - witness.last_example_s > REST_S

    def _learn_from_feedback(self) -> None:
        with self._teller.step("Learning from the feedback and publishing the new model") as say:
            self._site.crew.finish("training follow", "training", "follow", "--once", within_s=180)
            say(f"version {self._version()}")

    def _await_new_model(self) -> None:
        """The running workers serve it, and a decision says so."""
        version, site = self._version(), self._site
        with self._teller.step("Waiting until the running workers decide with it"):
            served = [self._probes[lane].serves for lane in LANES]
            site.crew.wait_until(lambda: all(serves() == version for serves in served), "Workers should swap", 30)
            happenings = self._shop.live(self._read_shelf, LIVE_DAYS)
            known = len(self._tally.orders)
            while len(self._tally.orders) == known:
                self._send([next(happenings)], LIVE_RECORDS_PER_S, lambda text: None)
            site.crew.wait_until(lambda: self._is_answered(lambda text: None), "The next order should be decided", 30)
        if version not in {decision.model_version for decision in site.witness.decisions.values()}:
            raise Failed(f"A new decision should carry the model {version}. Found none.")

    def _check_nothing_trimmed(self) -> None:
        if trimmed := self._site.witness.trimmed(self._site.topics):
            raise Failed(f"The embedded Kafka should still hold all that was sent. Found these cut: {trimmed}.")

    def _stay(self) -> None:
        """Let the shop go on until somebody interrupts; the embedded Kafka forgets its oldest records by and by."""
        self._teller.console.print("\nThe shop goes on; Ctrl-C ends it.")
        while True:
            self._send(self._shop.live(self._read_shelf, LIVE_DAYS), AFTER_RECORDS_PER_S, lambda text: None)

    def _read_shelf(self, person: Person) -> Shelf | None:
        found = self._site.read_list(person.user_id)
        return Shelf(found.recommendation_id, tuple(item.item_id for item in found.items)) if found else None

    def _version(self) -> str:
        return current_version(self._site.bundles) or ""

    def _outcome(self, before: str) -> Outcome:
        return Outcome(
            site=self._site,
            shop=self._shop,
            tally=self._tally,
            probes=self._probes,
            versions=(before, self._version()),
            live_s=self._live_s,
            seconds=self._teller.seconds,
        )


def write_history(path: Path, happenings: Iterable[Happening]) -> int:
    """Write events as `training replay` reads them, a line each in the order of time; returns their number."""
    lines = [ENCODE({"kind": happening.kind, "event": happening.event}) for happening in happenings]
    path.write_bytes(b"\n".join(lines))
    return len(lines)
