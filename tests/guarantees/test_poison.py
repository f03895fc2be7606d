"""Guarantees across processes: odd records of every kind end no worker, and each is answered or a dead letter."""

from pathlib import Path

import pytest

from bench.guarantees.poison.corpus import make_corpus
from bench.guarantees.poison.live_run import LiveRun
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.environment.run_environment import RunEnvironment


@pytest.mark.apache_kafka
@pytest.mark.timeout(400)
def test_no_odd_record_ends_a_worker_or_goes_unanswered(
    apache_kafka: ApacheKafka, redis_server: RedisServer, topic_prefix: str, tmp_path: Path, seed: int
) -> None:
    # given
    redis_server.flush()
    environment = RunEnvironment(kafka=apache_kafka, redis=redis_server, folder=tmp_path, prefix=topic_prefix)
    corpus = list(make_corpus())
    run = LiveRun(
        environment=environment,
        seed=seed,
        mutated=500,
        pairs=1,
        backlog=500,
        report=print,
        corpus=corpus[seed % 10 :: 10],
    )
    # when
    outcome = run.run()
    # then
    assert (outcome.restarts, outcome.unanswered, outcome.refused) == (0, 0, 0)
    assert outcome.dead_letters > 500
    assert outcome.clean_share > 0
