"""The guarantees of state across faults: two workers meet what can go wrong, and every slice is still exact."""

from pathlib import Path

import pytest

from bench.state import ALL_DEATHS, Matrix, Run
from demo.servers.apache_kafka import ApacheKafka
from demo.servers.redis_server import RedisServer

FEW = (
    ALL_DEATHS,
    "FLUSHALL while idle",
    "zombie before publishing",
    "retention overtakes",
    "record cut short",
    "mixed",
)


@pytest.mark.apache_kafka
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FEW)
def test_after_a_fault_every_answer_is_out_and_every_slice_is_what_the_log_says(
    apache_kafka: ApacheKafka, topic_prefix: str, tmp_path: Path, seed: int, name: str
) -> None:
    # given
    with RedisServer() as redis:
        matrix = Matrix(kafka=apache_kafka, redis=redis, folder=tmp_path, told=print)
        # when
        outcome = matrix.play([Run(name, seed)], topic_prefix)
    # then
    assert (outcome.runs, outcome.failed) == (1, 0)
    assert (outcome.mismatches, outcome.lost, outcome.conflicting) == (0, 0, 0)
    assert outcome.slices > 100
