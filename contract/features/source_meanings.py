"""What each source of features means, in words: for `worker features list` and `docs/reference/features.md`."""

from typing import Final

WINDOW_NAMES: Final = {"10m": "10 minutes", "1h": "hour", "1d": "day", "7d": "7 days", "30d": "30 days"}
FAMILY_MEANINGS: Final = {
    "clicks": ("clicks", "always 0"),
    "impressions": ("lists shown", "items shown"),
    "orders": ("orders", "their amounts in hundredths; for an item or a seller its own lines"),
    "reviews": ("reviews", "hundredths of stars"),
    "searches": ("searches", "always 0"),
    "judgements": ("labels of fraud that arrived", "those that found fraud"),
}
TASK_MEANINGS: Final = {
    "fraud": "fraud",
    "brushing": "brushing",
    "fake_review": "fake reviews",
    "cancellation": "cancellations",
}
LINK_MEANINGS: Final = {
    "first_links": "distinct users seen with it (of a user: items), at most the last 8 of each partition",
    "second_links": "distinct cards or devices seen with it (of a user: devices, addresses and cards), as many",
}
MEANINGS: Final = {
    "event.account_created_ms": "when the account was created, epoch milliseconds",
    "event.amount": "the order's total, in the currency's unit",
    "event.billing_country": "country of the billing address",
    "event.card_id": "the card that paid",
    "event.currency": "the order's currency",
    "event.device_id": "the device",
    "event.event_id": "the event's own id; no two events share one, so a model can learn nothing from it",
    "event.guest_id": "the guest, before or at a login",
    "event.ip": "the network address",
    "event.item_id": "the clicked or reviewed item",
    "event.order_id": "the order that the review is of",
    "event.payment_method": "how the order was paid",
    "event.platform": "web, app or partner",
    "event.query": "the search words",
    "event.rank": "the clicked item's position on the page",
    "event.rating": "0 to 5 stars",
    "event.recommendation_id": "the list that the items come from",
    "event.seller_id": "the seller of the reviewed item",
    "event.session_id": "the visit",
    "event.shipping_country": "country of the shipping address",
    "event.surface": "where on the site: home, search, category, product or cart",
    "event.text": "the review's text",
    "event.ts_ms": "the event's time, epoch milliseconds; `hour` and `weekday` repeat and serve a model better",
    "event.user_id": "the user",
    "event.lines_count": "lines of the order",
    "event.quantity": "pieces of all lines",
    "event.account_age_s": "seconds since the account was created",
    "event.abroad": "1 if the shipping country is not the billing country, else 0",
    "event.hour": "hour of the day, 0 to 23, UTC",
    "event.weekday": "day of the week, 0 is Thursday, UTC",
    "item.event_id": "the id of the product's latest record",
    "item.ts_ms": "when the product was last changed, epoch milliseconds",
    "item.item_id": "the item",
    "item.title": "its title",
    "item.price": "its price, in the currency's unit",
    "item.currency": "the currency of its price",
    "item.available": "1 if it can be bought, else 0",
    "item.description": "its description",
    "item.brand": "its brand",
    "item.category": "its category",
    "item.stock": "pieces in stock",
    "item.seller_id": "its seller",
    "item.vector": "an embedding that the shop computes",
    "query.text": "the words of a search",
}


def describe_source(name: str) -> str:
    """The meaning of a source; an aggregate of a profile is described as of the time before the event."""
    if not name.startswith("profile."):
        return MEANINGS[name]
    _, kind, aggregate = name.split(".", 2)
    return f"of the {kind}: {describe_aggregate(aggregate)}"


def describe_aggregate(aggregate: str) -> str:
    """The meaning of what follows `profile.KIND.`."""
    if aggregate == "recent":
        return "the last 8 of `first_links`, newest first"
    head, _, stat = aggregate.partition(".")
    if head in TASK_MEANINGS:
        return f"labels of {TASK_MEANINGS[head]} that said {'yes' if stat == 'bad' else 'no'}"
    if not stat:
        links, window = head.removesuffix("_1d"), " within a day" if head.endswith("_1d") else ""
        return LINK_MEANINGS[links] + window
    return describe_family_stat(head, stat)


def describe_family_stat(family: str, stat: str) -> str:
    """The meaning of a statistic of a family of events."""
    count, total = FAMILY_MEANINGS[family]
    if stat == "age_s":
        return f"seconds since the first of its {count}"
    if stat == "gap_s":
        return f"seconds since the latest of its {count}"
    if stat == "count":
        return f"its {count} since its profile began"
    measure, window = stat.split("_")
    if measure == "count":
        return f"its {count} in the last {WINDOW_NAMES[window]}"
    return f"the sum over its {count} in the last {WINDOW_NAMES[window]}: {total}"
