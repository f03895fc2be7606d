"""The local servers that the demo, tests and benches use."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from confluent_kafka import Producer

from contract.errors import Unavailable
from devservers import kafka_distribution
from devservers.apache_kafka import ApacheKafka
from devservers.embedded import EmbeddedKafka, EmbeddedValkey
from devservers.librdkafka import SILENT
from devservers.process import ChildProcess, find_free_ports
from devservers.redis_server import RedisServer, valkey_binary
from tests.conftest import KafkaBroker
from tests.kafka import list_partitions, open_consumer, read_topics
from tests.polling import wait_until
from tests.processes import interrupt_starts, is_process_gone

TIMEOUT_S = 30

PRODUCE = """
import sys
from confluent_kafka import Producer
producer = Producer({"bootstrap.servers": sys.argv[1], "log_level": 0})
for n in range(int(sys.argv[3])):
    producer.produce(sys.argv[2], key=str(n), value=f"{sys.argv[4]} {n}")
sys.exit(producer.flush(20))
"""


def produce_in_other_process(bootstrap: str, topic: str, count: int, word: str) -> None:
    subprocess.run([sys.executable, "-c", PRODUCE, bootstrap, topic, str(count), word], check=True)


def consume(bootstrap: str, topic: str, group: str, count: int) -> set[str]:
    """At least `count` values of a topic, read as a member of a consumer group."""
    values = set[str]()
    with open_consumer(bootstrap, group) as consumer:
        consumer.subscribe([topic])

        def has_read_all() -> bool:
            messages = consumer.consume(100, 0.05)
            values.update((message.value() or b"").decode() for message in messages if message.error() is None)
            return len(values) >= count

        wait_until(has_read_all, lambda: values)
    return values


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[ChildProcess]:
    child = ChildProcess(command=["sleep", "600"], output=tmp_path / "output")
    child.start()
    yield child
    child.kill()


def test_records_of_another_process_are_consumed_here(broker: KafkaBroker, topic: str, topic_prefix: str) -> None:
    produce_in_other_process(broker.bootstrap, topic, 50, "hello")

    assert consume(broker.bootstrap, topic, f"{topic_prefix}group", 50) == {f"hello {n}" for n in range(50)}


def test_a_topic_has_the_requested_number_of_partitions(broker: KafkaBroker, topic: str) -> None:
    with open_consumer(broker.bootstrap) as consumer:
        assert len(list_partitions(consumer, [topic])) == 4


def test_creating_an_existing_topic_is_no_error(broker: KafkaBroker, topic: str) -> None:
    broker.create_topics({topic: 4})


def test_an_embedded_topic_must_have_four_partitions(embedded_kafka: EmbeddedKafka) -> None:
    with pytest.raises(ValueError, match=r"should have 4 partitions\. Found 3"):
        embedded_kafka.create_topics({"three": 3})


@pytest.mark.apache_kafka
@pytest.mark.parametrize("end", [ApacheKafka.stop, ApacheKafka.kill])
def test_apache_kafka_keeps_records_and_address_over_a_restart(
    apache_kafka: ApacheKafka, topic_prefix: str, end: Callable[[ApacheKafka], None]
) -> None:
    # given records on a topic
    topic = f"{topic_prefix}topic"
    bootstrap = apache_kafka.bootstrap
    apache_kafka.create_topics({topic: 1}, {"retention.ms": "-1"})
    produce_in_other_process(apache_kafka.bootstrap, topic, 20, "before")

    # when the broker stops and starts again
    end(apache_kafka)
    assert not apache_kafka.process.is_running
    apache_kafka.start()

    # then it has the same address and records, and accepts more
    assert apache_kafka.bootstrap == bootstrap
    produce_in_other_process(apache_kafka.bootstrap, topic, 20, "after")
    expected = {f"{word} {n}" for word in ("before", "after") for n in range(20)}
    assert consume(apache_kafka.bootstrap, topic, f"{topic_prefix}group", 40) == expected


@pytest.mark.apache_kafka
def test_apache_kafka_hides_aborted_transactions(apache_kafka: ApacheKafka, topic_prefix: str) -> None:
    # given a topic
    topic = f"{topic_prefix}topic"
    apache_kafka.create_topics({topic: 1})

    # when one transaction aborts and the next commits
    settings = {"bootstrap.servers": apache_kafka.bootstrap, "transactional.id": f"{topic_prefix}writer", **SILENT}
    with Producer(settings) as producer:
        producer.init_transactions(TIMEOUT_S)
        for word, finish in (("aborted", producer.abort_transaction), ("committed", producer.commit_transaction)):
            producer.begin_transaction()
            producer.produce(topic, value=word)
            producer.flush(TIMEOUT_S)
            finish(TIMEOUT_S)

    # then readers of committed records see only the second
    assert [record.value for record in read_topics(apache_kafka.bootstrap, topic)] == [b"committed"]


@pytest.mark.parametrize("binary", [None, valkey_binary()], ids=["redis", "valkey"])
def test_redis_keeps_its_data_over_a_stop_and_loses_them_by_a_kill(binary: str | None) -> None:
    with RedisServer(binary=binary) as server, redis.Redis.from_url(server.url) as client:
        # given a key
        client.set("key", "value")

        # when it is stopped and started, then the key is there
        server.stop()
        server.start()
        assert client.get("key") == b"value"

        # when it is killed after a write, then that write is lost
        client.set("key", "newer")
        server.kill()
        server.start()
        assert client.get("key") != b"newer"


def test_redis_with_an_append_only_file_keeps_its_data_over_a_kill() -> None:
    with RedisServer(appendonly=True) as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "value")
        server.kill()
        server.start()

        assert client.get("key") == b"value"


def test_redis_goes_back_to_a_snapshot() -> None:
    with RedisServer() as server, redis.Redis.from_url(server.url) as client:
        client.set("key", "then")
        snapshot = server.save_snapshot()
        client.set("key", "later")

        server.restore_snapshot(snapshot)

        assert client.get("key") == b"then"


def test_a_suspended_redis_keeps_connections_and_answers_after_resume() -> None:
    with RedisServer() as server, redis.Redis.from_url(server.url, socket_timeout=0.05, retry=None) as client:
        wait_until(lambda: can_ping(client))

        server.pause()
        with pytest.raises(redis.TimeoutError):
            client.ping()

        server.resume()
        wait_until(lambda: can_ping(client))


def can_ping(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.TimeoutError:
        return False


def test_redis_does_not_evict_keys(valkey: EmbeddedValkey, redis_server: RedisServer) -> None:
    for server in (valkey, redis_server):
        with redis.Redis.from_url(server.url) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_test_gets_an_empty_redis(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def test_child_processes_end_with_a_killed_parent(tmp_path: Path) -> None:
    # given a process with a server as child process
    script = """
import sys
from devservers.embedded import EmbeddedValkey
server = EmbeddedValkey().start()
print(server.process.pid, flush=True)
sys.stdin.read()
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    parent = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert not is_process_gone(child)

        # when the parent is killed
        parent.send_signal(signal.SIGKILL)

    # then the child ends, too
    wait_until(lambda: is_process_gone(child))


def test_a_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    # given
    output = tmp_path / "output"
    child = ChildProcess(
        command=["sh", "-c", "trap '' TERM; echo trapped; while :; do sleep 0.01; done"], output=output
    )
    child.start()
    child.wait_until(lambda: "trapped" in child.tail(), timeout_s=TIMEOUT_S)

    # when, then
    assert child.stop(timeout_s=0.05) == -signal.SIGKILL
    assert not child.is_running


def test_a_suspended_child_can_be_stopped(sleeper: ChildProcess) -> None:
    sleeper.pause()

    assert sleeper.stop() == -signal.SIGTERM


@pytest.mark.parametrize("end", ["status 3", "SIGSEGV"])
def test_a_child_that_ends_before_it_is_ready_raises_with_its_output_and_how_it_ended(tmp_path: Path, end: str) -> None:
    action = {"status 3": "exit 3", "SIGSEGV": "kill -SEGV $$"}[end]
    child = ChildProcess(command=["sh", "-c", f"echo invalid option; {action}"], output=tmp_path / "output")
    child.start()

    with pytest.raises(Unavailable, match=f"Found that it ended with {end}:\ninvalid option"):
        child.wait_until(lambda: False, timeout_s=TIMEOUT_S)


def test_a_child_that_is_not_ready_in_time_raises(sleeper: ChildProcess) -> None:
    with pytest.raises(Unavailable, match=r"should be ready in 0\.02 s"):
        sleeper.wait_until(lambda: False, timeout_s=0.02)


def test_a_child_whose_start_is_interrupted_can_be_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_starts(monkeypatch)
    child = ChildProcess(command=["sleep", "600"], output=tmp_path / "output")

    with pytest.raises(KeyboardInterrupt):
        child.start()

    assert child.is_running
    child.kill()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_server_whose_start_is_interrupted_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_starts(monkeypatch)
    before = set(psutil.Process().children())

    with pytest.raises(KeyboardInterrupt), EmbeddedValkey():
        pass

    assert set(psutil.Process().children()) <= before


def test_free_ports_are_distinct_and_below_the_ephemeral_range() -> None:
    ephemeral_start = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    ports = find_free_ports(50)

    assert len(set(ports)) == 50
    assert max(ports) < ephemeral_start


def write_fake_tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("tools", "reason"),
    [
        ({}, "no `java` on the path"),
        ({"java": "echo 'openjdk version \"11.0.2\"' >&2"}, "`java` is 11"),
        ({"java": "echo 'openjdk version \"17.0.15\"' >&2"}, "no `mvn` on the path"),
        ({"java": "echo 'openjdk version \"21\" 2023-09-19' >&2", "mvn": ""}, None),
    ],
)
def test_the_reason_why_apache_kafka_cannot_run_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: dict[str, str], reason: str | None
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("SHOPSTREAM_CACHE", str(tmp_path / "cache"))
    for name, script in tools.items():
        write_fake_tool(tmp_path, name, script)

    actual = kafka_distribution.unavailable_reason()

    assert actual is None if reason is None else reason in (actual or "")


def test_jars_are_downloaded_once_and_a_failed_download_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a Maven that fails
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SHOPSTREAM_CACHE", str(tmp_path / "cache"))
    write_fake_tool(tmp_path, "mvn", "mkdir jars; echo no network; exit 1")

    # then its output is in the error, and the next call tries again
    with pytest.raises(Unavailable, match="no network"):
        kafka_distribution.fetch_jars()
    write_fake_tool(tmp_path, "mvn", f"mkdir jars && echo fetched >> {tmp_path}/calls")
    folder = kafka_distribution.fetch_jars()

    # and then the download is not repeated
    assert kafka_distribution.fetch_jars() == folder
    assert (tmp_path / "calls").read_text() == "fetched\n"


def test_a_process_ends_with_the_one_that_owns_its_pool() -> None:
    # given a process that an owner did not start
    owner = subprocess.Popen(["sleep", "600"])
    code = f"import time; from devservers.process import end_with; end_with({owner.pid}); time.sleep(600)"
    owned = subprocess.Popen([sys.executable, "-c", code])
    try:
        assert owned.poll() is None
        # when
        owner.kill()
        owner.wait()
        # then
        assert owned.wait(60) == 1
    finally:
        owned.kill()
        owned.wait()
