"""Guarantees across processes: workers of both lanes are killed by SIGKILL while events flow."""

from pathlib import Path

import pytest

from devservers.apache_kafka import ApacheKafka
from devservers.redis_server import RedisServer
from testkit.environment.run_environment import RunEnvironment
from testkit.kills.score_worker_kills import KillPlan, KillRun


@pytest.mark.apache_kafka
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("transactions", "events", "kills"), [(True, 750, 6), (False, 400, 4)], ids=["transactions", "no transactions"]
)
def test_killed_workers_lose_nothing_and_keep_profiles_exact(
    apache_kafka: ApacheKafka,
    redis_server: RedisServer,
    topic_prefix: str,
    tmp_path: Path,
    seed: int,
    transactions: bool,
    events: int,
    kills: int,
) -> None:
    # given
    environment = RunEnvironment(
        kafka=apache_kafka, redis=redis_server, folder=tmp_path, prefix=topic_prefix, transactions=transactions
    )
    plan = KillPlan(orders=events, clicks=events, kills=kills, seed=seed)
    # when
    outcome = KillRun(environment=environment, plan=plan, report=print).run()
    # then
    assert (outcome.lost, outcome.conflicting, outcome.profile_mismatches) == (0, 0, 0)
    assert outcome.orders >= events
    assert outcome.clicks >= events
    assert outcome.profiles > 1_000
    assert outcome.bad_records > 0
    assert outcome.kills_in_hand >= kills // 2
    if transactions:
        assert outcome.duplicates == 0, "read-committed consumers should see each answer once"
