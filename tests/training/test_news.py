"""What of an example is learned by which update."""

import numpy as np
from msgspec.structs import replace

from contract.rows import Example, to_msgpack
from model.checkpoint import Checkpoint, describe
from tests.model.small import make_network
from tests.training.made import START_MS, make_rows
from training.follow import usable
from training.news import News, in_turn, joined, read_news, waits_in

MINUTE_MS = 60_000


def checkpoint() -> Checkpoint:
    network = make_network()
    about = describe(network, parent=None, created_ms=10**12, evaluation={}, positions={})
    return Checkpoint(about=about, weights=network.state_dict())


CHECKPOINT = checkpoint()
SHOWN = next(row for row in make_rows(50, 11, "n") if "click" in row.labels)


def revision(number: int, ident: str = "one", **labels: tuple[float, int]) -> Example:
    """One with these labels, each with the minutes after which it became known."""
    return replace(
        SHOWN,
        example_id=ident,
        revision=number,
        labels={task: value for task, (value, _) in labels.items()},
        known_ms={task: START_MS + minutes * MINUTE_MS for task, (_, minutes) in labels.items()},
    )


CLICKED = revision(1, click=(1.0, 2))
NOT_BOUGHT = revision(2, click=(1.0, 2), purchase=(0.0, 62))
BOUGHT = revision(3, click=(1.0, 2), purchase=(1.0, 90))


def news(*rows: Example) -> News:
    return usable([to_msgpack(row) for row in rows], CHECKPOINT)[0]


def learned(*rows: Example) -> dict[str, list[float]]:
    found = news(*rows).unlearned()
    return {
        task: label[found.known(t)].tolist()
        for t in found.tasks
        for task, label in found.labels.items()
        if t.name == task and found.known(t).any()
    }


def test_a_click_that_an_earlier_update_learned_is_not_learned_again_with_its_purchase() -> None:
    assert learned(CLICKED) == {"click": [1]}
    assert learned(NOT_BOUGHT) == {"purchase": [0]}
    assert learned(BOUGHT) == {"purchase": [1]}


def test_revisions_that_come_together_are_learned_as_the_newest_one() -> None:
    assert learned(BOUGHT, CLICKED, NOT_BOUGHT) == {"click": [1], "purchase": [1]}
    assert learned(NOT_BOUGHT, BOUGHT) == {"purchase": [1]}


def test_a_label_that_is_corrected_is_learned_again() -> None:
    silent, late = revision(0, click=(0.0, 32), purchase=(0.0, 32)), revision(1, click=(1.0, 40))

    assert learned(silent) == {"click": [0], "purchase": [0]}
    assert learned(late) == {"click": [1]}


def test_an_example_is_met_first_when_its_first_revision_comes() -> None:
    assert len(news(CLICKED).first_met()) == len(news(CLICKED, BOUGHT).first_met()) == 1
    assert len(news(NOT_BOUGHT).first_met()) == 0


def test_examples_are_learned_in_the_order_in_which_yes_and_no_could_be_known() -> None:
    passed_by, clicked = revision(0, "passed by", click=(0.0, 32)), revision(1, "clicked", click=(1.0, 3))

    by_label = news(passed_by, clicked).unlearned()
    by_event = news(passed_by, clicked).unlearned({"click": 40 * MINUTE_MS})

    assert by_label.example_id.tolist() == ["clicked", "passed by"]
    assert by_event.example_id.tolist() == news(passed_by, clicked).examples.example_id.tolist()


def test_a_yes_is_due_when_a_no_could_have_been_told_and_a_correction_when_it_comes() -> None:
    found = news(revision(1, "clicked", click=(1.0, 3)), replace(BOUGHT, example_id="late"))
    shown_ms = found.examples.ts_ms[0]

    due_ms = dict(zip(found.examples.example_id, found.due_ms({"click": 7, "purchase": 9}).tolist(), strict=True))

    assert due_ms == {
        "clicked": max(START_MS + 3 * MINUTE_MS, shown_ms + 7),
        "late": max(START_MS + 90 * MINUTE_MS, shown_ms + 9),
    }


def test_the_latest_share_by_when_it_was_due_is_held_out() -> None:
    rows = [revision(n % 2, f"n{n}", click=(float(n % 2), n)) for n in range(20)]

    held = news(*rows).take(news(*rows).latest(0.2, {}))

    assert {int(ident[1:]) for ident in held.examples.example_id} == set(range(16, 20))


def test_what_waits_is_learned_before_what_comes() -> None:
    again = read_news(news(*(revision(1, f"n{n}", click=(1.0, n)) for n in range(3))).parquet(), CHECKPOINT.about)

    assert in_turn([again, news(revision(1, "next", click=(1.0, 1)))], {}).example_id.tolist() == [
        "n0",
        "n1",
        "n2",
        "next",
    ]


def test_news_of_two_times_of_one_example_are_the_newest_with_all_that_was_not_learned() -> None:
    both = joined([news(CLICKED), news(BOUGHT)])

    assert both.unlearned().labels["click"].tolist() == [1]
    assert both.unlearned().labels["purchase"].tolist() == [1]


def test_a_no_is_waited_for_as_long_as_nearly_all_of_them_took() -> None:
    rows = [revision(0, f"n{n}", click=(0.0, 30), purchase=(0.0, 30)) for n in range(50)]

    waits = waits_in([news(*rows, revision(1, "yes", click=(1.0, 90))).examples])

    took_ms = START_MS + 30 * MINUTE_MS - SHOWN.ts_ms
    assert waits == {"click": max(took_ms, 0), "purchase": max(took_ms, 0)}


def test_what_waits_to_be_learned_keeps_which_of_its_labels_are_news() -> None:
    waiting = read_news(news(NOT_BOUGHT).parquet(), CHECKPOINT.about)

    assert waiting.examples.labels["click"].tolist() == [1]
    assert np.isnan(waiting.unlearned().labels["click"]).all()
    assert waiting.unlearned().labels["purchase"].tolist() == [0]


def test_nothing_waits_where_nothing_came() -> None:
    assert news().parquet() == b""
