"""The simulated shop: a discrete-event simulation of users, items and fraud rings, determined by a seed.

`simulate_history` produces the time before shopstream is used. `simulate_live` continues from there and shows users the
lists made for them. The same seed, and in the live phase the same lists, give the same records.
"""

import heapq
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Final, TypeAlias

from contract.events.model import Click, Order, Product
from contract.units import DAY_MS, HOUR_MS, MINUTE_MS
from demo.simulator.catalogue import ItemCatalogue
from demo.simulator.concept_drift import ConceptDrift
from demo.simulator.fraud_rings import FraudRing, label_fraud
from demo.simulator.malformed import make_malformed
from demo.simulator.records import SourceRecord
from demo.simulator.sessions import PAGE_ITEMS, HomePage, ReadHomePage, UserSession
from demo.simulator.state import SimulationState
from demo.simulator.users import User, make_users

OPENED_MS: Final = 1_735_689_600_000  # 2025-01-01, fixed so that no run depends on the current day
MALFORMED_EVERY: Final = 150
RING_GAP_DAYS: Final = (0.25, 0.75)  # bounded, so that every day has fraud
NIGHT_H: Final = 7

ScheduledAction: TypeAlias = Callable[[int], None]


class ShopSimulator:
    """A shop with a clock of its own; its records are in the order of `ts_ms`."""

    def __init__(self, seed: int, *, users: int = 300, items: int = 400, drift: ConceptDrift | None = None) -> None:
        """`drift`: optional concept drift."""
        rng = random.Random(seed)
        self._state = SimulationState(rng, ItemCatalogue(rng=rng, count=items, opened_ms=OPENED_MS))
        self.users = make_users(rng, users, list(self._state.catalogue.by_category), OPENED_MS)
        self._drift = drift
        self._now_ms = OPENED_MS
        self._queue: list[tuple[int, int, SourceRecord | ScheduledAction]] = []
        self._sequence = count()
        self._read_home_page: ReadHomePage = self._default_home_page
        self._schedule_start()

    def simulate_history(self, days: float) -> Iterator[SourceRecord]:
        """Records of the next `days`, with the shop's default home pages and without malformed records."""
        self._read_home_page = self._default_home_page
        yield from self._run_until(self._now_ms + int(days * DAY_MS))

    def simulate_live(self, read_home_page: ReadHomePage, days: float) -> Iterator[SourceRecord]:
        """Records of the next `days`, with the home pages of `read_home_page`; every 150th record is malformed."""
        self._read_home_page = read_home_page
        for number, record in enumerate(self._run_until(self._now_ms + int(days * DAY_MS)), 1):
            yield record
            if number % MALFORMED_EVERY == 0:
                yield make_malformed(number // MALFORMED_EVERY - 1, record.ts_ms)

    def make_clicks(self, user_id: str, item_ids: Sequence[str]) -> list[SourceRecord]:
        """Clicks of a person on these items, a minute apart from now on; the simulated users go on later."""
        ts_ms = [self._now_ms + number * MINUTE_MS for number in range(len(item_ids))]
        events = [
            Click(event_id=self._state.new_id("c"), ts_ms=ms, user_id=user_id, item_id=item_id, surface="category")
            for ms, item_id in zip(ts_ms, item_ids, strict=True)
        ]
        return [SourceRecord("clicks", user_id, event, event.ts_ms) for event in events]

    def product_records(self) -> list[SourceRecord]:
        """The current catalogue, as records for its topic."""
        return [
            SourceRecord("products", item.item_id, item.product, item.product.ts_ms)
            for item in self._state.catalogue.items
        ]

    def products_by_id(self) -> dict[str, Product]:
        """The product of each item on sale."""
        return {item.item_id: item.product for item in self._state.catalogue.items}

    def _schedule_start(self) -> None:
        """Schedule the initial records and actions."""
        for product in self.product_records():
            self._schedule(OPENED_MS, product)
        for user in self.users:
            self._schedule(self._next_session_ms(user, user.first_session_ms), partial(self._run_session, user))
        self._schedule(self._next_ring_ms(), self._start_ring)
        if self._drift:
            self._schedule(OPENED_MS + int(self._drift.start_days * DAY_MS), self._apply_drift)

    def _apply_drift(self, ts_ms: int) -> None:
        if self._drift:
            for record in self._drift.step_hour(self._state.catalogue, self.users, ts_ms):
                self._schedule(ts_ms, record)
            self._schedule(ts_ms + HOUR_MS, self._apply_drift)

    def _run_until(self, end_ms: int) -> Iterator[SourceRecord]:
        """Process the queue in order of time: yield records, run actions, which schedule more."""
        while self._queue and self._queue[0][0] < end_ms:
            self._now_ms, _, entry = heapq.heappop(self._queue)
            if isinstance(entry, SourceRecord):
                yield entry
            else:
                entry(self._now_ms)
        self._now_ms = end_ms

    def _schedule(self, ts_ms: int, entry: SourceRecord | ScheduledAction) -> None:
        heapq.heappush(self._queue, (ts_ms, next(self._sequence), entry))

    def _run_session(self, user: User, ts_ms: int) -> None:
        home_page = self._read_home_page(user) or HomePage("", self._default_home_page(user).items)
        for record in UserSession(state=self._state, user=user, ts_ms=ts_ms).simulate(home_page):
            self._schedule(record.ts_ms, record)
            if isinstance(record.event, Order) and self._state.rng.random() < 0.4:
                self._schedule_confirmation(record.event)
        self._schedule(self._next_session_ms(user, ts_ms), partial(self._run_session, user))

    def _schedule_confirmation(self, order: Order) -> None:
        """Schedule the label that confirms an order as honest within a day."""
        label_ms = order.ts_ms + int(self._state.rng.uniform(0.3, 0.9) * DAY_MS)
        self._schedule(label_ms, label_fraud(self._state, order.user_id, order.event_id, 0.0, label_ms))

    def _start_ring(self, ts_ms: int) -> None:
        pattern = self._drift.pattern if self._drift else None
        ring = FraudRing(state=self._state, users=self.users, ts_ms=ts_ms, pattern=pattern)
        for attack_ms in ring.attacks_ms:
            self._schedule(self._avoid_night(attack_ms), partial(self._run_attack, ring))
        self._schedule(self._next_ring_ms(), self._start_ring)

    def _run_attack(self, ring: FraudRing, ts_ms: int) -> None:
        for record in ring.attack(ts_ms):
            self._schedule(record.ts_ms, record)

    def _default_home_page(self, user: User) -> HomePage:
        """The shop's heuristic: half of the page from a preferred category, half from random categories."""
        rng, catalogue = self._state.rng, self._state.catalogue
        liked = catalogue.sample(rng, user.draw_category(rng), PAGE_ITEMS // 2)
        others = [
            item
            for _ in range(PAGE_ITEMS // 2)
            for item in catalogue.sample(rng, rng.choice([*catalogue.by_category]), 1)
        ]
        shown = list(dict.fromkeys(liked + others))
        rng.shuffle(shown)
        return HomePage(self._state.new_id("h"), tuple(shown))

    def _next_session_ms(self, user: User, after_ms: int) -> int:
        return self._avoid_night(after_ms + int(self._state.rng.expovariate(user.sessions_per_day) * DAY_MS))

    def _avoid_night(self, ts_ms: int) -> int:
        """This time, or a time in the following morning if it is at night: all activity pauses then."""
        hours_to_morning = NIGHT_H - ts_ms % DAY_MS / HOUR_MS
        if hours_to_morning <= 0:
            return ts_ms
        return ts_ms + int(self._state.rng.uniform(hours_to_morning, hours_to_morning + 3) * HOUR_MS)

    def _next_ring_ms(self) -> int:
        return self._now_ms + int(self._state.rng.uniform(*RING_GAP_DAYS) * DAY_MS)
