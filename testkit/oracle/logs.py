"""Test logs for profiles: few ids that meet often, times at the borders of cells, out of order and past the horizon.

Hypothesis draws small logs and shrinks them; `make_random_log` draws large ones from a seed.
"""

import random
from collections.abc import Sequence
from typing import Final

from hypothesis import strategies as st

from contract.events.model import Click, Erasure, Event, Impression, Judgement, Line, Order, Review, Search
from contract.profiles.entity_updates import Arrival
from contract.units import DAY_MS, MINUTE_MS
from testkit.oracle.profiles import HORIZON_MS, WIDTHS_MS, ProfileOracle

BASE_MS: Final = 210 * DAY_MS * 100  # a multiple of every width: cells of all widths start here
SOURCES: Final = (
    "clicks/0",
    "clicks/1",
    "impressions/0",
    "judgements/0",
    "orders/0",
    "orders/1",
    "reviews/0",
    "searches/0",
)
STEPS_MS: Final = sorted(
    {0, 1, 999, 1_000, MINUTE_MS, 3 * DAY_MS, HORIZON_MS - 1, HORIZON_MS, HORIZON_MS + 1}
    | {width + border for width in WIDTHS_MS.values() for border in (-1, 0, 1)}
)
AMOUNTS: Final = (0.0, 0.005, 0.29, 1.0, 19.99, 1e6 + 0.01, 1e9)


class EventGenerator:
    """Generates events from few ids."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def draw_id(self, kind: str, count: int) -> str:
        return f"{kind}{self.rng.choice(range(count))}"

    def draw_optional_id(self, kind: str, count: int) -> str | None:
        return self.rng.choice((None, self.draw_id(kind, count), self.draw_id(kind, count)))

    def make_event(self, source: str, ts_ms: int) -> Event:
        """One event of the kind of `source`; ids repeat sometimes, as with a producer that retries."""
        return getattr(self, source.partition("/")[0])(self.draw_id("e", 400), ts_ms)  # type: ignore[no-any-return]

    def clicks(self, event_id: str, ts_ms: int) -> Click:
        return Click(
            event_id=event_id,
            ts_ms=ts_ms,
            user_id=self.draw_id("u", 12),
            item_id=self.draw_id("i", 15),
            device_id=self.draw_optional_id("d", 11),
            ip=self.rng.choice((None, "10.0.0.1", "2001:DB8::1", "2001:db8::1")),
        )

    def impressions(self, event_id: str, ts_ms: int) -> Impression:
        items = tuple(self.draw_id("i", 15) for _ in range(self.rng.choice(range(6))))
        return Impression(event_id=event_id, ts_ms=ts_ms, user_id=self.draw_id("u", 12), items=items)

    def searches(self, event_id: str, ts_ms: int) -> Search:
        return Search(event_id=event_id, ts_ms=ts_ms, user_id=self.draw_id("u", 12), query="red shoes")

    def reviews(self, event_id: str, ts_ms: int) -> Review:
        return Review(
            event_id=event_id,
            ts_ms=ts_ms,
            user_id=self.draw_id("u", 12),
            item_id=self.draw_id("i", 15),
            rating=self.rng.choice((0.0, 0.5, 3.335, 5.0)),
            seller_id=self.draw_optional_id("s", 3),
            device_id=self.draw_optional_id("d", 11),
            ip=self.rng.choice((None, "10.0.0.1")),
        )

    def orders(self, event_id: str, ts_ms: int) -> Order:
        return Order(
            event_id=self.draw_id("o", 30),
            ts_ms=ts_ms,
            user_id=self.draw_id("u", 12),
            lines=tuple(self.make_line() for _ in range(self.rng.choice((1, 1, 2, 3, 12)))),
            amount=self.rng.choice(AMOUNTS),
            currency="EUR",
            payment_method="card",
            card_id=self.draw_optional_id("c", 11),
            device_id=self.draw_optional_id("d", 11),
            ip=self.rng.choice((None, "10.0.0.1", "2001:DB8::1")),
        )

    def make_line(self) -> Line:
        return Line(
            item_id=self.draw_id("i", 15),
            quantity=self.rng.choice((1, 2, 3, 0.375, 10_000_000)),
            unit_price=self.rng.choice(AMOUNTS),
            seller_id=self.draw_optional_id("s", 3),
        )

    def judgements(self, event_id: str, ts_ms: int) -> Judgement:
        entities = (
            self.draw_id("user:u", 12),
            self.draw_id("device:d", 11),
            self.draw_id("card:c", 11),
            "planet:x",
            "seller:s1",
        )
        return Judgement(
            event_id=event_id,
            ts_ms=ts_ms,
            user_id=self.draw_id("u", 12),
            judged_event_id=self.draw_id("o", 30),
            task=self.rng.choice(("fraud", "fraud", "brushing", "cancellation", "relevance")),
            value=self.rng.choice((0.0, 1.0, 1.0, "bad")),
            entities=tuple(self.rng.choice(entities) for _ in range(self.rng.choice(range(4)))),
        )


def make_log(generator: EventGenerator, steps: Sequence[tuple[str, int]]) -> list[Arrival]:
    """A log from (source, step of event time) pairs; every source has its own offsets, with gaps."""
    now_ms, offsets, arrivals = BASE_MS, dict.fromkeys(SOURCES, -1), list[Arrival]()
    for source, step_ms in steps:
        now_ms = max(0, now_ms + step_ms)
        offsets[source] += generator.rng.choice((1, 1, 1, 2))  # transaction markers take offsets
        arrivals.append(Arrival(source, offsets[source], generator.make_event(source, now_ms)))
    return arrivals


@st.composite
def draw_logs(draw: st.DrawFn, *, size: int = 40) -> list[Arrival]:
    """Short logs with time steps at critical values; they shrink to few events and small steps."""
    step = st.tuples(st.sampled_from(SOURCES), st.sampled_from(STEPS_MS), st.sampled_from((1, 1, 1, -1)))
    steps = draw(st.lists(step, min_size=1, max_size=size))
    generator = EventGenerator(random.Random(draw(st.integers(0, 2**32))))
    return make_log(generator, [(source, step_ms * sign) for source, step_ms, sign in steps])


def make_random_log(seed: int, size: int) -> list[Arrival]:
    """A long log: mostly seconds apart, sometimes backwards or far ahead."""
    rng = random.Random(seed)
    usual = (1, 17, 1_000, 30_000, -90_000, 45 * MINUTE_MS)
    steps = [rng.choice(STEPS_MS) if rng.random() < 0.01 else rng.choice(usual) for _ in range(size)]
    return make_log(EventGenerator(rng), [(rng.choice(SOURCES), step_ms) for step_ms in steps])


@st.composite
def draw_erasures(draw: st.DrawFn, arrivals: Sequence[Arrival]) -> list[Erasure]:
    """Erasures of some users of a log, at, just before and just after the times of its events, some of them twice."""
    times = st.sampled_from([arrival.event.ts_ms for arrival in arrivals])
    erasure = st.tuples(st.integers(0, 11), times, st.sampled_from((-1, 0, 0, 1)))
    erasures = draw(st.lists(erasure, max_size=8))
    return [
        Erasure(event_id=f"g{n}", ts_ms=max(0, ms + border), user_id=f"u{user}")
        for n, (user, ms, border) in enumerate(erasures)
    ]


@st.composite
def draw_logs_with_erasures(draw: st.DrawFn) -> tuple[list[Arrival], list[Erasure]]:
    """A log, and erasures of some of its users."""
    arrivals = draw(draw_logs())
    return arrivals, draw(draw_erasures(arrivals))


def latest_erasures(erasures: Sequence[Erasure]) -> dict[str, int]:
    """The erasures as the oracle takes them: the latest time of each user."""
    erased_until: dict[str, int] = {}
    for erasure in erasures:
        user = f"user:{erasure.user_id}"
        erased_until[user] = max(erasure.ts_ms, erased_until.get(user, 0))
    return erased_until


def make_oracle(arrivals: Sequence[Arrival], erasures: Sequence[Erasure] = ()) -> ProfileOracle:
    """The oracle after a log."""
    oracle = ProfileOracle(latest_erasures(erasures))
    for source, offset, event, *_ in arrivals:
        oracle.add(source, offset, event)
    return oracle
