"""What of an example is learned by which update."""

import numpy as np
from msgspec.structs import replace

from contract.rows import Example, to_msgpack
from model.checkpoint import Checkpoint, describe
from tests.model.small import make_network
from tests.training.made import START_MS, make_rows
from training.follow import usable
from training.news import News, in_turn, known_since, read_news

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


def test_examples_are_learned_in_the_order_in_which_they_became_known() -> None:
    early, late = revision(0, "early", click=(0.0, 32)), revision(1, "late", click=(1.0, 3))

    found = news(early, late).unlearned()

    assert found.example_id.tolist() == ["late", "early"]
    assert (np.diff(known_since(found)) > 0).all()


def test_what_is_held_out_is_what_became_known_last_and_is_learned_by_the_next_update() -> None:
    rows = [revision(n % 2, f"n{n}", click=(float(n % 2), n)) for n in range(20)]

    now, held = news(*rows).parted(0.2)
    again = read_news(held.parquet(), CHECKPOINT.about)

    assert {int(ident[1:]) for ident in held.examples.example_id} == set(range(16, 20))
    assert len(now) == 16
    assert in_turn([again, news(revision(1, "next", click=(1.0, 30)))]).example_id.tolist() == [
        *(f"n{n}" for n in range(16, 20)),
        "next",
    ]


def test_what_waits_to_be_learned_keeps_which_of_its_labels_are_news() -> None:
    waiting = read_news(news(NOT_BOUGHT).parquet(), CHECKPOINT.about)

    assert waiting.examples.labels["click"].tolist() == [1]
    assert np.isnan(waiting.unlearned().labels["click"]).all()
    assert waiting.unlearned().labels["purchase"].tolist() == [0]


def test_nothing_waits_where_nothing_came() -> None:
    assert news().parquet() == b""
