"""The model monitor over in-memory topics and real checkpoints, and its readers over Kafka."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from msgspec.structs import replace
from prometheus_client import Counter, Gauge

from contract.bundle import current_version
from contract.errors import Unavailable
from contract.messages import Example, ScoredRow, to_msgpack
from contract.settings.monitor import MonitorConfig
from contract.settings.reading import Settings
from contract.units import DAY_MS
from devservers.apache_kafka import ApacheKafka
from devservers.embedded import EmbeddedKafka
from model.checkpoint import checkpoint_path
from tests.kafka import BlockingProducer, make_settings
from tests.model.small import FEATURES, TASKS, make_network
from tests.training.served_rows import (
    FEEDBACK,
    LATER_MS,
    MONITOR_CONFIG,
    make_checkpoint,
    perturb,
    publish_checkpoint,
    serve_rows,
)
from training.__main__ import parse_arguments
from training.commands.watch import check_with_retry, run
from training.feedback.chunked_reader import ChunkedReader, RecordChunk
from training.monitor import metrics
from training.monitor.metrics import MetricsServer
from training.monitor.monitor import ModelMonitor, MonitorReport, to_json
from training.monitor.rollback import Withdrawal, list_withdrawals, write_withdrawal
from transport.records import Record, TopicPartition

SETTINGS = Settings(tasks=TASKS, feedback=FEEDBACK)


class InMemoryTopic:
    """A topic of one partition in memory, read in chunks."""

    def __init__(self, limit: int = 500) -> None:
        self.limit = limit
        self.values = list[bytes]()
        self.is_unavailable = False

    def add(self, rows: Sequence[Example | ScoredRow]) -> None:
        self.values += [to_msgpack(row) for row in rows]

    def read(self, positions: Mapping[str, int]) -> RecordChunk:
        if self.is_unavailable:
            raise Unavailable("Kafka should answer. Found a timeout.")
        begin = positions.get("t/0", 0)
        values = self.values[begin : begin + self.limit]
        end = begin + len(values)
        partition = TopicPartition("t", 0)
        records = [Record(partition, begin + n, None, value, (), 0) for n, value in enumerate(values)]
        return RecordChunk(records, {"t/0": end}, end == len(self.values))


class MonitorHarness:
    """A serving bundle, its parent, and a monitor of both topics."""

    def __init__(self, bundles: Path, scale: float, config: MonitorConfig = MONITOR_CONFIG) -> None:
        self.bundles, self.scored, self.feedback = bundles, InMemoryTopic(), InMemoryTopic()
        self.checkpoint = make_checkpoint(make_network(), 10**12)
        self.parent = publish_checkpoint(bundles, self.checkpoint)
        self.network = perturb(self.checkpoint, scale)
        self.version = publish_checkpoint(bundles, make_checkpoint(self.network, 10**12 + 1, self.parent))
        self.config = config
        self.monitor = self.make_monitor()

    def make_monitor(self) -> ModelMonitor:
        return ModelMonitor(
            settings=SETTINGS,
            features=FEATURES,
            bundles=self.bundles,
            config=self.config,
            scored=self.scored,
            feedback=self.feedback,
        )

    def serve_rows(self, rows: int, seed: int = 40) -> None:
        """Serve rows with final labels, drawn from the probabilities of the parent."""
        served, rng = serve_rows(self.network, self.version, rows, seed), np.random.default_rng(seed)
        by_parent = serve_rows(self.checkpoint.build_network(), self.version, rows, seed)
        for row, parent_row in zip(served, by_parent, strict=True):
            labels = {task: float(rng.random() < p) for task, p in parent_row.served.items() if task in row.labels}
            self.feedback.add([replace(row, labels=row.labels | labels)])
        self.feedback.add([replace(served[0], example_id="last", labels={"click": 0.0}, known_ms={"click": LATER_MS})])


def read_metric(metric: Counter | Gauge, *labels: str) -> float:
    child = metric.labels(*labels) if labels else metric
    (family,) = child.collect()
    return float(family.samples[0].value)


def test_a_harmful_bundle_is_rolled_back_reported_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # given a bundle that differs from its calibrated parent
    harness, before = MonitorHarness(tmp_path, 3.0), read_metric(metrics.ROLLBACKS)
    harness.serve_rows(1_000)

    # when its labels have matured
    report = harness.monitor.check()

    # then its parent serves again, and the reasons are recorded
    assert current_version(tmp_path) == harness.parent
    assert report.withdrawal is not None
    assert report.withdrawal == list_withdrawals(tmp_path)[0]
    assert to_json(report)["withdrawn"] == harness.version
    assert read_metric(metrics.ROLLBACKS) == before + 1
    message = f"ROLLBACK: bundle {harness.version} is withdrawn, {harness.parent} serves again."
    assert [record.levelname for record in caplog.records if message in record.message] == ["ERROR"]


def test_the_target_of_a_rollback_stays_and_this_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    harness = MonitorHarness(tmp_path, 3.0)
    harness.serve_rows(1_000)
    harness.monitor.check()

    harness.monitor.check()
    harness.monitor.check()

    assert current_version(tmp_path) == harness.parent
    assert caplog.text.count("has no parent to compare it with") == 1


def test_a_sound_bundle_stays_and_its_metrics_are_exported(tmp_path: Path) -> None:
    harness = MonitorHarness(tmp_path, 0.001)
    harness.serve_rows(1_000)

    report = harness.monitor.check()

    assert current_version(tmp_path) == harness.version
    assert report.withdrawal is None
    assert report.test_result is not None
    assert abs(report.test_result.losses["click"].gain_lost) < 0.01
    click = report.figures[harness.version]["click"]
    assert click["predicted_to_observed"] == pytest.approx(1, abs=0.15)
    assert read_metric(metrics.LIVE_METRIC, "click", harness.version, "auc") == click["auc"]
    assert read_metric(metrics.GAIN_LOST, "click") == report.test_result.losses["click"].gain_lost
    assert {"recall_review", "fpr_review"} <= set(report.figures[harness.version]["fraud"])


def test_a_missing_parent_checkpoint_is_logged_and_the_bundle_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    harness = MonitorHarness(tmp_path, 3.0)
    checkpoint_path(tmp_path, harness.parent).unlink()
    harness.serve_rows(1_000)

    report = harness.monitor.check()

    assert current_version(tmp_path) == harness.version
    assert report.figures[harness.version]
    assert f"{harness.parent}.pt should be a checkpoint" in caplog.text


def test_with_rollback_off_a_worse_bundle_is_only_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    harness = MonitorHarness(tmp_path, 3.0, MONITOR_CONFIG.model_copy(update={"rollback": False}))
    harness.serve_rows(1_000)

    harness.monitor.check()

    assert current_version(tmp_path) == harness.version
    assert "is worse than its parent and stays" in caplog.text


def test_a_damaged_parent_is_reported_and_the_bundle_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    harness = MonitorHarness(tmp_path, 3.0)
    (tmp_path / harness.parent / "decide.onnx").write_bytes(b"cut")
    harness.serve_rows(1_000)

    harness.monitor.check()

    assert current_version(tmp_path) == harness.version
    assert [record.levelname for record in caplog.records if "cannot be rolled back" in record.message] == ["ERROR"]


def test_a_withdrawal_recorded_before_a_crash_is_completed(tmp_path: Path) -> None:
    harness = MonitorHarness(tmp_path, 3.0)
    write_withdrawal(tmp_path, Withdrawal(version=harness.version, to=harness.parent, reasons=("worse",), decided_ms=1))

    harness.monitor.check()

    assert current_version(tmp_path) == harness.parent


@pytest.mark.parametrize(
    ("content", "value"), [(b'{"frozen": true, "examples": 3}', 1), (b'{"frozen": false}', 0), (b"", 0)]
)
def test_a_frozen_learner_is_exported_as_metric(tmp_path: Path, content: bytes, value: int) -> None:
    harness = MonitorHarness(tmp_path, 0.1)
    (tmp_path / "learner.json").write_bytes(content)

    harness.monitor.check()

    assert read_metric(metrics.LEARNER_FROZEN) == value


def test_without_a_serving_bundle_a_message_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    harness = MonitorHarness(tmp_path, 0.1)
    (tmp_path / "current.json").unlink()

    with caplog.at_level(logging.INFO):
        harness.monitor.check()
        harness.monitor.check()

    assert caplog.text.count("no serving bundle yet") == 1


def test_a_broken_pointer_is_logged_and_metrics_continue(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    harness = MonitorHarness(tmp_path, 0.1)
    (tmp_path / "current.json").write_text("junk")
    harness.serve_rows(300)

    assert harness.monitor.check().figures
    assert "current.json should name a version" in caplog.text


def test_unusable_records_are_counted_and_left_out(tmp_path: Path) -> None:
    harness = MonitorHarness(tmp_path, 0.1)
    reasons = ("unreadable", "of other features")
    before = [read_metric(metrics.LEFT_OUT, reason) for reason in reasons]
    harness.feedback.values += [b"junk"]
    harness.scored.values += [b"junk", to_msgpack(make_scored_row(0, features="another"))]

    harness.monitor.check()

    after = [read_metric(metrics.LEFT_OUT, reason) for reason in reasons]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1]


def test_each_check_reads_a_topic_from_the_last_position_to_its_end(tmp_path: Path) -> None:
    harness = MonitorHarness(tmp_path, 0.001)
    harness.serve_rows(1_234)
    before = read_metric(metrics.RECORDS, "feedback")

    harness.monitor.check()
    harness.monitor.check()

    assert read_metric(metrics.RECORDS, "feedback") == before + 1_235


def test_an_unavailable_kafka_is_retried(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    harness, former = MonitorHarness(tmp_path, 0.001), MonitorReport()
    harness.serve_rows(300)
    harness.feedback.is_unavailable = True

    assert check_with_retry(harness.monitor, SETTINGS, MONITOR_CONFIG, former) is former
    assert "Trying again in 10 s" in caplog.text

    harness.feedback.is_unavailable = False
    report = check_with_retry(harness.monitor, SETTINGS, MONITOR_CONFIG, former)
    assert report.figures
    assert "on matured labels" in capsys.readouterr().err
    check_with_retry(harness.monitor, SETTINGS, MONITOR_CONFIG, report)
    assert capsys.readouterr().err == ""  # unchanged metrics are not printed again


def make_scored_row(n: int, scale: float = 1.0, features: str = FEATURES.digest) -> ScoredRow:
    return ScoredRow(
        event_id=f"o{n}",
        kind="order",
        user_id=f"u{n}",
        ts_ms=n * DAY_MS,
        topic="shop.orders",
        partition=0,
        offset=n,
        model_version="b",
        features=features,
        groups={},
        scores={"fraud": (scale * np.random.default_rng(n).random(),)},
    )


def test_a_drift_alarm_is_logged_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    harness, before = MonitorHarness(tmp_path, 0.001), read_metric(metrics.DRIFT_ALARMS, "order", "score.fraud")
    harness.scored.add([make_scored_row(n, 1.0 if n < 200 else 0.1) for n in range(300)])

    (alarm,) = harness.monitor.check().alarms

    assert (alarm.kind, alarm.column) == ("order", "score.fraud")
    assert read_metric(metrics.DRIFT_ALARMS, "order", "score.fraud") == before + 1
    assert read_metric(metrics.DRIFT_BLOCKS, "order") >= 2
    assert "the distribution of `score.fraud` in order rows changed" in caplog.text
    assert harness.monitor.check().alarms == []


def test_metrics_are_served_until_closed_and_on_the_next_port_if_one_is_in_use() -> None:
    server = MetricsServer(port=0)
    try:
        with urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as reply:
            assert b"shopstream_watch_looks_total" in reply.read()
        second = MetricsServer(port=server.port)
        second.close()
        assert second.port > server.port
    finally:
        server.close()


def produce_values(broker: EmbeddedKafka | ApacheKafka, topic: str, values: list[bytes]) -> None:
    with BlockingProducer(broker.bootstrap) as producer:
        producer.send(topic, [(None, value) for value in values], partition=0)


def test_a_kafka_topic_is_read_in_chunks(broker: EmbeddedKafka | ApacheKafka, topic: str) -> None:
    values = [f"{n}".encode() for n in range(4_500)]
    produce_values(broker, topic, values)
    kafka = make_settings(broker)
    feed = ChunkedReader(kafka=kafka, topic=topic, limit=2_000)
    latest = ChunkedReader(kafka=kafka, topic=topic, limit=2_000, tail=100)
    try:
        first = feed.read({})
        second = feed.read(first.positions)
        third = feed.read(second.positions)
        rest = feed.read(third.positions)
        last = latest.read({})
    finally:
        feed.close()
        latest.close()

    chunks = [first, second, third, rest]
    records = [record for chunk in chunks for record in chunk.records]
    assert [record.value for record in records] == values
    assert [(record.topic_partition.partition, record.offset) for record in records] == [(0, n) for n in range(4_500)]
    assert [chunk.is_last for chunk in chunks] == [False, False, True, True]
    assert max(len(chunk.records) for chunk in chunks) < 3_500
    assert [record.value for record in last.records] == values[-100:]


def test_the_command_checks_once_and_prints_a_line_of_json(
    embedded_kafka: EmbeddedKafka, tmp_path: Path, topic_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = {"scored": f"{topic_prefix}scored", "feedback": f"{topic_prefix}feedback"}
    embedded_kafka.create_topics(dict.fromkeys(topics.values(), 4))
    kafka = {"bootstrap_servers": embedded_kafka.bootstrap, "topic_ids": False}
    watch = {"window_s": MONITOR_CONFIG.window_s}
    settings = Settings.model_validate(
        {"tasks": TASKS, "feedback": FEEDBACK, "topics": topics, "kafka": kafka, "watch": watch}
    )
    harness = MonitorHarness(tmp_path, 0.001)
    harness.serve_rows(50)
    produce_values(embedded_kafka, topics["feedback"], harness.feedback.values)

    assert run(parse_arguments(["watch", "--once", "--bundles", f"{tmp_path}"]), settings, FEATURES) == 0

    line = capsys.readouterr().out
    assert '"withdrawn": null' in line
    assert harness.version in line


class PartitionedTopic:
    """Two partitions with rows of the same times, read in chunks of one partition's first rows after the other's."""

    def __init__(self, rows: list[ScoredRow], limit: int) -> None:
        self.parts, self.limit = [rows[0::2], rows[1::2]], limit

    def read(self, positions: Mapping[str, int]) -> RecordChunk:
        records, ends = list[Record](), dict[str, int]()
        for number, rows in enumerate(self.parts):
            partition = TopicPartition("t", number)
            begin = positions.get(str(partition), 0)
            ends[str(partition)] = min(begin + self.limit, len(rows))
            records += [
                Record(partition, n, None, to_msgpack(rows[n]), (), 0) for n in range(begin, ends[str(partition)])
            ]
        return RecordChunk(records, ends, all(ends[f"t/{n}"] == len(rows) for n, rows in enumerate(self.parts)))


def test_rows_of_several_partitions_are_tested_in_the_order_of_their_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness, seen = MonitorHarness(tmp_path, 0.0), list[int]()
    rows = [make_scored_row(n) for n in range(90)]
    harness.scored = PartitionedTopic(rows, limit=7)  # type: ignore[assignment]
    monitor = harness.make_monitor()
    monkeypatch.setattr(monitor, "_observe_scored", lambda row: seen.append(row.ts_ms))

    monitor.check()

    assert seen == sorted(row.ts_ms for row in rows)


def test_a_row_from_the_future_does_not_stop_drift_detection(tmp_path: Path) -> None:
    harness, before = MonitorHarness(tmp_path, 0.0), read_metric(metrics.LEFT_OUT, "from the future")
    row = make_scored_row(1)
    late = replace(row, ts_ms=row.ts_ms + 86_400_000)
    records = [Record(TopicPartition("t", 0), n, None, to_msgpack(r), (), row.ts_ms) for n, r in enumerate([row, late])]
    harness.scored.read = lambda positions: RecordChunk(records, {"t/0": 2}, True)  # type: ignore[method-assign]

    harness.make_monitor().check()

    assert read_metric(metrics.LEFT_OUT, "from the future") - before == 1


def test_a_restarted_monitor_raises_no_alarm_twice(tmp_path: Path) -> None:
    harness = MonitorHarness(tmp_path, 0.001)
    harness.scored.add([make_scored_row(n, 1.0 if n < 200 else 0.1) for n in range(300)])
    alarms = harness.make_monitor().check().alarms

    repeated_alarms = harness.make_monitor().check().alarms
    harness.scored.add([make_scored_row(n, 0.7) for n in range(300, 450)])
    later_alarms = harness.make_monitor().check().alarms

    assert [alarm.column for alarm in alarms] == ["score.fraud"]
    assert repeated_alarms == []
    assert [alarm.column for alarm in later_alarms] == ["score.fraud"]
    assert later_alarms[0].ts_ms > alarms[0].ts_ms
