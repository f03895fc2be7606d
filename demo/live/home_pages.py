"""The home pages of the live phase: each user sees pages of one origin, so that their click rates can be compared.

A user's origin is drawn by the hash of the user's id, and does not change. Clicks and items shown are counted by user,
whatever the page held: popular items that a newcomer sees before there is a list count for the lists.
"""

from collections import Counter
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import numpy as np

from contract.arrays import Floats
from contract.events.model import Click, Event, Impression
from contract.experiment import VARIANT, assign_arm
from training.stats.bootstrap import Interval, bootstrap_interval

Origin: TypeAlias = Literal["lists", "popular", "shop"]
ORIGINS: Final[tuple[Origin, ...]] = ("lists", "popular", "shop")
KNOWLEDGE: Final[dict[Origin, str]] = {
    "lists": "what each user clicked and bought; on a first visit nothing, so that popular items are shown",
    "popular": "what all users clicked, and nothing about the one who looks",
    "shop": "half of the answer: four of eight items are from a category drawn by the user's true taste, "
    "which no real shop knows; the others are random",
}
POPULAR_SHARE: Final = 0.2  # of the users
SHOP_SHARE: Final = 0.25  # of the others
SHOWN, CLICKED = range(2)


def assign_origin(user_id: str) -> Origin:
    """What a user sees: popular items (a fifth of the users), the shop's own pages (a fifth), else the lists."""
    if assign_arm("popular items", POPULAR_SHARE, user_id) == VARIANT:
        return "popular"
    return "shop" if assign_arm("the shop's own pages", SHOP_SHARE, user_id) == VARIANT else "lists"


class HomePageCounts:
    """Items shown on home pages and clicks on them, by user."""

    def __init__(self) -> None:
        self._shown, self._clicked = Counter[str](), Counter[str]()
        self._latest_page: dict[str, tuple[str, ...]] = {}
        self._personal_pages: Counter[Origin] = Counter()
        self._pages: Counter[Origin] = Counter()

    def record(self, event: Event) -> None:
        """Count an impression of a home page, or a click on an item of the user's latest one.

        Other clicks do not count: those of fraud rings follow no page.
        """
        match event:
            case Impression(surface="home"):
                self._latest_page[event.user_id] = event.items
                self._shown[event.user_id] += len(event.items)
                self._pages[assign_origin(event.user_id)] += 1
                self._personal_pages[assign_origin(event.user_id)] += event.recommendation_id is not None
            case Click(surface="home") if event.item_id in self._latest_page.get(event.user_id, ()):
                self._clicked[event.user_id] += 1

    def count_by_user(self, origin: Origin) -> Floats:
        """Items shown and clicks (U, 2) of the users of an origin."""
        users = [user for user in self._shown if assign_origin(user) == origin]
        counts = [(self._shown[user], self._clicked[user]) for user in users]
        return np.array(counts, np.float64).reshape(-1, 2)

    def personal_share(self, origin: Origin) -> float:
        """The share of an origin's pages that were a list made for the user."""
        return self._personal_pages[origin] / self._pages[origin] if self._pages[origin] else 0.0

    def click_rate(self, origin: Origin) -> Interval | None:
        """Clicks of an item shown, with the interval over users; None without users."""
        counts = self.count_by_user(origin)
        return bootstrap_users(counts, lambda sums: sums[:, CLICKED] / sums[:, SHOWN]) if len(counts) else None

    def difference(self, origin: Origin, other: Origin) -> Interval | None:
        """The click rate of an origin minus that of another, with the interval over users; None without users."""
        counts, others = self.count_by_user(origin), self.count_by_user(other)
        if not len(counts) or not len(others):
            return None
        rows = np.block([[counts, np.zeros_like(counts)], [np.zeros_like(others), others]])
        return bootstrap_users(
            rows, lambda sums: sums[:, CLICKED] / sums[:, SHOWN] - sums[:, 2 + CLICKED] / sums[:, 2 + SHOWN]
        )


def bootstrap_users(rows: Floats, statistic: Callable[[Floats], Floats]) -> Interval:
    """The interval of a statistic of the sums over users, one row each."""
    return bootstrap_interval(rows, np.arange(len(rows)), statistic)
