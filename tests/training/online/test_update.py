"""One update of the serving model, from feedback to the published bundle."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from contract.bundle import current_version, read_bundle
from contract.errors import BadData
from contract.features.packing import PackedBlock
from contract.messages import Example, to_msgpack
from contract.settings.reading import Settings
from contract.units import HOUR_MS
from devservers.apache_kafka import ApacheKafka
from devservers.embedded import EmbeddedKafka
from export.exporter import export
from model.checkpoint import Checkpoint, hash_weights, make_metadata, write_checkpoint
from tests.kafka import BlockingProducer, make_settings
from tests.model.small import FEATURES, SHAPE, TASKS, make_network
from tests.training.examples import PLAN, make_examples, make_rows
from training.commands.follow import EXIT_REJECTED, learn_once, learn_with_retry
from training.data.interactions import extract_interactions, merge_interactions
from training.data.parquet import read_examples
from training.feedback.feedback_reader import FeedbackBatch, FeedbackReader
from training.online.incremental_pass import create_replay_rng
from training.online.replay_buffer import encode_buffer
from training.online.update import create_update_learner, read_serving_checkpoint, update
from training.online.update_inputs import decode_usable
from training.trainer.fit import fit
from training.trainer.learner import Learner

SETTINGS = Settings(tasks=TASKS)
LENIENT_CONFIG = PLAN.model_copy(
    update={"margin": 9.0}
)  # the gate passes: its result on a few dozen rows would be random


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    examples = make_examples(1_000, 3)
    fitted = fit(examples, SHAPE, PLAN.model_copy(update={"epochs": 8}), lambda epoch: None)
    metadata = make_metadata(fitted.network, parent=None, created_ms=10**12, evaluation={}, positions={})
    return Checkpoint(
        metadata=metadata,
        weights=fitted.network.state_dict(),
        optimizer=fitted.optimizer,
        replay_buffer=encode_buffer(examples, PLAN.keep, PLAN.seed),
        interactions=merge_interactions(extract_interactions(examples)),
    )


@pytest.fixture
def bundles(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    write_checkpoint(tmp_path, checkpoint)
    export(checkpoint, tmp_path, {})
    return tmp_path


def make_feedback(*rows: Example) -> FeedbackBatch:
    return FeedbackBatch([to_msgpack(row) for row in rows], {"shop.feedback/0": len(rows)})


class FixedFeed(FeedbackReader):
    """A feed that returns the same feedback on every read, and records the requested positions."""

    def __init__(self, feedback: FeedbackBatch) -> None:
        self.feedback, self.requested = feedback, list[dict[str, int]]()

    def read(self, positions: object, records_max: int = 0) -> FeedbackBatch:
        self.requested.append(dict(positions))  # type: ignore[call-overload]
        return self.feedback


def test_new_examples_are_predicted_and_then_change_the_weights(checkpoint: Checkpoint) -> None:
    actual = update(checkpoint, make_feedback(*make_rows(400, 11, "n")), LENIENT_CONFIG)

    assert actual.checkpoint is not None
    assert actual.examples == 400
    assert {"auc", "log_loss"} <= set(actual.progressive["click"])
    assert actual.progressive["click"]["rows"] > 2 * actual.held_out["click"]["rows"] > 50
    assert hash_weights(actual.checkpoint.weights) != hash_weights(checkpoint.weights)
    assert actual.checkpoint.metadata.parent == checkpoint.metadata.version
    assert actual.checkpoint.metadata.positions == {"shop.feedback/0": 400}


def test_an_update_does_not_change_the_former_checkpoint(checkpoint: Checkpoint) -> None:
    before = hash_weights(checkpoint.weights)

    update(checkpoint, make_feedback(*make_rows(100, 11, "n")), LENIENT_CONFIG)

    assert hash_weights(checkpoint.weights) == before


def test_equal_feedback_gives_equal_weights(checkpoint: Checkpoint) -> None:
    rows = make_rows(200, 11, "n")

    first, second = (update(checkpoint, make_feedback(*rows), LENIENT_CONFIG).checkpoint for _ in range(2))

    assert first is not None
    assert second is not None
    assert hash_weights(first.weights) == hash_weights(second.weights)


def test_delayed_tasks_change_the_weight_of_corrections(checkpoint: Checkpoint) -> None:
    rows = make_rows(200, 11, "n")
    clicked = [n for n, row in enumerate(rows) if row.labels.get("click") == 1 and "purchase" in row.labels][:10]
    for n in clicked:
        known_ms = rows[n].known_ms | {"purchase": rows[n].known_ms["click"] + 2 * HOUR_MS}
        rows[n] = replace(rows[n], revision=3, labels=rows[n].labels | {"purchase": 1.0}, known_ms=known_ms)

    plain, weighted = (
        update(checkpoint, make_feedback(*rows), LENIENT_CONFIG, delays)
        for delays in ({}, SETTINGS.feedback.delays_by_task())
    )

    assert plain.checkpoint is not None
    assert weighted.checkpoint is not None
    assert hash_weights(plain.checkpoint.weights) != hash_weights(weighted.checkpoint.weights)


def test_an_update_learns_at_its_own_rate_whatever_the_optimizer_state_has() -> None:
    network = make_network()
    state = torch.optim.AdamW(network.parameters(), lr=0.7).state_dict()

    learner = create_update_learner(network, state, PLAN)

    assert {group["lr"] for group in learner.optimizer.param_groups} == {PLAN.learning_rate * PLAN.update_rate}


def test_updates_replay_different_rows_and_equal_updates_the_same() -> None:
    first, other = make_examples(20, 1), make_examples(20, 1, prefix="n")

    draws = [create_replay_rng(examples, PLAN).random(5).tolist() for examples in (first, first, other)]

    assert draws[0] == draws[1] != draws[2]


def test_the_newest_revision_of_an_example_is_learned(checkpoint: Checkpoint) -> None:
    row = next(row for row in make_rows(50, 11, "n") if "click" in row.labels)
    revisions = [replace(row, revision=n, labels={"click": float(n == 1)}) for n in range(2)]

    new, _ = decode_usable([to_msgpack(revision) for revision in reversed(revisions)], checkpoint)

    assert new.examples.labels["click"].tolist() == [1]


def test_unusable_records_are_left_out_and_counted(checkpoint: Checkpoint) -> None:
    usable, other, unlabelled, *_ = make_rows(9, 11, "n")
    values = [
        to_msgpack(usable),
        b"junk",
        to_msgpack(replace(other, features="another")),
        to_msgpack(replace(unlabelled, labels={"fraud": 7.0, "cancellation": 1.0})),
    ]

    new, left_out = decode_usable(values, checkpoint)

    assert len(new) == 1
    assert left_out == {"unreadable": 1, "of other features": 1, "without a label": 1}


def test_the_next_replay_buffer_has_former_and_new_examples(checkpoint: Checkpoint) -> None:
    actual = update(checkpoint, make_feedback(*make_rows(300, 11, "n")), LENIENT_CONFIG).checkpoint

    assert actual is not None
    buffered = read_examples(actual.replay_buffer, FEATURES, TASKS)
    assert len(buffered) == PLAN.keep
    assert {ident[0] for ident in buffered.example_id.tolist()} == {"e", "n"}


def test_a_better_model_is_published_with_its_parent(bundles: Path, checkpoint: Checkpoint) -> None:
    status = learn_once(FixedFeed(make_feedback(*make_rows(300, 11, "n"))), bundles, SETTINGS, LENIENT_CONFIG)

    manifest = read_bundle(bundles, current_version(bundles) or "").manifest
    assert status == 0
    assert manifest.parent == checkpoint.metadata.version
    assert manifest.positions == {"shop.feedback/0": 300}


def test_the_next_update_reads_on_from_the_former_positions(bundles: Path) -> None:
    feed = FixedFeed(make_feedback(*make_rows(300, 11, "n")))

    learn_once(feed, bundles, SETTINGS, LENIENT_CONFIG)
    learn_once(feed, bundles, SETTINGS, LENIENT_CONFIG)

    assert feed.requested == [{}, {"shop.feedback/0": 300}]


def test_without_new_examples_nothing_is_published(bundles: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = current_version(bundles)

    with caplog.at_level(logging.INFO):
        status = learn_once(FixedFeed(FeedbackBatch([], {})), bundles, SETTINGS, PLAN)

    assert status == 0
    assert current_version(bundles) == before
    assert "No new examples" in caplog.text


def test_a_worse_model_is_rejected_with_the_reason_and_not_published(
    bundles: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = current_version(bundles)
    inverted = [
        replace(row, labels={"click": 1 - float(row.labels["click"])}) if n < 300 and "click" in row.labels else row
        for n, row in enumerate(make_rows(400, 11, "n"))
    ]

    status = learn_once(
        FixedFeed(make_feedback(*inverted)),
        bundles,
        SETTINGS,
        PLAN.model_copy(update={"update_batch": 8, "update_rate": 1.0, "distillation": 0.0}),
    )

    assert status == EXIT_REJECTED == 3
    assert current_version(bundles) == before
    assert len(list((bundles / "checkpoints").iterdir())) == 1
    assert "`click` should lose at most 0.05 of its gain" in caplog.text


def test_implausible_examples_are_left_out_and_the_others_learned(checkpoint: Checkpoint) -> None:
    rows = make_rows(300, 11, "n")
    infinite = PackedBlock(1, np.full(2, np.inf, "<f4").tobytes(), rows[0].groups["user"].ids)
    bad = [replace(row, groups=row.groups | {"user": infinite}) for row in rows[:20] if "user" in row.groups]

    actual = update(checkpoint, make_feedback(*bad, *rows[20:]), LENIENT_CONFIG)

    assert actual.left_out["of absurd features"] == len(bad)
    assert actual.examples >= 270
    assert actual.checkpoint is not None


def test_implausible_labels_are_rejected_before_they_are_learned(
    checkpoint: Checkpoint,
) -> None:
    clicks = [row for row in make_rows(400, 11, "n") if "click" in row.labels]
    all_clicked = [replace(row, labels={"click": 1.0}, user_id=f"u{n}") for n, row in enumerate(clicks)]

    actual = update(checkpoint, make_feedback(*all_clicked), LENIENT_CONFIG.model_copy(update={"jump": 1.5}))

    assert "`click` should happen 0.67 to 1.5 times as often" in actual.rejections[0]
    assert (actual.checkpoint, actual.rejected_checkpoint) == (None, None)


def test_a_failure_while_learning_is_a_rejection_and_no_crash(checkpoint: Checkpoint) -> None:
    def fail(learner: Learner, *rest: object) -> dict[str, np.ndarray]:
        raise BadData("The loss of `click` should be finite. Found inf.")

    actual = update(checkpoint, make_feedback(*make_rows(100, 11, "n")), LENIENT_CONFIG, train=fail)

    assert actual.rejections == ["The loss of `click` should be finite. Found inf."]


def test_a_learner_without_a_serving_model_tries_again_later(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    learn_with_retry(FixedFeed(FeedbackBatch([], {})), tmp_path, SETTINGS, PLAN)

    assert "Trying again in 30 s" in caplog.text


def produce_rows(broker: EmbeddedKafka | ApacheKafka, topic: str, rows: list[Example]) -> None:
    with BlockingProducer(broker.bootstrap) as producer:
        producer.send(topic, [(row.user_id, to_msgpack(row)) for row in rows])


def test_feedback_is_read_to_its_end_and_then_from_its_positions(
    broker: EmbeddedKafka | ApacheKafka, topic: str
) -> None:
    feed = FeedbackReader(kafka=make_settings(broker), topic=topic)
    try:
        produce_rows(broker, topic, make_rows(30, 1))
        first = feed.read({}, 1_000)
        again = feed.read({}, 1_000)
        nothing = feed.read(first.positions, 1_000)
        produce_rows(broker, topic, make_rows(5, 2, "n"))
        second = feed.read(first.positions, 1_000)
    finally:
        feed.close()

    assert len(first.values) == len(again.values) == 30
    assert sum(first.positions.values()) == 30
    assert (nothing.values, nothing.positions) == ([], first.positions)
    assert sorted(second.values) == sorted(to_msgpack(row) for row in make_rows(5, 2, "n"))


def test_one_read_is_bounded_and_further_reads_return_the_rest(broker: EmbeddedKafka | ApacheKafka, topic: str) -> None:
    feed = FeedbackReader(kafka=make_settings(broker), topic=topic)
    actual, positions, more = list[bytes](), dict[str, int](), True
    try:
        produce_rows(broker, topic, rows := make_rows(30, 1))
        while more:
            batch = feed.read(positions, 7)
            assert len(batch.values) <= 7
            assert batch.newest_ms > rows[-1].ts_ms
            actual, positions, more = actual + batch.values, batch.positions, batch.has_more
    finally:
        feed.close()

    assert sorted(actual) == sorted(to_msgpack(row) for row in rows)
    assert sum(positions.values()) == 30


def test_positions_beyond_the_topic_restart_at_its_beginning(broker: EmbeddedKafka | ApacheKafka, topic: str) -> None:
    feed = FeedbackReader(kafka=make_settings(broker), topic=topic)
    try:
        produce_rows(broker, topic, make_rows(10, 1))
        actual = feed.read({f"{topic}/{partition}": 999 for partition in range(4)}, 1_000)
    finally:
        feed.close()

    assert len(actual.values) == 10


def test_the_serving_checkpoint_is_that_of_the_current_bundle(bundles: Path, checkpoint: Checkpoint) -> None:
    metadata = make_metadata(
        checkpoint.build_network(), parent=None, created_ms=2 * 10**12, evaluation={}, positions={}
    )
    write_checkpoint(bundles, Checkpoint(metadata=metadata, weights=checkpoint.weights))

    assert read_serving_checkpoint(bundles).metadata.version == checkpoint.metadata.version
    assert all(torch.equal(w, checkpoint.weights[name]) for name, w in read_serving_checkpoint(bundles).weights.items())
