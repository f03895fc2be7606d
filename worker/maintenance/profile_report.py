"""`python -m worker profile KIND ID`: prints one profile, slice by slice, as features see it, and histories of users.

Profiles hold linked entities and orders as 64-bit hashes of their names (`contract.hashing.hash_id`), printed as such.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from contract.errors import BadConfig
from contract.profiles.entity_kinds import BUILT_IN_KINDS, EntityKinds
from contract.profiles.entity_updates import to_updates
from contract.profiles.histories import CART, CLICK, ORDER, LatestItems, LoadedHistories, read_entries
from contract.profiles.logins import read_rows
from contract.profiles.record import (
    AGGREGATES,
    FAMILIES,
    JUDGED_TASKS,
    LINK_STATS,
    RECORD,
    WIDTHS_MS,
    WINDOWS,
    source_family,
)
from contract.profiles.slices import Slices
from contract.profiles.store import fold
from contract.settings.reading import Settings
from worker.redis.cluster import connect
from worker.state.profile_store import RedisProfileStore, open_profile_store
from worker.state.user_histories import UserHistories

# The sums of these families are hundredths; the others are whole numbers.
FAMILIES_IN_CENTS: Final = ("orders", "reviews")
NO_VALUE: Final = "-"
ACTION_NAMES: Final = {CLICK: "click", CART: "cart", ORDER: "order"}


def print_profile(settings: Settings, kind: str, ident: str, at_time: datetime | None) -> int:
    """Print the profile of an entity; 0, or 1 if there is none. `at_time` without a zone is UTC.

    Raises `BadConfig` for a kind that is neither built in nor declared.
    """
    kinds = settings.entity_kinds()
    if kind not in kinds.names:
        raise BadConfig([f"A profile should be of a kind among {', '.join(kinds.names)}. Found `{kind}`."])
    entity = kinds.identify(kind, ident)
    client = connect(settings.redis)
    profiles = open_profile_store(client, settings.redis.prefix)
    try:
        profiles.refresh_generation()
        (slices,) = profiles.read([entity])
        history_lines = list(describe_histories(profiles, entity)) if kind == "user" else []
    finally:
        client.close()
    if not slices and not history_lines:
        print(f"No profile of {entity} under {profiles.keys.profile(entity)}.", file=sys.stderr)
        return 1
    now_ms = to_epoch_ms(at_time) if at_time else time.time_ns() // 1_000_000
    print(f"{entity}, stored under {profiles.keys.profile(entity)}")
    print("\n".join(format_profile(entity, slices, now_ms, kinds)))
    print("\n".join(history_lines), end="\n" if history_lines else "")
    return 0


def to_epoch_ms(when: datetime) -> int:
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1_000)


def format_profile(entity: str, slices: Slices, now_ms: int, kinds: EntityKinds = BUILT_IN_KINDS) -> Iterator[str]:
    """The lines of a profile: each slice in the order of sources, then the aggregates that features see at `now_ms`."""
    for source in sorted(slices):
        yield ""
        yield from format_slice(entity, source, np.frombuffer(slices[source], RECORD)[0], kinds)
    yield ""
    yield f"As features see it at {format_time(now_ms)}"
    updates = to_updates([], extra_entities=[entity])
    aggregates, recent = fold([slices], updates).read_at([entity], [now_ms])
    yield from format_aggregates(dict(zip(AGGREGATES, aggregates[0].tolist(), strict=True)))
    yield f"  latest first links {format_ids(recent[0].tolist())}"


def describe_histories(profiles: RedisProfileStore, user: str) -> Iterator[str]:
    """The lines of a user's histories and logins; none for a user without any."""
    histories = profiles.read_histories([user])
    if histories[0] or histories.logins:
        yield from format_histories(histories, UserHistories(profiles).read([user.removeprefix("user:")]).latest)


def format_histories(histories: LoadedHistories, known: LatestItems) -> Iterator[str]:
    """The history and the logins of one user by source, and the items that lists know: those of guests too."""
    for source, record in sorted(histories[0].items()):
        yield ""
        yield f"History of {source}: the latest items, newest first"
        for item, seen_s, action in read_entries(record)[::-1].tolist():
            yield format_entry(item, seen_s, action)
    for _, source, record in sorted(histories.logins):
        yield ""
        yield f"Logins of {source}: other id, first, latest"
        for other, first_ms, latest_ms in reversed(read_rows(record)):
            yield f"  {other or 'shared by many users':24} {format_time(first_ms)} {format_time(latest_ms)}"
    yield ""
    yield "As lists know it, newest first"
    for item, action, seen_s in zip(known.items[0].tolist(), known.actions[0].tolist(), known.seen_s[0], strict=True):
        if item:
            yield format_entry(item, seen_s, action)


def format_entry(item: int, seen_s: int, action: int) -> str:
    return f"  {ACTION_NAMES.get(action, NO_VALUE):6} {item:016x} at {format_time(int(seen_s) * 1_000)}"


def format_slice(entity: str, source: str, fields: Any, entity_kinds: EntityKinds) -> Iterator[str]:
    """One slice: its offset in the log, totals, windows with their cells, links, labels and order ids."""
    family = source_family(source)
    total = format_amount(family, fields["sum"])
    yield f"{source}: up to offset {fields['offset']}, {fields['count']:,} events, sum {total}"
    if fields["count"]:
        yield f"  seen from {format_time(fields['first_ms'])} to {format_time(fields['last_ms'])}"
        yield format_row("window", "cell since", "count", "sum", "count before", "sum before")
        for window, width_ms, cells in zip(WINDOWS, WIDTHS_MS.tolist(), fields["windows"], strict=True):
            counts, sums = cells["count"].tolist(), [format_amount(family, total) for total in cells["sum"]]
            yield format_row(
                window, format_time(int(cells["index"]) * width_ms), counts[0], sums[0], counts[1], sums[1]
            )
    for kinds, links in zip(
        entity_kinds.find_linked_kinds(family, entity.partition(":")[0]), fields["links"], strict=True
    ):
        seen = sorted(zip(links["seen_s"].tolist(), links["id"].tolist(), strict=True), reverse=True)
        for seen_s, ident in seen:
            if ident:
                yield f"  linked {' or '.join(kinds)} {ident:016x} at {format_time(seen_s * 1_000)}"
    for task, (good, bad) in zip(JUDGED_TASKS, fields["judged"].tolist(), strict=True):
        if good or bad:
            yield f"  judged for {task}: {good} good, {bad} bad"
    if fields["orders"].any():
        yield f"  latest order ids {format_ids(fields['orders'].tolist())}"


def format_aggregates(values: dict[str, float]) -> Iterator[str]:
    """The aggregates of an entity, of those families that have events of it."""
    yield format_row("family", "", *WINDOWS, "ever")
    for family in FAMILIES:
        if ever := values[f"{family}.count"]:
            yield format_row(family, "count", *(f"{values[f'{family}.count_{w}']:.4g}" for w in WINDOWS), f"{ever:g}")
            yield format_row("", "sum", *(format_amount(family, values[f"{family}.sum_{w}"]) for w in WINDOWS))
            yield format_row(
                "", f"first {values[f'{family}.age_s']:,.0f} s ago, last {values[f'{family}.gap_s']:,.0f} s ago"
            )
    for name in LINK_STATS:
        yield format_row(name, f"{values[name]:g}")
    for task in JUDGED_TASKS:
        if values[f"{task}.good"] or values[f"{task}.bad"]:
            yield format_row(task, f"{values[f'{task}.good']:g} good, {values[f'{task}.bad']:g} bad")


def format_row(first: str, second: str, *cells: object) -> str:
    return f"  {first:15} {second:22}" + "".join(f"{cell!s:>14}" for cell in cells)


def format_amount(family: str, total: float) -> str:
    """A sum in its family's unit."""
    return f"{total / 100:,.2f}" if family in FAMILIES_IN_CENTS else f"{total:,.4g}"


def format_ids(ids: Sequence[int]) -> str:
    return " ".join(f"{ident:016x}" for ident in ids if ident) or NO_VALUE


def format_time(ms: int) -> str:
    """A time in UTC, to the second."""
    return f"{datetime.fromtimestamp(int(ms) // 1_000, UTC):%Y-%m-%d %H:%M:%S}Z"
