"""The binary record of one slice of a profile.

A profile is the merge of its slices; a slice is what one source partition has contributed to one entity. It is a pure
fold of that partition's log (`contract.profiles.fold`), integers only, so it is bit-equal however the log was cut into
batches. What `count` and `sum` mean depends on the family of the source:

    family       count of            sum of
    clicks       clicks              nothing
    impressions  lists shown         items shown
    orders       orders              amounts in hundredths of the currency unit (an item's or seller's own lines only)
    reviews      reviews             hundredths of stars
    searches     searches            nothing
    judgements   fraud judgements    judgements that found fraud; both by the label's arrival
"""

from typing import Final

import numpy as np

from contract.hashing import SEED, bucket_of, hash_id
from contract.redis_keys import escape_entity, unescape_entity
from contract.units import DAY_MS, HOUR_MS, MINUTE_MS

ENTITY_KINDS: Final = ("user", "device", "ip", "card", "item", "seller")
FAMILIES: Final = ("clicks", "impressions", "orders", "reviews", "searches", "judgements")
JUDGED_TASKS: Final = ("fraud", "brushing", "fake_review", "cancellation")

WINDOW_WIDTHS_MS: Final = {"10m": 10 * MINUTE_MS, "1h": HOUR_MS, "1d": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS}
WINDOWS: Final = tuple(WINDOW_WIDTHS_MS)
WIDTHS_MS: Final = np.array(list(WINDOW_WIDTHS_MS.values()), np.int64)  # what the compiled fold reads
HORIZON_MS: Final = 180 * DAY_MS
RING_SIZE: Final = 8

# Windows are cells in absolute time (`ts_ms // width`): the current one and the one before, from which a reader
# interpolates the sliding window. `index` is the number of the current cell.
CELLS = np.dtype([("index", "<u4"), ("count", "<u4", 2), ("sum", "<i8", 2)])
# The most recent distinct ids that this entity was seen with, and when (seconds since 1970); 0 marks a free slot.
LINKS = np.dtype([("id", "<u8", RING_SIZE), ("seen_s", "<u4", RING_SIZE)])

RECORD: Final = np.dtype(
    [
        ("layout", "<u4"),  # digest of this layout, so that a record of another layout is never misread
        ("count", "<u4"),  # since the slice began
        ("offset", "<i8"),  # of the last record folded in; records up to it are included
        ("first_ms", "<i8"),
        ("last_ms", "<i8"),
        ("sum", "<i8"),
        ("windows", CELLS, len(WINDOWS)),
        ("links", LINKS, 2),  # first and second links: see `contract.profiles.entity_updates`
        ("judged", "<u4", (len(JUDGED_TASKS), 2)),  # known good, known bad, by the label's arrival
        ("orders", "<u8", RING_SIZE),  # the last order ids, so that a producer's duplicate counts once
        ("place", "<u4"),  # the slot of the next order id
    ]
)
LAYOUT: Final = hash_id(f"{RECORD.descr} {WIDTHS_MS.tolist()} {HORIZON_MS} {SEED}") & 0xFFFFFFFF

# What a reader derives for one entity from all its slices, as columns of float64: `contract.profiles.fold.read_entity`.
FAMILY_STATS: Final = (*(f"{stat}_{w}" for w in WINDOWS for stat in ("count", "sum")), "count", "age_s", "gap_s")
LINK_STATS: Final = ("first_links_1d", "first_links", "second_links_1d", "second_links")
AGGREGATES: Final = (
    tuple(f"{family}.{stat}" for family in FAMILIES for stat in FAMILY_STATS)
    + LINK_STATS
    + tuple(f"{task}.{verdict}" for task in JUDGED_TASKS for verdict in ("good", "bad"))
)


AGGREGATE_COLUMNS: Final = {name: column for column, name in enumerate(AGGREGATES)}


def profile_key(entity: str) -> str:
    """The Redis key of an entity's profile, without the shop's prefix; the braces are the cluster's hash tag."""
    return profile_key_prefix(bucket_of(entity)) + escape_entity(entity)


def profile_key_prefix(bucket: int) -> str:
    """The prefix of the keys of all profiles in a bucket."""
    return f"profile:{{{bucket}}}:"


def entity_from_key(key: str) -> str:
    """The entity whose profile is stored under a key."""
    return unescape_entity(key.partition("}:")[2])


def source_family(source: str) -> str:
    """The family of a source name: `orders/3`, or `orders~TOPICID/3` where the broker reports topic ids."""
    return source.partition("/")[0].partition("~")[0]


def new_slice() -> np.ndarray:
    """One empty record, as an array of one."""
    record = np.zeros(1, RECORD)
    record["layout"], record["offset"] = LAYOUT, -1
    return record
