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
from contract.rows import Example, Scored, to_msgpack
from contract.settings import Kafka, Settings
from demo.servers.apache_kafka import ApacheKafka
from demo.servers.embedded import EmbeddedKafka
from model.checkpoint import path_of
from tests.model.small import FEATURES, TASKS, make_network
from tests.training.made import DAY_MS
from tests.training.served import FEEDBACK, LATER_MS, WATCHING, checkpoint_of, published, served, shaken
from training import telemetry
from training.__main__ import parse
from training.commands.watch import look_patiently, run
from training.portions import Portion, Portions
from training.rollback import Withdrawn, keep, withdrawn
from training.telemetry import Served
from training.topic import Record
from training.watch import Seen, Watcher, told
from training.watching import Watching, read_watching

SETTINGS = Settings(tasks=TASKS, feedback=FEEDBACK)


class Log:
    """A topic of one partition in memory, read in portions."""

    def __init__(self, most: int = 500) -> None:
        self.most, self.values, self.is_away = most, list[bytes](), False

    def add(self, rows: Sequence[Example | Scored]) -> None:
        self.values += [to_msgpack(row) for row in rows]

    def read(self, positions: Mapping[str, int]) -> Portion:
        if self.is_away:
            raise Unavailable("Kafka should answer. Found silence.")
        at = positions.get("t/0", 0)
        found = self.values[at : at + self.most]
        records = [Record(0, at + n, value, 0) for n, value in enumerate(found)]
        return Portion(records, {"t/0": at + len(found)}, at + len(found) == len(self.values))


class Shop:
    """A parent and a bundle that serves, and a watcher of both topics."""

    def __init__(self, bundles: Path, by: float, watching: Watching = WATCHING) -> None:
        self.bundles, self.scored, self.feedback = bundles, Log(), Log()
        self.checkpoint = checkpoint_of(make_network(), 10**12)
        self.parent = published(bundles, self.checkpoint)
        self.network = shaken(self.checkpoint, by)
        self.version = published(bundles, checkpoint_of(self.network, 10**12 + 1, self.parent))
        self.watching = watching
        self.watcher = self.watch()

    def watch(self) -> Watcher:
        return Watcher(
            settings=SETTINGS,
            features=FEATURES,
            bundles=self.bundles,
            watching=self.watching,
            scored=self.scored,
            feedback=self.feedback,
        )

    def serve(self, rows: int, seed: int = 40) -> None:
        """Rows that the bundle served and of whose labels the parent knows the chances, all final."""
        made, chance = served(self.network, self.version, rows, seed), np.random.default_rng(seed)
        truth = served(self.checkpoint.network(), self.version, rows, seed)
        for row, parents in zip(made, truth, strict=True):
            happened = {task: float(chance.random() < p) for task, p in parents.served.items() if task in row.labels}
            self.feedback.add([replace(row, labels=row.labels | happened)])
        self.feedback.add([replace(made[0], example_id="last", labels={"click": 0.0}, known_ms={"click": LATER_MS})])


def counted(metric: Counter | Gauge, *labels: str) -> float:
    child = metric.labels(*labels) if labels else metric
    return float(child._value.get())


def test_a_harmful_bundle_is_taken_back_loudly_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # Given a bundle that says other things than its parent, which is right
    shop, before = Shop(tmp_path, 3.0), counted(telemetry.ROLLBACKS)
    shop.serve(1_000)

    # When its labels have matured
    seen = shop.watcher.look()

    # Then its parent serves again, and everybody can know why
    assert current_version(tmp_path) == shop.parent
    assert seen.withdrawn is not None
    assert seen.withdrawn == withdrawn(tmp_path)[0]
    assert told(seen)["withdrawn"] == shop.version
    assert counted(telemetry.ROLLBACKS) == before + 1
    assert f"ROLLBACK: bundle {shop.version} is taken back, {shop.parent} serves again." in capsys.readouterr().err


def test_what_was_gone_back_to_is_left_alone_and_that_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(tmp_path, 3.0)
    shop.serve(1_000)
    shop.watcher.look()

    shop.watcher.look()
    shop.watcher.look()

    assert current_version(tmp_path) == shop.parent
    assert capsys.readouterr().err.count("has no parent to be compared with") == 1


def test_a_sound_bundle_serves_on_and_its_figures_are_shown(tmp_path: Path) -> None:
    shop = Shop(tmp_path, 0.001)
    shop.serve(1_000)

    seen = shop.watcher.look()

    assert current_version(tmp_path) == shop.version
    assert seen.withdrawn is None
    assert seen.verdict is not None
    assert abs(seen.verdict.excess["click"].lost) < 0.01
    click = seen.figures[shop.version]["click"]
    assert click["predicted_to_observed"] == pytest.approx(1, abs=0.15)
    assert counted(telemetry.FIGURE, "click", shop.version, "auc") == click["auc"]
    assert counted(telemetry.LOST, "click") == seen.verdict.excess["click"].lost
    assert {"recall_review", "fpr_review"} <= set(seen.figures[shop.version]["fraud"])


def test_a_parent_without_its_checkpoint_is_said_and_nothing_happens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(tmp_path, 3.0)
    path_of(tmp_path, shop.parent).unlink()
    shop.serve(1_000)

    seen = shop.watcher.look()

    assert current_version(tmp_path) == shop.version
    assert seen.figures[shop.version]
    assert f"{shop.parent}.pt should be a checkpoint" in " ".join(capsys.readouterr().err.split())


def test_a_watcher_that_may_not_act_says_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = Shop(tmp_path, 3.0, replace(WATCHING, rollback=False))
    shop.serve(1_000)

    shop.watcher.look()

    assert current_version(tmp_path) == shop.version
    assert "is worse than its parent and stays" in capsys.readouterr().err


def test_a_parent_that_is_damaged_is_said_and_the_bundle_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(tmp_path, 3.0)
    (tmp_path / shop.parent / "decide.onnx").write_bytes(b"cut")
    shop.serve(1_000)

    shop.watcher.look()

    assert current_version(tmp_path) == shop.version
    assert "cannot be taken back" in capsys.readouterr().err


def test_what_a_dead_watcher_had_decided_is_carried_out(tmp_path: Path) -> None:
    shop = Shop(tmp_path, 3.0)
    keep(tmp_path, Withdrawn(version=shop.version, to=shop.parent, reasons=("worse",), decided_ms=1))

    shop.watcher.look()

    assert current_version(tmp_path) == shop.parent


@pytest.mark.parametrize(
    ("content", "shown"), [(b'{"frozen": true, "examples": 3}', 1), (b'{"frozen": false}', 0), (b"", 0)]
)
def test_a_frozen_learner_is_shown(tmp_path: Path, content: bytes, shown: int) -> None:
    shop = Shop(tmp_path, 0.1)
    (tmp_path / "learner.json").write_bytes(content)

    shop.watcher.look()

    assert counted(telemetry.FROZEN) == shown


def test_without_a_bundle_there_is_nothing_to_judge_and_that_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = Shop(tmp_path, 0.1)
    (tmp_path / "current.json").unlink()

    shop.watcher.look()
    shop.watcher.look()

    assert capsys.readouterr().err.count("no present bundle yet") == 1


def test_a_broken_pointer_is_said_and_figures_go_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop = Shop(tmp_path, 0.1)
    (tmp_path / "current.json").write_text("junk")
    shop.serve(300)

    assert shop.watcher.look().figures
    assert "current.json should name a version" in capsys.readouterr().err


def test_what_cannot_be_read_is_counted_and_left_out(tmp_path: Path) -> None:
    shop = Shop(tmp_path, 0.1)
    before = [counted(telemetry.LEFT_OUT, why) for why in ("unreadable", "of other features")]
    shop.feedback.values += [b"junk"]
    shop.scored.values += [b"junk", to_msgpack(scored_row(0, features="another"))]

    shop.watcher.look()

    after = [counted(telemetry.LEFT_OUT, why) for why in ("unreadable", "of other features")]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1]


def test_a_topic_is_read_to_its_end_in_portions_and_from_there_at_the_next_look(tmp_path: Path) -> None:
    shop = Shop(tmp_path, 0.001)
    shop.serve(1_234)
    before = counted(telemetry.READ, "feedback")

    shop.watcher.look()
    shop.watcher.look()

    assert counted(telemetry.READ, "feedback") == before + 1_235


def test_a_kafka_that_is_away_is_waited_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shop, shown = Shop(tmp_path, 0.001), Seen()
    shop.serve(300)
    shop.feedback.is_away = True

    assert look_patiently(shop.watcher, SETTINGS, WATCHING, shown) is shown
    assert "Trying again in 10 s" in capsys.readouterr().err

    shop.feedback.is_away = False
    seen = look_patiently(shop.watcher, SETTINGS, WATCHING, shown)
    assert seen.figures
    assert "by labels that have" in capsys.readouterr().err
    look_patiently(shop.watcher, SETTINGS, WATCHING, seen)
    assert capsys.readouterr().err == ""  # what was shown is not shown again


def scored_row(n: int, amount: float = 1.0, features: str = FEATURES.digest) -> Scored:
    return Scored(
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
    shop, before = Shop(tmp_path, 0.001), counted(telemetry.ALARMS, "order", "score.fraud")
    shop.scored.add([scored_row(n, 1.0 if n < 200 else 0.1) for n in range(300)])

    (alarm,) = shop.watcher.look().alarms

    assert (alarm.kind, alarm.column) == ("order", "score.fraud")
    assert counted(telemetry.ALARMS, "order", "score.fraud") == before + 1
    assert counted(telemetry.BLOCKS, "order") >= 2
    assert "`score.fraud` of order rows is not what it was" in capsys.readouterr().err
    assert shop.watcher.look().alarms == []


def test_settings_that_nobody_knows_are_refused() -> None:
    assert read_watching({"rollback": 0, "pause_s": 2}) == Watching(rollback=False, pause_s=2.0)
    for table in ({"looks": 3}, {"risk": 2.0}, {"block": 5}):
        with pytest.raises(BadConfig, match=r"\[watch\] should say how to watch"):
            read_watching(table)


def test_metrics_are_served_until_closed_and_a_port_that_is_taken_is_told() -> None:
    one = Served(port=0)
    try:
        with urlopen(f"http://127.0.0.1:{one.port}/metrics", timeout=5) as reply:
            assert b"shopstream_watch_looks_total" in reply.read()
        with pytest.raises(BadConfig, match=r"`watch.http_port` should be free"):
            Served(port=one.port)
    finally:
        one.close()


def produce(broker: EmbeddedKafka | ApacheKafka, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for value in values:
        producer.produce(topic, value, partition=0)
    producer.flush()


def test_a_topic_of_kafka_is_read_in_portions(broker: EmbeddedKafka | ApacheKafka, topic: str) -> None:
    values = [f"{n}".encode() for n in range(4_500)]
    produce(broker, topic, values)
    feed = Portions(kafka=Kafka(bootstrap_servers=broker.bootstrap), topic=topic, most=2_000)
    latest = Portions(kafka=Kafka(bootstrap_servers=broker.bootstrap), topic=topic, most=2_000, behind=100)
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
    assert [(record.partition, record.offset) for record in records] == [(0, n) for n in range(4_500)]
    assert [portion.is_last for portion in portions] == [False, False, True, True]
    assert max(len(portion.records) for portion in portions) < 3_500
    assert [record.value for record in last.records] == values[-100:]


def test_the_command_looks_once_and_ends_with_a_line_of_json(
    embedded_kafka: EmbeddedKafka, tmp_path: Path, topic_prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    topics = {"scored": f"{topic_prefix}scored", "feedback": f"{topic_prefix}feedback"}
    embedded_kafka.create_topics(dict.fromkeys(topics.values(), 4))
    kafka = {"bootstrap_servers": embedded_kafka.bootstrap}
    watch = {"window_s": WATCHING.window_s}
    settings = Settings.model_validate(
        {"tasks": TASKS, "feedback": FEEDBACK, "topics": topics, "kafka": kafka, "watch": watch}
    )
    shop = Shop(tmp_path, 0.001)
    shop.serve(50)
    produce(embedded_kafka, topics["feedback"], shop.feedback.values)

    assert run(parse(["watch", "--once", "--bundles", f"{tmp_path}"]), settings, FEATURES) == 0

    line = capsys.readouterr().out
    assert '"withdrawn": null' in line
    assert shop.version in line
