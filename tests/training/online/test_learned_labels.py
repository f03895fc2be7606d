"""What the fit has learned from a file, an update does not learn again from the feedback topic."""

from pathlib import Path

import pytest
from msgspec import structs

from contract.messages import Example, to_msgpack
from model.checkpoint import Checkpoint, LearnedUntil, make_metadata, read_checkpoint, write_checkpoint
from tests.model.small import CLASSES, FEATURES, SHAPE, TASKS
from tests.training.examples import PLAN, make_rows, postpone
from training.data.examples import from_rows
from training.data.learned_until import measure_learned, merge_learned
from training.data.split import split_by_time
from training.feedback.feedback_reader import FeedbackBatch
from training.online.learned_labels import LEARNED
from training.online.update import UpdateResult, update
from training.trainer.fit import fit

ROWS = make_rows(600, 5)
CONFIG = PLAN.model_copy(update={"margin": 9.0, "jump": 99.0, "epochs": 2})


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    fitted = fit(from_rows(ROWS, FEATURES, TASKS, CLASSES), SHAPE, CONFIG, lambda epoch: None)
    metadata = make_metadata(
        fitted.network, parent=None, created_ms=10**12, evaluation={}, positions={}, learned=fitted.learned
    )
    return Checkpoint(metadata=metadata, weights=fitted.network.state_dict())


def learn(checkpoint: Checkpoint, *rows: Example) -> UpdateResult:
    feedback = FeedbackBatch([to_msgpack(row) for row in rows], {"shop.feedback/0": len(rows)})
    return update(checkpoint, feedback, CONFIG)


def test_of_the_history_of_a_fit_only_its_held_out_examples_are_learned(checkpoint: Checkpoint) -> None:
    split = split_by_time(from_rows(ROWS, FEATURES, TASKS, CLASSES), CONFIG.held_out)

    result = learn(checkpoint, *ROWS)

    assert result.examples == len(split.validation)
    assert result.left_out[LEARNED] + result.left_out.get("without a label", 0) == len(ROWS) - result.examples


def test_examples_that_happened_after_the_fit_are_all_learned(checkpoint: Checkpoint) -> None:
    later = postpone(ROWS[:300], 30)

    result = learn(checkpoint, *later)

    assert LEARNED not in result.left_out
    assert result.examples + sum(result.left_out.values()) == 300


def test_a_label_that_came_after_the_fit_is_learned_of_an_old_event(checkpoint: Checkpoint) -> None:
    old = next(row for row in ROWS if "fraud" in row.labels)
    known_ms = checkpoint.metadata.learned["fraud"].known_ms
    late = structs.replace(old, revision=1, known_ms={"fraud": known_ms + 1}, labels={"fraud": 1.0})
    in_time = structs.replace(late, known_ms={"fraud": known_ms})

    assert learn(checkpoint, late).left_out == {}
    assert learn(checkpoint, in_time).left_out == {LEARNED: 1}


def test_later_updates_and_their_checkpoints_keep_what_the_fit_has_learned(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    updated = learn(checkpoint, *ROWS).checkpoint
    assert updated is not None

    restored = read_checkpoint(write_checkpoint(tmp_path, updated))

    assert restored.metadata.learned == checkpoint.metadata.learned


def test_examples_without_times_are_never_taken_for_learned() -> None:
    timeless = [structs.replace(row, ts_ms=0, known_ms={}) for row in ROWS[:50]]

    assert measure_learned(from_rows(timeless, FEATURES, TASKS, CLASSES)) == {}


def test_a_fit_that_starts_from_another_has_learned_what_both_have() -> None:
    former = {"click": LearnedUntil(ts_ms=5, known_ms=6), "fraud": LearnedUntil(ts_ms=1, known_ms=9)}
    latter = {"fraud": LearnedUntil(ts_ms=3, known_ms=4)}

    assert merge_learned(former, latter) == {
        "click": LearnedUntil(ts_ms=5, known_ms=6),
        "fraud": LearnedUntil(ts_ms=3, known_ms=9),
    }
