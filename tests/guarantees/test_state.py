"""Guarantees of the state under faults: every slice stays exact and every event is answered."""

from pathlib import Path

import pytest

from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.environment.run_environment import RunEnvironment
from testkit.faults.runner import KILL_AT_EACH_STEP, MatrixRun, run_scenario

FEW_FAULTS = (
    KILL_AT_EACH_STEP,
    "FLUSHALL while idle",
    "zombie before publishing",
    "retention overtakes",
    "record cut short",
    "mixed",
)


@pytest.mark.apache_kafka
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FEW_FAULTS)
def test_after_a_fault_every_event_is_answered_and_every_slice_is_exact(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path, seed: int, name: str
) -> None:
    # given
    with RedisServer() as redis:
        environment = RunEnvironment(kafka=apache_kafka, redis=redis, folder=tmp_path, prefix=topic_prefix)
        # when
        result = run_scenario(MatrixRun(name, seed), environment)
    # then
    assert (result.failed, result.sentences) == (False, [])
    assert (result.mismatches, result.lost, result.conflicting) == (0, 0, 0)
    assert result.slices > 100
