"""What users bought lately, as the browsing lane reads it; histories have it once the orders lane has merged it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from contract.events.model import Order
from contract.units import HOUR_MS

BUYERS_MAX: Final = 10_000
KEEP_MS: Final = HOUR_MS  # of event time: the orders lane has merged an order by then, or lags behind this lane by more
NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


class RecentPurchases:
    """The items of each user's latest orders with their times (ms); of more than `BUYERS_MAX` users the latest."""

    def __init__(self) -> None:
        self._by_user = dict[str, dict[str, int]]()  # the latest buyers last

    def record(self, order: Order) -> None:
        """Add the items of an order, and forget those of users who have bought nothing for `KEEP_MS`."""
        items = self._by_user.pop(order.user_id, {})
        kept = select_later(items, order.ts_ms - KEEP_MS)
        for line in order.lines:
            kept[line.item_id] = max(order.ts_ms, kept.get(line.item_id, 0))  # an order may come late
        self._by_user[order.user_id] = kept
        while self._by_user:
            first = next(iter(self._by_user))
            is_old = max(self._by_user[first].values()) <= order.ts_ms - KEEP_MS
            if not is_old and len(self._by_user) <= BUYERS_MAX:
                break
            del self._by_user[first]

    def forget_erased(self, until_ms: Mapping[str, int]) -> None:
        """Forget the orders of these users (by id) up to these times."""
        forget_purchases(self._by_user, until_ms)

    def of(self, user: str) -> Mapping[str, int]:
        """The items of a user, with the time of the order."""
        return self._by_user.get(user, NOTHING)


def forget_purchases(by_user: dict[str, dict[str, int]], until_ms: Mapping[str, int]) -> None:
    """Remove the items that these users (by id) bought up to these times."""
    for user in by_user.keys() & until_ms.keys():
        if kept := select_later(by_user[user], until_ms[user]):
            by_user[user] = kept
        else:
            del by_user[user]


def select_later(bought: Mapping[str, int], until_ms: int) -> dict[str, int]:
    """The items of orders after this time."""
    return {item: ts_ms for item, ts_ms in bought.items() if ts_ms > until_ms}
