"""`python -m worker doctor` on Apache Kafka and Redis."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from contract.bundle import publish
from contract.settings.servers import RegistrySettings
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.environment.run_environment import RunEnvironment
from testkit.environment.tiny_bundle import make_manifest, tiny_files
from tests.kafka import BlockingProducer
from worker.doctor.examination import check_registry
from worker.doctor.finding import Severity
from worker.doctor.redis_checks import check_info, check_memory
from worker.kafka.admin import KafkaAdmin
from worker.kafka.topic_owner import TopicOwnership

pytestmark = pytest.mark.apache_kafka


@pytest.fixture
def environment(
    apache_kafka: ApacheKafka, redis_server: RedisServer, topic_prefix: str, tmp_path: Path
) -> RunEnvironment:
    return RunEnvironment(kafka=apache_kafka, redis=redis_server, folder=tmp_path, prefix=topic_prefix)


def run_worker(environment: RunEnvironment, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "worker", *arguments]
    return subprocess.run(command, env=dict(environment.env_variables()), capture_output=True, text=True, check=False)


def run_doctor(environment: RunEnvironment) -> tuple[int, list[dict[str, Any]]]:
    done = run_worker(environment, "doctor", "--json")
    return done.returncode, json.loads(done.stdout)


def test_the_topics_that_the_worker_creates_pass(environment: RunEnvironment) -> None:
    # given nothing, then every missing topic is an error
    status, findings = run_doctor(environment)
    missing = {finding["subject"] for finding in findings if finding["severity"] == "error"}
    assert (status, missing) == (1, set(environment.topics.names_by_kind().values()))
    # when the worker creates them
    assert run_worker(environment, "topics").returncode == 0
    # then only what a shop has still to do is left: Redis does not persist, nothing was exported, sent or run
    status, findings = run_doctor(environment)
    left = {finding["subject"].split()[0] for finding in findings if finding["severity"] != "ok"}
    approved = {finding["subject"] for finding in findings if finding["severity"] == "ok"}
    assert (status, left) == (0, {"redis", "bundles", "catalogue", "lane", "joiner"})
    assert approved >= {*environment.topics.names_by_kind().values(), "rights on topics", "clock", "features"}
    # and versions, policy and memory are told
    texts = {finding["subject"]: finding["text"] for finding in findings if finding["subject"].endswith(" server")}
    assert len(texts) == 1
    assert all(word in next(iter(texts.values())) for word in ("noeviction", "MiB", "alone", "master"))


def test_a_topic_that_another_shop_writes_is_an_error_of_the_doctor_and_of_a_worker(
    environment: RunEnvironment,
) -> None:
    # given topics that one shop owns
    assert run_worker(environment, "topics").returncode == 0
    kafka = environment.kafka_settings.model_copy(update={"group_prefix": "north"})
    ownership = TopicOwnership(kafka=kafka, topics=[environment.topics.decisions])
    ownership.claim()
    ownership.close()
    # when another one looks, and starts
    status, findings = run_doctor(environment)
    started = run_worker(environment, "score", "--lane", "orders")
    # then
    errors = [finding for finding in findings if finding["severity"] == "error"]
    assert (status, [error["subject"] for error in errors]) == (1, [environment.topics.decisions])
    assert started.returncode == 2
    assert "`kafka.group_prefix` should be `north`" in started.stderr
    assert "Traceback" not in started.stderr


def test_products_that_expire_are_found(environment: RunEnvironment) -> None:
    # given a topic of products that were created by hand, with a retention
    limited = {"cleanup.policy": "delete", "retention.ms": "60000"}
    environment.kafka.create_topics({environment.topics.products: 4}, limited)
    run_worker(environment, "topics")
    # when
    done = run_worker(environment, "doctor")
    # then
    assert done.returncode == 1
    assert "cleanup.policy=delete with retention.ms=60000" in done.stdout
    assert f"--entity-name {environment.topics.products} --add-config cleanup.policy=compact" in done.stdout


def test_how_far_the_learner_of_the_serving_bundle_lags_is_told_for_the_topic_that_exists(
    environment: RunEnvironment,
) -> None:
    # given three examples, of which the learner has read two
    assert run_worker(environment, "topics").returncode == 0
    topic = environment.topics.feedback
    with BlockingProducer(environment.kafka.bootstrap) as producer:
        producer.send(topic, [(None, b"example")] * 3, partition=1)
    topic_id = KafkaAdmin(kafka=environment.kafka_settings).fetch_topic_ids([topic])[topic]
    serve_positions(environment, "v1", {f"{topic}/1@{topic_id}": 2})
    # then
    assert find_text(environment, "learner") == "1 offsets behind the ends of its topics."
    # when the bundle's positions are of a former topic
    serve_positions(environment, "v2", {f"{topic}/1@former": 2})
    # then
    assert "Found none" in find_text(environment, "learner")


def serve_positions(environment: RunEnvironment, version: str, positions: dict[str, int]) -> None:
    """Publish a bundle of a learner that has read up to these positions."""
    publish(environment.bundles, replace(make_manifest(version), positions=positions), tiny_files())


def find_text(environment: RunEnvironment, subject: str) -> str:
    _, findings = run_doctor(environment)
    return str(next(finding["text"] for finding in findings if finding["subject"] == subject))


def test_servers_that_do_not_answer_are_errors_and_no_traceback(environment: RunEnvironment) -> None:
    variables = {
        **environment.env_variables(),
        "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "SHOPSTREAM_REDIS__URL": "redis://127.0.0.1:9/0",
    }
    command = [sys.executable, "-m", "worker", "doctor", "--json"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)

    assert done.returncode == 1
    severities = [finding["severity"] for finding in json.loads(done.stdout)]
    assert severities == ["error", "error", "warning", "ok"]  # Kafka, Redis, no bundles, features
    assert "Traceback" not in done.stderr
    assert "Found none at 127.0.0.1:9 (" in json.loads(done.stdout)[0]["text"]


def test_a_registry_that_does_not_answer_is_an_error_and_without_one_nothing_is_said() -> None:
    assert not list(check_registry(RegistrySettings()))
    (finding,) = check_registry(RegistrySettings(url="http://127.0.0.1:9"))
    assert (finding.severity, finding.subject) == (Severity.ERROR, "registry http://127.0.0.1:9")
    assert finding.command == "curl http://127.0.0.1:9/subjects"


@pytest.mark.parametrize(
    ("info", "ahead_s", "words"),
    [
        ({"redis_version": "6.2.14", "aof_enabled": "1"}, 0.0, ["7.0 or later"]),
        ({"redis_version": "7.2.4", "aof_enabled": "0"}, 0.0, ["appendonly yes"]),
        ({"redis_version": "7.2.4", "aof_enabled": "1"}, -60.0, ["-60.0 s"]),
        ({"redis_version": "8.0.1", "aof_enabled": "1"}, 1.0, []),
    ],
)
def test_a_redis_that_is_old_forgets_or_has_another_time_is_found(
    info: dict[str, str], ahead_s: float, words: list[str]
) -> None:
    findings = list(check_info("redis", info, ahead_s))

    assert len(findings) == len(words)
    assert all(word in finding.text for word, finding in zip(words, findings, strict=True))


@pytest.mark.parametrize(
    ("info", "is_full"),
    [
        ({"used_memory": "900", "maxmemory": "1000"}, True),
        ({"used_memory": "700", "maxmemory": "1000"}, False),
        ({"used_memory": "900", "maxmemory": "0", "total_system_memory": "1000"}, True),
        ({"used_memory": "900", "maxmemory": "0"}, False),
    ],
)
def test_a_redis_that_comes_near_its_memory_is_found(info: dict[str, str], is_full: bool) -> None:
    assert bool(list(check_memory("redis", info))) == is_full
