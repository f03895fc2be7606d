"""One profile as text: all its fields, and the aggregates that features see."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from msgspec.structs import replace

from contract.events.model import Judgement
from contract.hashing import BUCKETS, hash_id, item_hash
from contract.profiles.entity_updates import Arrival, to_updates
from contract.profiles.record import profile_key
from contract.profiles.store import InMemoryProfileStore, fold
from contract.settings.reading import Settings
from contract.settings.servers import RedisSettings
from contract.units import HOUR_MS, MINUTE_MS
from testkit.oracle.feeder import ProfileFeeder
from tests.worker.events import NOW_MS, make_click, make_order
from worker.maintenance.profile_report import format_profile, print_profile, to_epoch_ms
from worker.redis.client import RedisClient
from worker.state.profile_store import RedisProfileStore

JUDGEMENT = Judgement(
    event_id="j",
    ts_ms=NOW_MS,
    user_id="u",
    judged_event_id="o1",
    task="fraud",
    value=1.0,
    entities=("user:u",),
)
LOG = (
    Arrival("orders/1", 4, make_order("o1", "i1", "i2", ts_ms=NOW_MS, amount=20.5, device="d", card="c")),
    Arrival("orders/1", 5, make_order("o2", "i1", ts_ms=NOW_MS + 1_000, amount=4.25, card="c")),
    Arrival("clicks/0", 9, make_click("c1", "i3", ts_ms=NOW_MS + 2_000)),
    Arrival("judgements/2", 1, JUDGEMENT),
)


def fold_slices(entity: str) -> dict[str, bytes]:
    updates = to_updates(LOG)
    return fold(InMemoryProfileStore().read(updates.entities), updates).slice_writes().to_mapping()[entity]


def split_words(line: str) -> list[str]:
    return line.split()


def test_each_slice_shows_its_offset_totals_and_windows() -> None:
    # when
    lines = list(format_profile("user:u", fold_slices("user:u"), NOW_MS + 3_000))
    # then
    line = lines.index("orders/1: up to offset 5, 2 events, sum 24.75")
    assert lines[line + 1] == "  seen from 2023-11-14 22:13:20Z to 2023-11-14 22:13:21Z"
    assert split_words(lines[line + 3]) == ["10m", "2023-11-14", "22:10:00Z", "2", "24.75", "0", "0.00"]
    assert [split_words(row)[0] for row in lines[line + 3 : line + 8]] == ["10m", "1h", "1d", "7d", "30d"]


def test_links_order_ids_and_labels_are_shown() -> None:
    # when
    text = "\n".join(format_profile("user:u", fold_slices("user:u"), NOW_MS))
    # then
    assert f"linked item {hash_id('item:i2'):016x} at 2023-11-14 22:13:20Z" in text
    assert f"linked device or ip or card {hash_id('card:c'):016x} at 2023-11-14 22:13:21Z" in text
    assert f"{hash_id('o1'):016x} {hash_id('o2'):016x}" in text
    assert "judged for fraud: 0 good, 1 bad" in text
    # and a card is linked with users and devices
    card = "\n".join(format_profile("card:c", fold_slices("card:c"), NOW_MS))
    assert f"linked user {hash_id('user:u'):016x}" in card
    assert f"linked device {hash_id('device:d'):016x}" in card


def test_the_aggregates_are_those_at_a_given_time() -> None:
    # given all slices of a user, half an hour into the next cell
    at_ms = (NOW_MS // HOUR_MS + 1) * HOUR_MS + 30 * MINUTE_MS
    # when
    lines = list(format_profile("user:u", fold_slices("user:u"), at_ms))
    # then half of the former hour still counts
    seen = lines[lines.index("As features see it at 2023-11-14 23:30:00Z") :]
    count = [split_words(line)[:2] for line in seen].index(["orders", "count"])
    assert split_words(seen[count]) == ["orders", "count", "0", "1", "2", "2", "2", "2"]
    assert split_words(seen[count + 1]) == ["sum", "0.00", "12.38", "24.75", "24.75", "24.75"]
    assert any(split_words(line) == ["first_links", "3"] for line in seen)
    assert any(split_words(line) == ["fraud", "0", "good,", "1", "bad"] for line in seen)
    assert seen[-1] == "  latest first links " + " ".join(
        f"{ident:016x}" for ident in (hash_id("item:i3"), hash_id("item:i1"), hash_id("item:i2"))
    )


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis=RedisSettings(url=redis_url))


def test_a_profile_is_read_from_redis(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    # given
    client = RedisClient(url=settings.redis.url, timeout_s=20)
    sources = {arrival.source: arrival.offset + 1 for arrival in LOG}
    writes = {"user:u": fold_slices("user:u")}
    RedisProfileStore(client=client, prefix="shop:").merge(writes, {}, dict.fromkeys(range(BUCKETS), sources))
    client.close()
    # then
    assert print_profile(settings, "user", "u", None) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"user:u, stored under shop:{profile_key('user:u')}\n")
    assert "\nclicks/0: up to offset 9, 1 events, sum 0\n" in out


def test_a_history_and_logins_are_shown_and_the_items_of_guests_with_those_of_the_user(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    # given
    client = RedisClient(url=settings.redis.url, timeout_s=20)
    guest = make_click("c1", "i1", user="guest:g", ts_ms=NOW_MS)
    login = replace(make_click("c2", "i2", user="u", ts_ms=NOW_MS + 60_000), guest_id="g")
    ProfileFeeder(RedisProfileStore(client=client, prefix="shop:")).feed(
        [Arrival("clicks/0", 0, guest), Arrival("clicks/0", 1, login)]
    )
    client.close()
    # when
    assert print_profile(settings, "user", "u", None) == 0
    lines = capsys.readouterr().out.splitlines()
    # then
    first, second = (f"  click  {item_hash(item):016x} at 2023-11-14 22:1{n}:20Z" for n, item in ((4, "i2"), (3, "i1")))
    assert lines[lines.index("History of clicks/0: the latest items, newest first") + 1] == first
    assert split_words(lines[lines.index("Logins of clicks/0: other id, first, latest") + 1])[0] == "g"
    assert lines[lines.index("As lists know it, newest first") :][1:] == [first, second]
    # and the guest's record names no user
    assert print_profile(settings, "user", "guest:g", None) == 0
    assert "  u " not in capsys.readouterr().out


def test_an_unknown_entity_is_reported(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert print_profile(settings, "user", "unknown", None) == 1
    assert "No profile of user:unknown" in capsys.readouterr().err


def test_a_time_without_a_zone_is_utc() -> None:
    # given
    plain = datetime(2023, 11, 14, 22, 13, 20)
    # then
    assert to_epoch_ms(plain) == to_epoch_ms(plain.replace(tzinfo=UTC)) == NOW_MS
    assert to_epoch_ms(plain.replace(tzinfo=timezone(timedelta(hours=1)))) == NOW_MS - HOUR_MS
