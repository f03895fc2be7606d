"""Which labels of an example each update learns."""

import numpy as np
from msgspec.structs import replace

from contract.messages import Example, to_msgpack
from contract.units import MINUTE_MS
from model.checkpoint import Checkpoint, make_metadata
from tests.model.small import make_network
from tests.training.examples import START_MS, make_rows
from training.online.new_labels import (
    NewLabels,
    concatenate_pending,
    estimate_negative_delays,
    merge_new_labels,
    read_new_labels,
)
from training.online.update_inputs import decode_usable


def make_checkpoint() -> Checkpoint:
    network = make_network()
    metadata = make_metadata(network, parent=None, created_ms=10**12, evaluation={}, positions={})
    return Checkpoint(metadata=metadata, weights=network.state_dict())


CHECKPOINT = make_checkpoint()
SHOWN = next(row for row in make_rows(50, 11, "n") if "click" in row.labels)


def make_revision(number: int, ident: str = "e", **labels: tuple[float, int]) -> Example:
    """A revision with these labels: value, and minutes until it became known."""
    return replace(
        SHOWN,
        example_id=ident,
        revision=number,
        labels={task: value for task, (value, _) in labels.items()},
        known_ms={task: START_MS + minutes * MINUTE_MS for task, (_, minutes) in labels.items()},
    )


CLICKED = make_revision(1, click=(1.0, 2))
NOT_BOUGHT = make_revision(2, click=(1.0, 2), purchase=(0.0, 62))
BOUGHT = make_revision(3, click=(1.0, 2), purchase=(1.0, 90))


def read_labels(*rows: Example) -> NewLabels:
    return decode_usable([to_msgpack(row) for row in rows], CHECKPOINT)[0]


def collect_new_labels(*rows: Example) -> dict[str, list[float]]:
    pending = read_labels(*rows).pending()
    return {
        task.name: pending.labels[task.name][pending.has_label(task)].tolist()
        for task in pending.tasks
        if pending.has_label(task).any()
    }


def test_a_learned_click_is_not_learned_again_with_its_purchase() -> None:
    assert collect_new_labels(CLICKED) == {"click": [1]}
    assert collect_new_labels(NOT_BOUGHT) == {"purchase": [0]}
    assert collect_new_labels(BOUGHT) == {"purchase": [1]}


def test_revisions_of_one_batch_are_learned_as_the_newest_one() -> None:
    assert collect_new_labels(BOUGHT, CLICKED, NOT_BOUGHT) == {"click": [1], "purchase": [1]}
    assert collect_new_labels(NOT_BOUGHT, BOUGHT) == {"purchase": [1]}


def test_a_corrected_label_is_learned_again() -> None:
    negative = make_revision(0, click=(0.0, 32), purchase=(0.0, 32))
    corrected = make_revision(1, click=(1.0, 40))

    assert collect_new_labels(negative) == {"click": [0], "purchase": [0]}
    assert collect_new_labels(corrected) == {"click": [1]}


def test_only_a_first_revision_is_seen_for_the_first_time() -> None:
    assert len(read_labels(CLICKED).first_seen()) == len(read_labels(CLICKED, BOUGHT).first_seen()) == 1
    assert len(read_labels(NOT_BOUGHT).first_seen()) == 0


def test_examples_are_ordered_by_when_both_labels_could_be_known() -> None:
    ignored, clicked = make_revision(0, "ignored", click=(0.0, 32)), make_revision(1, "clicked", click=(1.0, 3))

    by_label = read_labels(ignored, clicked).pending()
    by_event = read_labels(ignored, clicked).pending({"click": 40 * MINUTE_MS})

    assert by_label.example_id.tolist() == ["clicked", "ignored"]
    assert by_event.example_id.tolist() == read_labels(ignored, clicked).examples.example_id.tolist()


def test_a_positive_is_available_after_the_negative_delay_and_a_correction_at_once() -> None:
    actual = read_labels(make_revision(1, "clicked", click=(1.0, 3)), replace(BOUGHT, example_id="late"))
    shown_ms = actual.examples.ts_ms[0]

    available_ms = dict(
        zip(actual.examples.example_id, actual.available_ms({"click": 7, "purchase": 9}).tolist(), strict=True)
    )

    assert available_ms == {
        "clicked": max(START_MS + 3 * MINUTE_MS, shown_ms + 7),
        "late": max(START_MS + 90 * MINUTE_MS, shown_ms + 9),
    }


def test_the_latest_share_by_availability_is_held_out() -> None:
    rows = [make_revision(n % 2, f"n{n}", click=(float(n % 2), n)) for n in range(20)]

    holdout = read_labels(*rows).take(read_labels(*rows).most_recent(0.2, {}))

    assert {int(ident[1:]) for ident in holdout.examples.example_id} == set(range(16, 20))


def test_deferred_labels_are_learned_before_arriving_ones() -> None:
    revisions = [make_revision(1, f"n{n}", click=(1.0, n)) for n in range(3)]
    deferred = read_new_labels(read_labels(*revisions).to_parquet(), CHECKPOINT.metadata)
    arriving = read_labels(make_revision(1, "next", click=(1.0, 1)))

    examples = concatenate_pending([deferred, arriving], {})

    assert examples.example_id.tolist() == ["n0", "n1", "n2", "next"]


def test_merged_labels_are_the_newest_revision_with_all_unlearned_labels() -> None:
    merged = merge_new_labels([read_labels(CLICKED), read_labels(BOUGHT)])

    assert merged.pending().labels["click"].tolist() == [1]
    assert merged.pending().labels["purchase"].tolist() == [1]


def test_the_negative_delay_is_a_high_quantile_of_those_seen() -> None:
    rows = [make_revision(0, f"n{n}", click=(0.0, 30), purchase=(0.0, 30)) for n in range(50)]

    delays = estimate_negative_delays([read_labels(*rows, make_revision(1, "positive", click=(1.0, 90))).examples])

    delay_ms = START_MS + 30 * MINUTE_MS - SHOWN.ts_ms
    assert delays == {"click": max(delay_ms, 0), "purchase": max(delay_ms, 0)}


def test_deferred_labels_keep_which_of_them_are_new() -> None:
    deferred = read_new_labels(read_labels(NOT_BOUGHT).to_parquet(), CHECKPOINT.metadata)

    assert deferred.examples.labels["click"].tolist() == [1]
    assert np.isnan(deferred.pending().labels["click"]).all()
    assert deferred.pending().labels["purchase"].tolist() == [0]


def test_no_labels_are_encoded_as_no_bytes() -> None:
    assert read_labels().to_parquet() == b""
