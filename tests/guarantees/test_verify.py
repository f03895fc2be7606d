"""Guarantees across processes: a verification under traffic finds every injected error and nothing else."""

from itertools import cycle
from pathlib import Path

import pytest

from bench.guarantees.verify import VerifyOutcome, VerifyRound
from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.audits.injected_errors import ERROR_KINDS
from testkit.environment.run_environment import RunEnvironment


@pytest.mark.apache_kafka
@pytest.mark.timeout(300)
def test_a_verification_under_traffic_finds_each_injected_error_and_nothing_else(
    apache_kafka: ApacheKafka, redis_server: RedisServer, topic_prefix: str, tmp_path: Path, seed: int
) -> None:
    # given
    redis_server.flush()
    environment = RunEnvironment(kafka=apache_kafka, redis=redis_server, folder=tmp_path, prefix=topic_prefix)
    outcome = VerifyOutcome()
    # when
    round_ = VerifyRound(environment=environment, rate=300, seed=seed, kinds=cycle(ERROR_KINDS), outcome=outcome)
    round_.run(looks=26, errors=16, events_max=10**9)
    # then
    assert (outcome.false, outcome.errors_found) == (0, 16)
    assert outcome.injected == dict.fromkeys(ERROR_KINDS, 2)
    assert outcome.slices > 0
