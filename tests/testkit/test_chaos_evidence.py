"""Tests of what a failed chaos run leaves behind."""

import json
import random
from pathlib import Path

import pytest

from devservers.apache_kafka import ApacheKafka, unavailable_reason
from devservers.redis_server import RedisServer
from testkit.chaos.evidence import keep_evidence
from testkit.chaos.fleet import Fleet
from testkit.chaos.scene import Scene
from testkit.chaos.shop_traffic import ShopTraffic
from testkit.environment.run_environment import RunEnvironment


@pytest.mark.apache_kafka
def test_the_evidence_holds_each_record_where_its_event_is_said_to_be(tmp_path: Path, seed: int) -> None:
    # given
    if reason := unavailable_reason():
        pytest.skip(reason)
    with ApacheKafka() as kafka, RedisServer() as redis:
        environment = RunEnvironment(kafka=kafka, redis=redis, folder=tmp_path)
        environment.create_topics()
        traffic = ShopTraffic(environment=environment, seed=seed, events_per_s=1.0)
        fleet = Fleet(environment=environment, variables={}, workers_per_lane=0, joiners=0)
        scene = Scene(
            environment=environment, kafka=kafka, fleet=fleet, traffic=traffic, rng=random.Random(seed), report=print
        )
        traffic.producers["orders"].send(20)
        traffic.flush()
        # when
        folder = keep_evidence(scene, ["order orders-1 has no decision"])
    # then
    assert (folder / "lagging.txt").read_text() == "order orders-1 has no decision\n"
    assert (folder / "redis.rdb").read_bytes().startswith((b"REDIS", b"VALKEY"))
    produced = [json.loads(line) for line in (folder / "produced.jsonl").read_text().splitlines()]
    assert len(produced) >= 20  # reviews and judgements come with some orders
    for line in (line for line in produced if line["reason"] is None):
        segment = folder / "kafka" / f"{line['topic']}-{line['partition']}" / f"{0:020d}.log"
        assert line["id"].encode() in segment.read_bytes()
