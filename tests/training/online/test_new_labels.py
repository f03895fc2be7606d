"""What of an example is learned by which update."""

import numpy as np
from msgspec.structs import replace

from contract.messages import Example, to_msgpack
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
from training.online.update import decode_usable

MINUTE_MS = 60_000


def make_checkpoint() -> Checkpoint:
    network = make_network()
    about = make_metadata(network, parent=None, created_ms=10**12, evaluation={}, positions={})
    return Checkpoint(metadata=about, weights=network.state_dict())


CHECKPOINT = make_checkpoint()
SHOWN = next(row for row in make_rows(50, 11, "n") if "click" in row.labels)


def make_revision(number: int, ident: str = "one", **labels: tuple[float, int]) -> Example:
    """One with these labels, each with the minutes after which it became known."""
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


def find_news(*rows: Example) -> NewLabels:
    return decode_usable([to_msgpack(row) for row in rows], CHECKPOINT)[0]


def learned_labels(*rows: Example) -> dict[str, list[float]]:
    labels = find_news(*rows).pending()
    return {
        task: label[labels.has_label(t)].tolist()
        for t in labels.tasks
        for task, label in labels.labels.items()
        if t.name == task and labels.has_label(t).any()
    }


def test_a_click_that_an_earlier_update_learned_is_not_learned_again_with_its_purchase() -> None:
    assert learned_labels(CLICKED) == {"click": [1]}
    assert learned_labels(NOT_BOUGHT) == {"purchase": [0]}
    assert learned_labels(BOUGHT) == {"purchase": [1]}


def test_revisions_that_come_together_are_learned_as_the_newest_one() -> None:
    assert learned_labels(BOUGHT, CLICKED, NOT_BOUGHT) == {"click": [1], "purchase": [1]}
    assert learned_labels(NOT_BOUGHT, BOUGHT) == {"purchase": [1]}


def test_a_label_that_is_corrected_is_learned_again() -> None:
    silent, late = make_revision(0, click=(0.0, 32), purchase=(0.0, 32)), make_revision(1, click=(1.0, 40))

    assert learned_labels(silent) == {"click": [0], "purchase": [0]}
    assert learned_labels(late) == {"click": [1]}


def test_an_example_is_met_first_when_its_first_revision_comes() -> None:
    assert len(find_news(CLICKED).first_seen()) == len(find_news(CLICKED, BOUGHT).first_seen()) == 1
    assert len(find_news(NOT_BOUGHT).first_seen()) == 0


def test_examples_are_learned_in_the_order_in_which_yes_and_no_could_be_known() -> None:
    passed_by, clicked = make_revision(0, "passed by", click=(0.0, 32)), make_revision(1, "clicked", click=(1.0, 3))

    by_label = find_news(passed_by, clicked).pending()
    by_event = find_news(passed_by, clicked).pending({"click": 40 * MINUTE_MS})

    assert by_label.example_id.tolist() == ["clicked", "passed by"]
    assert by_event.example_id.tolist() == find_news(passed_by, clicked).examples.example_id.tolist()


def test_a_yes_is_due_when_a_no_could_have_been_told_and_a_correction_when_it_comes() -> None:
    actual = find_news(make_revision(1, "clicked", click=(1.0, 3)), replace(BOUGHT, example_id="late"))
    shown_ms = actual.examples.ts_ms[0]

    due_ms = dict(
        zip(actual.examples.example_id, actual.available_ms({"click": 7, "purchase": 9}).tolist(), strict=True)
    )

    assert due_ms == {
        "clicked": max(START_MS + 3 * MINUTE_MS, shown_ms + 7),
        "late": max(START_MS + 90 * MINUTE_MS, shown_ms + 9),
    }


def test_the_latest_share_by_when_it_was_due_is_held_out() -> None:
    rows = [make_revision(n % 2, f"n{n}", click=(float(n % 2), n)) for n in range(20)]

    held = find_news(*rows).take(find_news(*rows).most_recent(0.2, {}))

    assert {int(ident[1:]) for ident in held.examples.example_id} == set(range(16, 20))


def test_what_waits_is_learned_before_what_comes() -> None:
    again = read_new_labels(
        find_news(*(make_revision(1, f"n{n}", click=(1.0, n)) for n in range(3))).to_parquet(), CHECKPOINT.metadata
    )

    assert concatenate_pending(
        [again, find_news(make_revision(1, "next", click=(1.0, 1)))], {}
    ).example_id.tolist() == [
        "n0",
        "n1",
        "n2",
        "next",
    ]


def test_news_of_two_times_of_one_example_are_the_newest_with_all_that_was_not_learned() -> None:
    both = merge_new_labels([find_news(CLICKED), find_news(BOUGHT)])

    assert both.pending().labels["click"].tolist() == [1]
    assert both.pending().labels["purchase"].tolist() == [1]


def test_a_no_is_waited_for_as_long_as_nearly_all_of_them_took() -> None:
    rows = [make_revision(0, f"n{n}", click=(0.0, 30), purchase=(0.0, 30)) for n in range(50)]

    waits = estimate_negative_delays([find_news(*rows, make_revision(1, "yes", click=(1.0, 90))).examples])

    took_ms = START_MS + 30 * MINUTE_MS - SHOWN.ts_ms
    assert waits == {"click": max(took_ms, 0), "purchase": max(took_ms, 0)}


def test_what_waits_to_be_learned_keeps_which_of_its_labels_are_news() -> None:
    waiting = read_new_labels(find_news(NOT_BOUGHT).to_parquet(), CHECKPOINT.metadata)

    assert waiting.examples.labels["click"].tolist() == [1]
    assert np.isnan(waiting.pending().labels["click"]).all()
    assert waiting.pending().labels["purchase"].tolist() == [0]


def test_nothing_waits_where_nothing_came() -> None:
    assert find_news().to_parquet() == b""
