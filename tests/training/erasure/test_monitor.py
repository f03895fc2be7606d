"""The monitor forgets erased people in all that it keeps in memory, and does not observe them again."""

from pathlib import Path

from contract.events.model import Erasure
from contract.messages import Example
from contract.profiles.erasures import Erasures
from tests.training.monitor.test_monitor import MonitorHarness, make_scored_row, read_metric
from training.monitor import metrics
from training.monitor.monitor import ModelMonitor

LATE_MS = 4_000_000_000_000


def list_examples(monitor: ModelMonitor) -> list[Example]:
    return [row for store in monitor._live_metrics._stores.values() for row in store]


def list_sampled_users(monitor: ModelMonitor) -> set[str]:
    return {row.user_id for block in monitor._drift_detector._open_blocks.values() for row in block}


def test_the_monitor_forgets_what_it_has_observed(tmp_path: Path) -> None:
    # given
    harness = MonitorHarness(tmp_path, 0.0)
    harness.serve_rows(200)
    harness.scored.add([make_scored_row(n) for n in range(50)])
    harness.monitor.check()
    user = list_examples(harness.monitor)[0].user_id
    sampled = next(iter(list_sampled_users(harness.monitor)))
    # when
    users = [Erasure(event_id=name, user_id=name, ts_ms=LATE_MS) for name in (user, sampled)]
    assert harness.monitor.erase(Erasures(users), True)
    # then
    remaining = {example.user_id for example in list_examples(harness.monitor)}
    assert remaining
    assert user not in remaining
    assert sampled not in list_sampled_users(harness.monitor)


def test_records_of_an_erased_person_are_not_observed(tmp_path: Path) -> None:
    # given a monitor that knows the erasure before it reads the topics
    harness, before = MonitorHarness(tmp_path, 0.0), read_metric(metrics.LEFT_OUT, "of erased people")
    harness.serve_rows(200)
    row = make_scored_row(7)
    harness.scored.add([row])
    user = "u1"
    harness.monitor.erase(Erasures([Erasure(event_id=n, user_id=n, ts_ms=LATE_MS) for n in (user, row.user_id)]), True)
    # when
    harness.monitor.check()
    # then
    assert list_examples(harness.monitor)
    assert user not in {example.user_id for example in list_examples(harness.monitor)}
    assert row.user_id not in list_sampled_users(harness.monitor)
    assert read_metric(metrics.LEFT_OUT, "of erased people") > before
