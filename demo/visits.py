"""A visit: one person looks at the home page, perhaps searches and browses, clicks by taste, and perhaps buys."""

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

from contract.events import Click, Impression, Review, Search, Surface
from demo.happenings import Happening
from demo.people import DAY_MS, FAR, Person
from demo.world import METHODS, Payment, World, make_order

SHOWN: Final = 8  # what fits on a page
FOUND: Final = 16  # what the engine answers
TITLE_NOUN: Final = -1  # the word of a title that says what the item is


class Shelf(NamedTuple):
    """Items for a home page; `recommendation_id` is empty where no recommendation list made them."""

    recommendation_id: str
    items: tuple[str, ...]


ReadShelf: TypeAlias = Callable[[Person], Shelf | None]


class Visit:
    """What one person does in one visit, as happenings in the order of their time."""

    def __init__(self, *, world: World, person: Person, ts_ms: int) -> None:
        self.happenings: list[Happening] = []
        self._world, self._person, self._now_ms = world, person, ts_ms
        self._device = world.chance.choice(person.devices)
        self._session = world.number("v")
        self._basket: list[str] = []

    def walk(self, shelf: Shelf) -> list[Happening]:
        """The whole visit, beginning at a home page with this shelf."""
        chance = self._world.chance
        self._look(shelf.items[:SHOWN], "home", recommendation_id=shelf.recommendation_id or None)
        if chance.random() < 0.35:
            self._search()
        if chance.random() < 0.35:
            category = self._person.likes(chance)
            self._look(tuple(self._world.items.draw(chance, category, SHOWN)), "category")
        if self._basket:
            self._pay()
        return self.happenings

    def _look(
        self, items: tuple[str, ...], surface: Surface, *, recommendation_id: str | None = None, query: str = ""
    ) -> None:
        """See a page of items from the top, and open what appeals."""
        person, ts_ms = self._person, self._pass(1, 4)
        impression = Impression(
            event_id=self._world.number("w"),
            ts_ms=ts_ms,
            user_id=person.user_id,
            items=items,
            recommendation_id=recommendation_id,
            surface=surface,
            query=query or None,
        )
        self.happenings.append(Happening("impressions", person.user_id, impression, ts_ms))
        for rank, item_id in enumerate(items):
            if self._world.chance.random() < self._appeal(item_id, rank, query):
                self._click(item_id, rank, impression)

    def _appeal(self, item_id: str, rank: int, query: str) -> float:
        """The probability of a click: by place, by taste, by the item itself, and by what was asked for."""
        item = self._world.items.at[item_id]
        seen = 0.92**rank
        wanted = self._person.tastes[item.category]
        if query:
            wanted = (0.2 + 0.8 * wanted) * self._world.items.matches(query, item_id) ** 2
        return min(0.9, seen * item.appeal * (0.01 + 0.35 * wanted))

    def _click(self, item_id: str, rank: int, impression: Impression) -> None:
        world, person, ts_ms = self._world, self._person, self._pass(5, 60)
        click = Click(
            event_id=world.number("c"),
            ts_ms=ts_ms,
            user_id=person.user_id,
            item_id=item_id,
            session_id=self._session,
            surface=impression.surface,
            platform=person.platform,
            query=impression.query,
            rank=rank,
            recommendation_id=impression.recommendation_id,
            device_id=world.perhaps(self._device, 0.08),
            ip=world.perhaps(person.ip, 0.05),
        )
        self.happenings.append(Happening("clicks", person.user_id, click, ts_ms))
        price = world.items.at[item_id].product.price
        if world.chance.random() < 0.2 * person.spending * min(1.5, (20 / price) ** 0.5):
            self._basket.append(item_id)

    def _search(self) -> None:
        """Ask for what an item of a liked category is called, and look through the engine's answer."""
        world, person = self._world, self._person
        wanted = world.chance.choice(world.items.categories[person.likes(world.chance)])
        words = wanted.product.title.lower().split()
        query = words[TITLE_NOUN] if world.chance.random() < 0.5 else f"{words[0]} {words[TITLE_NOUN]}"
        found = tuple(world.items.find(world.chance, query, FOUND))
        ts_ms = self._pass(2, 20)
        search = Search(
            event_id=world.number("q"),
            ts_ms=ts_ms,
            user_id=person.user_id,
            query=query,
            items=found,
            session_id=self._session,
        )
        self.happenings.append(Happening("searches", person.user_id, search, ts_ms))
        self._look(found, "search", query=query)

    def _pay(self) -> None:
        """Buy what is in the basket; a gift now and then goes abroad, and some write a review days later."""
        world, person, chance = self._world, self._person, self._world.chance
        basket = list(dict.fromkeys(self._basket))
        lines = [world.line(item_id, chance.choice((1, 1, 1, 2, 5))) for item_id in basket]
        is_gift = chance.random() < 0.08
        payment = Payment(
            method=chance.choice(METHODS),
            card_id=chance.choice(person.cards),
            device_id=self._device,
            ip=person.ip,
            ships_to=chance.choice(FAR) if is_gift else person.country,
        )
        ts_ms = self._pass(60, 300)
        order = make_order(world, person, lines, payment, ts_ms)
        self.happenings.append(Happening("orders", person.user_id, order, ts_ms))
        if chance.random() < 0.15:
            self._review(basket[0], order.event_id, ts_ms + int(chance.uniform(1, 3) * DAY_MS))

    def _review(self, item_id: str, order_id: str, ts_ms: int) -> None:
        """Written later: the one happening of a visit that lies days after it."""
        world, person = self._world, self._person
        rating = min(5.0, max(0.0, round(3 + world.items.at[item_id].appeal + world.chance.gauss(0, 0.8))))
        review = Review(
            event_id=world.number("r"),
            ts_ms=ts_ms,
            user_id=person.user_id,
            item_id=item_id,
            rating=rating,
            text=world.perhaps("as described, would buy again" if rating > 3 else "not what I hoped for", 0.3),
            order_id=order_id,
            device_id=self._device,
            ip=person.ip,
        )
        self.happenings.append(Happening("reviews", person.user_id, review, ts_ms))

    def _pass(self, least_s: float, most_s: float) -> int:
        """Let some time go by; returns the time it is then."""
        self._now_ms += int(self._world.chance.uniform(least_s, most_s) * 1000)
        return self._now_ms
