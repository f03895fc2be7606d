"""The watcher over topics that are lists of bytes, and bundles whose checkpoints are real."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import pytest
from confluent_kafka import Producer
from msgspec.structs import replace
from prometheus_client import Counter, Gauge

from contract.bundle import current_version
from contract.errors import BadConfig, Unavailable
from contract.messages import Example, ScoredRow, to_msgpack
from contract.settings import KafkaSettings, Settings
from devservers.apache_kafka import ApacheKafka
from devservers.embedded import EmbeddedKafka
from model.checkpoint import checkpoint_path
from tests.model.small import FEATURES, TASKS, make_network
from tests.training.examples import DAY_MS
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
from training.monitor.config import MonitorConfig, read_monitor_config
from training.monitor.metrics import MetricsServer
from training.monitor.monitor import ModelMonitor, MonitorReport, to_json
from training.monitor.rollback import Withdrawal, list_withdrawals, write_withdrawal
from transport.records import Record, TopicPartition

SETTINGS = Settings(tasks=TASKS, feedback=FEEDBACK)


class InMemoryTopic:
    """A topic of one partition in memory, read in portions."""

    def __init__(self, limit: int = 500) -> None:
        self.limit, self.values, self.is_away = limit, list[bytes](), False

    def add(self, rows: Sequence[Example | ScoredRow]) -> None:
        self.values += [to_msgpack(row) for row in rows]

    def read(self, positions: Mapping[str, int]) -> RecordChunk:
        if self.is_away:
            raise Unavailable("Kafka should answer. Found silence.")
        partition_offset = positions.get("t/0", 0)
        values = self.values[partition_offset : partition_offset + self.limit]
        records = [
            Record(TopicPartition("t", 0), partition_offset + n, None, value, (), 0) for n, value in enumerate(values)
        ]
        return RecordChunk(
            records, {"t/0": partition_offset + len(values)}, partition_offset + len(values) == len(self.values)
        )


class MonitorHarness:
    """A parent and a bundle that serves, and a watcher of both topics."""

    def __init__(self, bundles: Path, scale: float, watching: MonitorConfig = MONITOR_CONFIG) -> None:
        self.bundles, self.scored, self.feedback = bundles, InMemoryTopic(), InMemoryTopic()
        self.checkpoint = make_checkpoint(make_network(), 10**12)
        self.parent = publish_checkpoint(bundles, self.checkpoint)
        self.network = perturb(self.checkpoint, scale)
        self.version = publish_checkpoint(bundles, make_checkpoint(self.network, 10**12 + 1, self.parent))
        self.watching = watching
        self.watcher = self.make_watcher()

    def make_watcher(self) -> ModelMonitor:
        return ModelMonitor(
            settings=SETTINGS,
            features=FEATURES,
            bundles=self.bundles,
            config=self.watching,
            scored=self.scored,
            feedback=self.feedback,
        )

    def serve_rows(self, rows: int, seed: int = 40) -> None:
        """Rows that the bundle served and of whose labels the parent knows the chances, all final."""
        made, rng = serve_rows(self.network, self.version, rows, seed), np.random.default_rng(seed)
        truth = serve_rows(self.checkpoint.build_network(), self.version, rows, seed)
        for row, parents in zip(made, truth, strict=True):
            happened = {task: float(rng.random() < p) for task, p in parents.served.items() if task in row.labels}
            self.feedback.add([replace(row, labels=row.labels | happened)])
        self.feedback.add([replace(made[0], example_id="last", labels={"click": 0.0}, known_ms={"click": LATER_MS})])


def read_counter(metric: Counter | Gauge, *labels: str) -> float:
    child = metric.labels(*labels) if labels else metric
    return float(child._value.get())


def test_a_harmful_bundle_is_taken_back_loudly_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a bundle that says other things than its parent, which is right
    shop, before = MonitorHarness(tmp_path, 3.0), read_counter(metrics.ROLLBACKS)
    shop.serve_rows(1_000)

    # When its labels have matured
    seen = shop.watcher.check()

    # Then its parent serves again, and everybody can know why
    assert current_version(tmp_path) == shop.parent
    assert seen.withdrawal is not None
    assert seen.withdrawal == list_withdrawals(tmp_path)[0]
    assert to_json(seen)["withdrawn"] == shop.version
    assert read_counter(metrics.ROLLBACKS) == before + 1
    assert f"ROLLBACK: bundle {shop.version} is taken back, {shop.parent} serves again." in capsys.readouterr().err


def test_what_was_gone_back_to_is_left_alone_and_that_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = MonitorHarness(tmp_path, 3.0)
    shop.serve_rows(1_000)
    shop.watcher.check()

    shop.watcher.check()
    shop.watcher.check()

    assert current_version(tmp_path) == shop.parent
    assert capsys.readouterr().err.count("has no parent to be compared with") == 1


def test_a_sound_bundle_serves_on_and_its_figures_are_shown(tmp_path: Path) -> None:
    shop = MonitorHarness(tmp_path, 0.001)
    shop.serve_rows(1_000)

    seen = shop.watcher.check()

    assert current_version(tmp_path) == shop.version
    assert seen.withdrawal is None
    assert seen.test_result is not None
    assert abs(seen.test_result.losses["click"].gain_lost) < 0.01
    click = seen.figures[shop.version]["click"]
    assert click["predicted_to_observed"] == pytest.approx(1, abs=0.15)
    assert read_counter(metrics.LIVE_METRIC, "click", shop.version, "auc") == click["auc"]
    assert read_counter(metrics.GAIN_LOST, "click") == seen.test_result.losses["click"].gain_lost
    assert {"recall_review", "fpr_review"} <= set(seen.figures[shop.version]["fraud"])


def test_a_parent_without_its_checkpoint_is_said_and_nothing_happens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = MonitorHarness(tmp_path, 3.0)
    checkpoint_path(tmp_path, shop.parent).unlink()
    shop.serve_rows(1_000)

    seen = shop.watcher.check()

    assert current_version(tmp_path) == shop.version
    assert seen.figures[shop.version]
    assert f"{shop.parent}.pt should be a checkpoint" in " ".join(capsys.readouterr().err.split())


def test_a_watcher_that_may_not_act_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = MonitorHarness(tmp_path, 3.0, replace(MONITOR_CONFIG, rollback=False))
    shop.serve_rows(1_000)

    shop.watcher.check()

    assert current_version(tmp_path) == shop.version
    assert "is worse than its parent and stays" in capsys.readouterr().err


def test_a_parent_that_is_damaged_is_said_and_the_bundle_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = MonitorHarness(tmp_path, 3.0)
    (tmp_path / shop.parent / "decide.onnx").write_bytes(b"cut")
    shop.serve_rows(1_000)

    shop.watcher.check()

    assert current_version(tmp_path) == shop.version
    assert "cannot be taken back" in capsys.readouterr().err


def test_what_a_dead_watcher_had_decided_is_carried_out(tmp_path: Path) -> None:
    shop = MonitorHarness(tmp_path, 3.0)
    write_withdrawal(tmp_path, Withdrawal(version=shop.version, to=shop.parent, reasons=("worse",), decided_ms=1))

    shop.watcher.check()

    assert current_version(tmp_path) == shop.parent


@pytest.mark.parametrize(
    ("content", "shown"), [(b'{"frozen": true, "examples": 3}', 1), (b'{"frozen": false}', 0), (b"", 0)]
)
def test_a_frozen_learner_is_shown(tmp_path: Path, content: bytes, shown: int) -> None:
    shop = MonitorHarness(tmp_path, 0.1)
    (tmp_path / "learner.json").write_bytes(content)

    shop.watcher.check()

    assert read_counter(metrics.LEARNER_FROZEN) == shown


def test_without_a_bundle_there_is_nothing_to_judge_and_that_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = MonitorHarness(tmp_path, 0.1)
    (tmp_path / "current.json").unlink()

    shop.watcher.check()
    shop.watcher.check()

    assert capsys.readouterr().err.count("no present bundle yet") == 1


def test_a_broken_pointer_is_said_and_figures_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = MonitorHarness(tmp_path, 0.1)
    (tmp_path / "current.json").write_text("junk")
    shop.serve_rows(300)

    assert shop.watcher.check().figures
    assert "current.json should name a version" in capsys.readouterr().err


def test_what_cannot_be_read_is_counted_and_left_out(tmp_path: Path) -> None:
    shop = MonitorHarness(tmp_path, 0.1)
    before = [read_counter(metrics.LEFT_OUT, why) for why in ("unreadable", "of other features")]
    shop.feedback.values += [b"junk"]
    shop.scored.values += [b"junk", to_msgpack(make_scored_row(0, features="another"))]

    shop.watcher.check()

    after = [read_counter(metrics.LEFT_OUT, why) for why in ("unreadable", "of other features")]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1]


def test_a_topic_is_read_to_its_end_in_portions_and_from_there_at_the_next_look(tmp_path: Path) -> None:
    shop = MonitorHarness(tmp_path, 0.001)
    shop.serve_rows(1_234)
    before = read_counter(metrics.RECORDS, "feedback")

    shop.watcher.check()
    shop.watcher.check()

    assert read_counter(metrics.RECORDS, "feedback") == before + 1_235


def test_a_kafka_that_is_away_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop, shown = MonitorHarness(tmp_path, 0.001), MonitorReport()
    shop.serve_rows(300)
    shop.feedback.is_away = True

    assert check_with_retry(shop.watcher, SETTINGS, MONITOR_CONFIG, shown) is shown
    assert "Trying again in 10 s" in capsys.readouterr().err

    shop.feedback.is_away = False
    seen = check_with_retry(shop.watcher, SETTINGS, MONITOR_CONFIG, shown)
    assert seen.figures
    assert "by labels that have" in capsys.readouterr().err
    check_with_retry(shop.watcher, SETTINGS, MONITOR_CONFIG, seen)
    assert capsys.readouterr().err == ""  # what was shown is not shown again


def make_scored_row(n: int, amount: float = 1.0, features: str = FEATURES.digest) -> ScoredRow:
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
        scores={"fraud": (amount * np.random.default_rng(n).random(),)},
    )


def test_an_alarm_of_drift_is_said_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop, before = MonitorHarness(tmp_path, 0.001), read_counter(metrics.DRIFT_ALARMS, "order", "score.fraud")
    shop.scored.add([make_scored_row(n, 1.0 if n < 200 else 0.1) for n in range(300)])

    (alarm,) = shop.watcher.check().alarms

    assert (alarm.kind, alarm.column) == ("order", "score.fraud")
    assert read_counter(metrics.DRIFT_ALARMS, "order", "score.fraud") == before + 1
    assert read_counter(metrics.DRIFT_BLOCKS, "order") >= 2
    assert "`score.fraud` of order rows is not what it was" in capsys.readouterr().err
    assert shop.watcher.check().alarms == []


def test_settings_that_nobody_knows_are_refused() -> None:
    assert read_monitor_config({"rollback": 0, "pause_s": 2}) == MonitorConfig(rollback=False, pause_s=2.0)
    for table in ({"looks": 3}, {"risk": 2.0}, {"block": 5}):
        with pytest.raises(BadConfig, match=r"\[watch\] should say how to watch"):
            read_monitor_config(table)


def test_metrics_are_served_until_closed_and_a_port_that_is_taken_is_told() -> None:
    one = MetricsServer(port=0)
    try:
        with urlopen(f"http://127.0.0.1:{one.port}/metrics", timeout=5) as reply:
            assert b"shopstream_watch_looks_total" in reply.read()
        with pytest.raises(BadConfig, match=r"`watch.http_port` should be free"):
            MetricsServer(port=one.port)
    finally:
        one.close()


def produce_values(broker: EmbeddedKafka | ApacheKafka, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for value in values:
        producer.produce(topic, value, partition=0)
    producer.flush()


def test_a_topic_of_kafka_is_read_in_portions(broker: EmbeddedKafka | ApacheKafka, topic: str) -> None:
    values = [f"{n}".encode() for n in range(4_500)]
    produce_values(broker, topic, values)
    feed = ChunkedReader(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap), topic=topic, limit=2_000)
    latest = ChunkedReader(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap), topic=topic, limit=2_000, tail=100)
    try:
        first = feed.read({})
        second = feed.read(first.positions)
        third = feed.read(second.positions)
        rest = feed.read(third.positions)
        last = latest.read({})
    finally:
        feed.close()
        latest.close()

    portions = [first, second, third, rest]
    records = [record for portion in portions for record in portion.records]
    assert [record.value for record in records] == values
    assert [(record.topic_partition.partition, record.offset) for record in records] == [(0, n) for n in range(4_500)]
    assert [portion.is_last for portion in portions] == [False, False, True, True]
    assert max(len(portion.records) for portion in portions) < 3_500
    assert [record.value for record in last.records] == values[-100:]


def test_the_command_looks_once_and_ends_with_a_line_of_json(
    embedded_kafka: EmbeddedKafka, tmp_path: Path, topic_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = {"scored": f"{topic_prefix}scored", "feedback": f"{topic_prefix}feedback"}
    embedded_kafka.create_topics(dict.fromkeys(topics.values(), 4))
    kafka = {"bootstrap_servers": embedded_kafka.bootstrap}
    watch = {"window_s": MONITOR_CONFIG.window_s}
    settings = Settings.model_validate(
        {"tasks": TASKS, "feedback": FEEDBACK, "topics": topics, "kafka": kafka, "watch": watch}
    )
    shop = MonitorHarness(tmp_path, 0.001)
    shop.serve_rows(50)
    produce_values(embedded_kafka, topics["feedback"], shop.feedback.values)

    assert run(parse_arguments(["watch", "--once", "--bundles", f"{tmp_path}"]), settings, FEATURES) == 0

    line = capsys.readouterr().out
    assert '"withdrawn": null' in line
    assert shop.version in line
