"""A user session: views the home page, sometimes searches and browses, clicks by preference, sometimes buys."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from contract.events.model import Click, Impression, Review, Search, Surface
from contract.units import DAY_MS
from demo.simulator.records import SourceRecord
from demo.simulator.state import PAYMENT_METHODS, Payment, SimulationState, make_order
from demo.simulator.users import FAR_COUNTRIES, User

PAGE_ITEMS: Final = 8  # items on one page
SEARCH_RESULTS: Final = 16  # items in a search result
TITLE_NOUN: Final = -1  # index of the word in a title that names the kind of item


class HomePage(NamedTuple):
    """Items of a home page; `recommendation_id` is empty if they are not from a recommendation list."""

    recommendation_id: str
    items: tuple[str, ...]


ReadHomePage: TypeAlias = Callable[[User], HomePage | None]


class UserSession:
    """The records of one session, in order of time, except for a review, which is written days later."""

    def __init__(self, *, state: SimulationState, user: User, ts_ms: int) -> None:
        self.records: list[SourceRecord] = []
        self._state, self._user, self._now_ms = state, user, ts_ms
        self._device = state.rng.choice(user.devices)
        self._session_id = state.new_id("v")
        self._basket: list[str] = []

    def simulate(self, home_page: HomePage) -> list[SourceRecord]:
        """Simulate the whole session, starting at this home page."""
        rng = self._state.rng
        self._view_page(home_page.items[:PAGE_ITEMS], "home", recommendation_id=home_page.recommendation_id or None)
        if rng.random() < 0.35:
            self._search()
        if rng.random() < 0.35:
            category = self._user.draw_category(rng)
            self._view_page(tuple(self._state.catalogue.sample(rng, category, PAGE_ITEMS)), "category")
        if self._basket:
            self._check_out()
        return self.records

    def _view_page(
        self, items: tuple[str, ...], surface: Surface, *, recommendation_id: str | None = None, query: str = ""
    ) -> None:
        """View a page of items from top to bottom, and click some."""
        user, ts_ms = self._user, self._advance_clock(1, 4)
        impression = Impression(
            event_id=self._state.new_id("w"),
            ts_ms=ts_ms,
            user_id=user.user_id,
            items=items,
            recommendation_id=recommendation_id,
            surface=surface,
            query=query or None,
        )
        self.records.append(SourceRecord("impressions", user.user_id, impression, ts_ms))
        for rank, item_id in enumerate(items):
            if self._state.rng.random() < self._click_probability(item_id, rank, query):
                self._click(item_id, rank, impression)

    def _click_probability(self, item_id: str, rank: int, query: str) -> float:
        """The click probability, from rank, preference, appeal and match with the query."""
        item = self._state.catalogue.by_id[item_id]
        position_bias = 0.92**rank
        affinity = self._user.preferences[item.category]
        if query:
            affinity = (0.2 + 0.8 * affinity) * self._state.catalogue.match_share(query, item_id) ** 2
        return min(0.9, position_bias * item.appeal * (0.01 + 0.35 * affinity))

    def _click(self, item_id: str, rank: int, impression: Impression) -> None:
        state, user, ts_ms = self._state, self._user, self._advance_clock(5, 60)
        click = Click(
            event_id=state.new_id("c"),
            ts_ms=ts_ms,
            user_id=user.user_id,
            item_id=item_id,
            session_id=self._session_id,
            surface=impression.surface,
            platform=user.platform,
            query=impression.query,
            rank=rank,
            recommendation_id=impression.recommendation_id,
            device_id=state.value_or_missing(self._device, 0.08),
            ip=state.value_or_missing(user.ip, 0.05),
        )
        self.records.append(SourceRecord("clicks", user.user_id, click, ts_ms))
        price = state.catalogue.by_id[item_id].product.price
        if state.rng.random() < 0.2 * user.spending * min(1.5, (20 / price) ** 0.5):
            self._basket.append(item_id)

    def _search(self) -> None:
        """Search for an item of a preferred category by its title, and view the results."""
        state, user = self._state, self._user
        wanted_item = state.rng.choice(state.catalogue.by_category[user.draw_category(state.rng)])
        words = wanted_item.product.title.lower().split()
        query = words[TITLE_NOUN] if state.rng.random() < 0.5 else f"{words[0]} {words[TITLE_NOUN]}"
        result_ids = tuple(state.catalogue.search(state.rng, query, SEARCH_RESULTS))
        ts_ms = self._advance_clock(2, 20)
        search = Search(
            event_id=state.new_id("q"),
            ts_ms=ts_ms,
            user_id=user.user_id,
            query=query,
            items=result_ids,
            session_id=self._session_id,
        )
        self.records.append(SourceRecord("searches", user.user_id, search, ts_ms))
        self._view_page(result_ids, "search", query=query)

    def _check_out(self) -> None:
        """Order the basket; 8 % are gifts shipped abroad, 15 % are reviewed days later."""
        state, user, rng = self._state, self._user, self._state.rng
        basket = list(dict.fromkeys(self._basket))
        lines = [state.make_line(item_id, rng.choice((1, 1, 1, 2, 5))) for item_id in basket]
        is_gift = rng.random() < 0.08
        payment = Payment(
            method=rng.choice(PAYMENT_METHODS),
            card_id=rng.choice(user.cards),
            device_id=self._device,
            ip=user.ip,
            shipping_country=rng.choice(FAR_COUNTRIES) if is_gift else user.country,
        )
        ts_ms = self._advance_clock(60, 300)
        order = make_order(state, user, lines, payment, ts_ms)
        self.records.append(SourceRecord("orders", user.user_id, order, ts_ms))
        if rng.random() < 0.15:
            self._write_review(basket[0], order.event_id, ts_ms + int(rng.uniform(1, 3) * DAY_MS))

    def _write_review(self, item_id: str, order_id: str, ts_ms: int) -> None:
        """Write a review; its rating follows the appeal of the item."""
        state, user = self._state, self._user
        rating = min(5.0, max(0.0, round(3 + state.catalogue.by_id[item_id].appeal + state.rng.gauss(0, 0.8))))
        review = Review(
            event_id=state.new_id("r"),
            ts_ms=ts_ms,
            user_id=user.user_id,
            item_id=item_id,
            rating=rating,
            text=state.value_or_missing("as described, would buy again" if rating > 3 else "not what I hoped for", 0.3),
            order_id=order_id,
            device_id=self._device,
            ip=user.ip,
        )
        self.records.append(SourceRecord("reviews", user.user_id, review, ts_ms))

    def _advance_clock(self, min_s: float, max_s: float) -> int:
        """Advance by a random time; returns the new time."""
        self._now_ms += int(self._state.rng.uniform(min_s, max_s) * 1000)
        return self._now_ms
