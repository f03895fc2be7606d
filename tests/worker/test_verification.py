"""Profiles beside their log, over real servers: what was changed by hand is found, what flows meanwhile is not."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from contract.errors import BadConfig
from contract.profiles import FAMILIES, profile_key
from contract.rows import to_json
from contract.settings import Kafka, Redis, Settings
from tests.worker.lives import Life
from tests.worker.shop import order
from tests.worker.stage import Stage
from worker.broker import Broker as Admin
from worker.follower import Log
from worker.intake import Place, Record
from worker.profile_store import KEPT_MS
from worker.verdict import Verdict
from worker.verification import Moved, Sample, Verification, verify

NOW_MS = time.time_ns() // 1_000_000
KEY = profile_key("device:d1")


def send(stage: Stage, numbers: range) -> None:
    """Orders of seven users on three devices."""
    stage.send(
        "orders", [(f"u{n % 7}", to_json(order(f"o{n}", user=f"u{n % 7}", device=f"d{n % 3}"))) for n in numbers]
    )


def verified(stage: Stage, sample: Sample | None = None, *, log: Log | None = None, now_ms: int = NOW_MS) -> Verdict:
    settings, reader = stage.settings, log or Log(kafka=stage.settings.kafka)
    try:
        return Verification(
            log=reader,
            broker=Admin(kafka=settings.kafka),
            profiles=stage.profiles(),
            topics={settings.topics.of(kind): kind for kind in FAMILIES},
            erasures=settings.topics.erasures,
            sample=sample or Sample(),
        ).run(now_ms)
    finally:
        reader.close()


def held(stage: Stage, key: str = KEY) -> dict[str, bytes]:
    """The slices under a key, by source."""
    (fields,) = stage.redis.pipeline([("HGETALL", stage.prefix + key)])
    return {fields[n].decode(): fields[n + 1] for n in range(0, len(fields), 2)}


def put(stage: Stage, source: str, record: bytes, key: str = KEY) -> None:
    stage.redis.pipeline([("HSET", stage.prefix + key, source, record)])


def work(stage: Stage, numbers: range) -> Stage:
    """The stage once a worker has folded these orders, and met a bad record."""
    send(stage, numbers)
    stage.send("orders", [("u1", b"not JSON")])
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
    return stage


@pytest.fixture
def worked(apache_stage: Stage) -> Stage:
    return work(apache_stage, range(40))


def flip(stage: Stage) -> None:
    source, record = min(held(stage).items())
    put(stage, source, record[:-5] + bytes([record[-5] ^ 16]) + record[-4:])


def lose(stage: Stage) -> None:
    stage.redis.pipeline([("HDEL", stage.prefix + KEY, min(held(stage)))])


def take_from_another(stage: Stage) -> None:
    put(stage, min(held(stage)), held(stage, profile_key("device:d2"))[min(held(stage, profile_key("device:d2")))])


def cut_short(stage: Stage) -> None:
    put(stage, min(held(stage)), min(held(stage).items())[1][:-1])


def take_from_a_partition_that_is_none(stage: Stage) -> None:
    source, record = min(held(stage).items())
    put(stage, f"{source.rpartition('/')[0]}/99", record)


def misplace(stage: Stage) -> None:
    put(stage, *min(held(stage).items()), key="profile:{64}:device:d1")


HARMS: Final = {
    flip: "order id",
    lose: "missing",
    take_from_another: "should be",
    cut_short: "has 471",
    take_from_a_partition_that_is_none: "/99",
    misplace: "profile:{64}:device:d1",
}


def test_one_slice_that_was_changed_by_hand_is_found(stage: Stage) -> None:
    # given
    work(stage, range(40))
    (whole,) = stage.redis.pipeline([("DUMP", stage.prefix + KEY)])
    for harm, said in HARMS.items():
        before = verified(stage)
        assert (before.mismatches, before.unchecked) == (0, 0)
        assert before.entities == 7 + 3 + 1  # users, devices, the item
        # when
        harm(stage)
        # then
        after = verified(stage)
        assert (after.mismatches, after.unchecked) == (1, 0), harm.__name__
        assert said in after.differences[0]
        stage.redis.pipeline([("DEL", f"{stage.prefix}profile:{{64}}:device:d1")])
        stage.redis.pipeline([("RESTORE", stage.prefix + KEY, 0, whole, "REPLACE")])


def test_the_last_event_of_a_slice_cannot_be_lost_unseen(apache_stage: Stage) -> None:
    # given the slices of a device before and after one more order
    stage = apache_stage
    send(stage, range(40))
    with Life(stage) as life:
        life.finish(stage.ends("orders"))
        before = held(stage)
        send(stage, range(61, 62))
        life.finish(stage.ends("orders"))
    (source,) = [source for source, record in held(stage).items() if record != before.get(source)]
    # when Redis has the former one back, whose own offset is consistent
    put(stage, source, before[source])
    # then
    assert "offset should be" in verified(stage).differences[0]


def test_what_flows_meanwhile_is_no_mismatch(stage: Stage) -> None:
    # given a worker that goes on
    send(stage, range(100))
    with Life(stage) as life, ThreadPoolExecutor(1) as pool:
        life.work_until(lambda: bool(stage.profiles().read(["user:u0"])[0]))
        done, sent = threading.Event(), 100
        verdicts = pool.submit(lambda: [verified(stage) for _ in range(5)])
        verdicts.add_done_callback(lambda _: done.set())
        # when it is verified again and again
        while not done.is_set():
            send(stage, range(sent, sent + 5))
            sent += 5
            life.step()
        # then
        assert [verdict.mismatches for verdict in verdicts.result()] == [0] * 5
        assert verdicts.result()[-1].slices > 0


def test_parts_of_a_share_are_together_all(worked: Stage) -> None:
    # when
    parts = [verified(worked, Sample(0.25, part)) for part in range(4)]
    # then
    whole = verified(worked)
    assert sum(part.entities for part in parts) == whole.entities
    assert sum(part.slices for part in parts) == whole.slices


def test_slices_of_kinds_that_were_not_asked_for_are_left_alone(worked: Stage) -> None:
    # given
    settings = worked.settings
    lose(worked)
    # then
    assert verify(settings, Sample(), ("clicks",)) == 0
    assert verify(settings, Sample(), ("orders",)) == 1


def test_the_verdict_is_printed(worked: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    # given
    lose(worked)
    # when
    verify(worked.settings, Sample(), FAMILIES)
    # then
    out = capsys.readouterr().out
    assert "mismatches             1" in out
    assert "device:d1, orders" in out


@pytest.mark.parametrize("sample", [Sample(0.1, 10), Sample(1.0, 1), Sample(0.1, -1)])
def test_a_part_that_holds_nobody_is_refused(sample: Sample) -> None:
    with pytest.raises(BadConfig, match="counted from 0"):
        verify(None, sample, FAMILIES)  # type: ignore[arg-type]


class Meanwhile(Log):
    """A log during whose reading something happens."""

    def __init__(self, stage: Stage, event: Callable[[], object]) -> None:
        super().__init__(kafka=stage.settings.kafka)
        self._event = event

    def read(self, ends: Mapping[Place, int], starts: Mapping[Place, int] | None = None) -> Iterator[list[Record]]:
        if ends:  # of erasures there are none
            self._event()
        return super().read(ends, starts)


def test_a_redis_that_loses_its_state_meanwhile_gives_no_verdict(worked: Stage) -> None:
    with pytest.raises(Moved, match="gone back"):
        verified(worked, log=Meanwhile(worked, lambda: worked.redis.pipeline([("FLUSHALL",)])))


def test_profiles_that_nobody_wrote_for_longer_than_redis_keeps_them_may_be_gone(worked: Stage) -> None:
    # given
    lose(worked)
    # when
    much_later = verified(worked, now_ms=NOW_MS + KEPT_MS + 3_600_000)
    # then
    assert (much_later.mismatches, much_later.unchecked) == (0, 1)


def test_without_its_beginning_a_log_tells_what_it_can(apache_stage: Stage) -> None:
    # given a log of which retention has taken the first half, and a worker that knew it whole
    stage = work(apache_stage, range(40))
    ends = stage.ends("orders")
    admin = AdminClient({"bootstrap.servers": stage.broker.bootstrap})
    for deleted in admin.delete_records([TopicPartition(*place, end // 2) for place, end in ends.items()]).values():
        deleted.result()
    # when
    verdict = verified(stage)
    # then
    assert verdict.mismatches == 0
    assert verdict.unchecked > 0
    assert len(verdict.remarks) == len(ends)
    # and what the rest of the log holds of an entity should still be there
    user = f"user:u{39 % 7}"
    stage.redis.pipeline([("DEL", stage.prefix + profile_key(user))])
    assert user in verified(stage).differences[0]


def test_slices_of_a_topic_that_was_made_anew_cannot_be_checked(apache_stage: Stage) -> None:
    # given
    stage = work(apache_stage, range(10))
    slices = verified(stage).slices
    # when a slice says that it comes from a topic of another id
    source, record = min(held(stage).items())
    put(stage, f"orders~{'A' * 22}/0", record)
    # then
    verdict = verified(stage)
    assert (verdict.slices, verdict.mismatches, verdict.unchecked) == (slices + 1, 0, 1)
    assert source in held(stage)


def test_a_kafka_that_does_not_answer_gives_no_verdict(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr("worker.follower.TIMEOUT_S", 0.2)
    kafka, redis = Kafka(bootstrap_servers="127.0.0.1:1", topic_ids=False), Redis(url=redis_url)
    # then
    assert verify(Settings(kafka=kafka, redis=redis), Sample(), FAMILIES) == 3
    assert "Nothing can be told" in capsys.readouterr().err
