"""Profiles beside their log, over real servers: what was changed by hand is found, what flows meanwhile is not."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import AdminClient

from contract.errors import BadConfig
from contract.messages import to_json
from contract.profiles.record import FAMILIES, profile_key
from contract.settings import KafkaSettings, RedisSettings, Settings
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.worker_lifecycle import InProcessWorker
from transport.log_reader import LogReader
from transport.records import Record, TopicPartition
from worker.kafka.admin import KafkaAdmin as Admin
from worker.maintenance.comparison import VerificationResult
from worker.maintenance.verification import EntitySample, InconsistentSnapshot, Verification, verify
from worker.state.profile_store import RETENTION_MIN_MS

NOW_MS = time.time_ns() // 1_000_000
KEY = profile_key("device:d1")


def send_orders(stage: WorkerEnvironment, numbers: range) -> None:
    """Orders of seven users on three devices."""
    stage.send(
        "orders", [(f"u{n % 7}", to_json(make_order(f"o{n}", user=f"u{n % 7}", device=f"d{n % 3}"))) for n in numbers]
    )


def run_verification(
    stage: WorkerEnvironment, sample: EntitySample | None = None, *, log: LogReader | None = None, now_ms: int = NOW_MS
) -> VerificationResult:
    settings, reader = stage.settings, log or LogReader(kafka=stage.settings.kafka)
    try:
        return Verification(
            reader=reader,
            admin=Admin(kafka=settings.kafka),
            profiles=stage.open_profiles(),
            topics={settings.topics.topic_name(kind): kind for kind in FAMILIES},
            erasures=settings.topics.erasures,
            sample=sample or EntitySample(),
        ).run(now_ms)
    finally:
        reader.close()


def read_slices(stage: WorkerEnvironment, key: str = KEY) -> dict[str, bytes]:
    """The slices under a key, by source."""
    (fields,) = stage.redis.pipeline([("HGETALL", stage.prefix + key)])
    return {fields[n].decode(): fields[n + 1] for n in range(0, len(fields), 2)}


def write_slice(stage: WorkerEnvironment, source: str, record: bytes, key: str = KEY) -> None:
    stage.redis.pipeline([("HSET", stage.prefix + key, source, record)])


def run_worker(stage: WorkerEnvironment, numbers: range) -> WorkerEnvironment:
    """The stage once a worker has folded these orders, and met a bad record."""
    send_orders(stage, numbers)
    stage.send("orders", [("u1", b"not JSON")])
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
    return stage


@pytest.fixture
def worked(apache_stage: WorkerEnvironment) -> WorkerEnvironment:
    return run_worker(apache_stage, range(40))


def flip_bit(stage: WorkerEnvironment) -> None:
    source, record = min(read_slices(stage).items())
    write_slice(stage, source, record[:-5] + bytes([record[-5] ^ 16]) + record[-4:])


def delete_slice(stage: WorkerEnvironment) -> None:
    stage.redis.pipeline([("HDEL", stage.prefix + KEY, min(read_slices(stage)))])


def swap_slice(stage: WorkerEnvironment) -> None:
    write_slice(
        stage,
        min(read_slices(stage)),
        read_slices(stage, profile_key("device:d2"))[min(read_slices(stage, profile_key("device:d2")))],
    )


def truncate_slice(stage: WorkerEnvironment) -> None:
    write_slice(stage, min(read_slices(stage)), min(read_slices(stage).items())[1][:-1])


def write_slice_of_unknown_partition(stage: WorkerEnvironment) -> None:
    source, record = min(read_slices(stage).items())
    write_slice(stage, f"{source.rpartition('/')[0]}/99", record)


def write_to_wrong_bucket(stage: WorkerEnvironment) -> None:
    write_slice(stage, *min(read_slices(stage).items()), key="profile:{64}:device:d1")


CORRUPTIONS: Final = {
    flip_bit: "order id",
    delete_slice: "missing",
    swap_slice: "should be",
    truncate_slice: "has 471",
    write_slice_of_unknown_partition: "/99",
    write_to_wrong_bucket: "profile:{64}:device:d1",
}


def test_one_slice_that_was_changed_by_hand_is_found(stage: WorkerEnvironment) -> None:
    # given
    run_worker(stage, range(40))
    (whole,) = stage.redis.pipeline([("DUMP", stage.prefix + KEY)])
    for harm, said in CORRUPTIONS.items():
        before = run_verification(stage)
        assert (before.mismatches, before.unchecked) == (0, 0)
        assert before.entities == 7 + 3 + 1  # users, devices, the item
        # when
        harm(stage)
        # then
        after = run_verification(stage)
        assert (after.mismatches, after.unchecked) == (1, 0), harm.__name__
        assert said in after.differences[0]
        stage.redis.pipeline([("DEL", f"{stage.prefix}profile:{{64}}:device:d1")])
        stage.redis.pipeline([("RESTORE", stage.prefix + KEY, 0, whole, "REPLACE")])


def test_the_last_event_of_a_slice_cannot_be_lost_unseen(apache_stage: WorkerEnvironment) -> None:
    # given the slices of a device before and after one more order
    stage = apache_stage
    send_orders(stage, range(40))
    with InProcessWorker(stage) as life:
        life.process_all(stage.end_offsets("orders"))
        before = read_slices(stage)
        send_orders(stage, range(61, 62))
        life.process_all(stage.end_offsets("orders"))
    (source,) = [source for source, record in read_slices(stage).items() if record != before.get(source)]
    # when Redis has the former one back, whose own offset is consistent
    write_slice(stage, source, before[source])
    # then
    assert "offset should be" in run_verification(stage).differences[0]


def test_what_flows_meanwhile_is_no_mismatch(stage: WorkerEnvironment) -> None:
    # given a worker that goes on
    send_orders(stage, range(100))
    with InProcessWorker(stage) as life, ThreadPoolExecutor(1) as pool:
        life.run_until(lambda: bool(stage.open_profiles().read(["user:u0"])[0]))
        done, sent = threading.Event(), 100
        verdicts = pool.submit(lambda: [run_verification(stage) for _ in range(5)])
        verdicts.add_done_callback(lambda _: done.set())
        # when it is verified again and again
        while not done.is_set():
            send_orders(stage, range(sent, sent + 5))
            sent += 5
            life.step()
        # then
        assert [verdict.mismatches for verdict in verdicts.result()] == [0] * 5
        assert verdicts.result()[-1].slices > 0


def test_parts_of_a_share_are_together_all(worked: WorkerEnvironment) -> None:
    # when
    parts = [run_verification(worked, EntitySample(0.25, part)) for part in range(4)]
    # then
    whole = run_verification(worked)
    assert sum(part.entities for part in parts) == whole.entities
    assert sum(part.slices for part in parts) == whole.slices


def test_slices_of_kinds_that_were_not_asked_for_are_left_alone(worked: WorkerEnvironment) -> None:
    # given
    settings = worked.settings
    delete_slice(worked)
    # then
    assert verify(settings, EntitySample(), ("clicks",)) == 0
    assert verify(settings, EntitySample(), ("orders",)) == 1


def test_the_verdict_is_printed(worked: WorkerEnvironment, capsys: pytest.CaptureFixture[str]) -> None:
    # given
    delete_slice(worked)
    # when
    verify(worked.settings, EntitySample(), FAMILIES)
    # then
    out = capsys.readouterr().out
    assert "mismatches             1" in out
    assert "device:d1, orders" in out


@pytest.mark.parametrize("sample", [EntitySample(0.1, 10), EntitySample(1.0, 1), EntitySample(0.1, -1)])
def test_a_part_that_holds_nobody_is_refused(sample: EntitySample) -> None:
    with pytest.raises(BadConfig, match="counted from 0"):
        verify(None, sample, FAMILIES)  # type: ignore[arg-type]


class InterruptedLogReader(LogReader):
    """A log during whose reading something happens."""

    def __init__(self, stage: WorkerEnvironment, event: Callable[[], object]) -> None:
        super().__init__(kafka=stage.settings.kafka)
        self._event = event

    def read(
        self, ends: Mapping[TopicPartition, int], starts: Mapping[TopicPartition, int] | None = None
    ) -> Iterator[list[Record]]:
        if ends:  # of erasures there are none
            self._event()
        return super().read(ends, starts)


def test_a_redis_that_loses_its_state_meanwhile_gives_no_verdict(worked: WorkerEnvironment) -> None:
    with pytest.raises(InconsistentSnapshot, match="gone back"):
        run_verification(worked, log=InterruptedLogReader(worked, lambda: worked.redis.pipeline([("FLUSHALL",)])))


def test_profiles_that_nobody_wrote_for_longer_than_redis_keeps_them_may_be_gone(worked: WorkerEnvironment) -> None:
    # given
    delete_slice(worked)
    # when
    much_later = run_verification(worked, now_ms=NOW_MS + RETENTION_MIN_MS + 3_600_000)
    # then
    assert (much_later.mismatches, much_later.unchecked) == (0, 1)


def test_without_its_beginning_a_log_tells_what_it_can(apache_stage: WorkerEnvironment) -> None:
    # given a log of which retention has taken the first half, and a worker that knew it whole
    stage = run_worker(apache_stage, range(40))
    ends = stage.end_offsets("orders")
    admin = AdminClient({"bootstrap.servers": stage.broker.bootstrap})
    for deleted in admin.delete_records(
        [KafkaPartition(*partition, end // 2) for partition, end in ends.items()]
    ).values():
        deleted.result()
    # when
    verdict = run_verification(stage)
    # then
    assert verdict.mismatches == 0
    assert verdict.unchecked > 0
    assert len(verdict.remarks) == len(ends)
    # and what the rest of the log holds of an entity should still be there
    user = f"user:u{39 % 7}"
    stage.redis.pipeline([("DEL", stage.prefix + profile_key(user))])
    assert user in run_verification(stage).differences[0]


def test_slices_of_a_topic_that_was_made_anew_cannot_be_checked(apache_stage: WorkerEnvironment) -> None:
    # given
    stage = run_worker(apache_stage, range(10))
    slices = run_verification(stage).slices
    # when a slice says that it comes from a topic of another id
    source, record = min(read_slices(stage).items())
    write_slice(stage, f"orders~{'A' * 22}/0", record)
    # then
    verdict = run_verification(stage)
    assert (verdict.slices, verdict.mismatches, verdict.unchecked) == (slices + 1, 0, 1)
    assert source in read_slices(stage)


def test_a_kafka_that_does_not_answer_gives_no_verdict(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr("transport.log_reader.TIMEOUT_S", 0.2)
    kafka, redis = KafkaSettings(bootstrap_servers="127.0.0.1:1", topic_ids=False), RedisSettings(url=redis_url)
    # then
    assert verify(Settings(kafka=kafka, redis=redis), EntitySample(), FAMILIES) == 3
    assert "Nothing can be told" in capsys.readouterr().err
