"""Scores in examples, and sampling of negatives."""

import math

import msgspec
import numpy as np
import pytest
from msgspec.structs import replace

from contract.features.declaration import Block
from contract.features.packing import pack
from contract.hashing import hash_text
from contract.messages import ScoredRow, read_example, to_msgpack
from contract.tasks import Task
from tests.contract.joining.builders import (
    FRAUD,
    count_outcomes,
    feed_joiner,
    make_click,
    make_impression,
    make_joiner,
    make_label,
    make_row,
    minutes_to_ms,
    take_labels,
    take_newest_examples,
)

SCORES = {"click": (0.1, 0.2, 0.3), "purchase": (0.01, 0.02, 0.03)}
LIST = replace(
    make_row("recommendation", "r", 0, ("a", "b", "c")),
    scores=SCORES,
    shadow_version="m2",
    shadow={"click": (0.4, 0.5, 0.6)},
    experiments={"longer": "variant"},
)
ORDER = replace(make_row("order", "o", 0), scores={"fraud": (0.9,)}, shadow_version="m2", shadow={"fraud": (0.7,)})
HALF = (Task("click", "binary", (), "recommend", negative_rate=0.5), FRAUD)
MANY = tuple(f"i{n}" for n in range(200))


def test_a_list_item_has_the_scores_of_both_models() -> None:
    example = take_newest_examples(make_joiner(LIST, make_impression(1, "b"), make_click(2, "b")))["r~b"]

    assert example.served == {"click": 0.2, "purchase": 0.02}
    assert (example.shadow_version, example.shadow) == ("m2", {"click": 0.5})


def test_an_example_has_the_arms_of_its_list_and_others_have_none() -> None:
    example = take_newest_examples(make_joiner(LIST, make_impression(1, "b"), make_click(2, "b")))["r~b"]
    order = take_newest_examples(make_joiner(ORDER, make_label(1, 1.0)))["o"]

    assert example.experiments == {"longer": "variant"}
    assert order.experiments is msgspec.UNSET
    assert b"experiments" not in to_msgpack(order)


def test_a_search_item_has_its_scores() -> None:
    served = replace(make_row("search", "s", 0, ("a", "b"), query="q"), scores={"relevance": (0.3, 0.6)})
    joiner = make_joiner(served, make_click(5, "b", recommendation_id=None, query="q"))
    joiner.advance(minutes_to_ms(30) + 1)

    actual = take_newest_examples(joiner)

    assert [actual[f"s~{item}"].served for item in "ab"] == [{"relevance": 0.3}, {"relevance": 0.6}]
    assert actual["s~a"].shadow_version == ""


def test_every_revision_of_an_order_has_its_scores() -> None:
    joiner = make_joiner(ORDER, make_label(5, 1), make_label(6, 0))

    output = joiner.drain().examples

    assert [(e.served, e.shadow_version, e.shadow) for e in output] == [({"fraud": 0.9}, "m2", {"fraud": 0.7})] * 2


def test_a_row_without_scores_gives_none() -> None:
    example = take_newest_examples(make_joiner(make_row("order", "o", 0), make_label(5, 1)))["o"]

    assert (example.served, example.shadow_version, example.shadow) == ({}, "", {})


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_left_out(bad: float) -> None:
    served = replace(LIST, scores={"click": (0.1, bad, 0.3), "purchase": (bad, 0.02, 0.03)})

    actual = take_newest_examples(
        make_joiner(served, make_impression(1, "a", "b"), make_click(2, "a"), make_click(2, "b"))
    )

    assert (actual["r~a"].served, actual["r~b"].served) == ({"click": 0.1}, {"purchase": 0.02})


def test_missing_scores_are_those_of_the_last_items() -> None:
    served = replace(LIST, scores={"click": (0.1,)})

    actual = take_newest_examples(
        make_joiner(served, make_impression(1, "a", "b"), make_click(2, "a"), make_click(2, "b"))
    )

    assert (actual["r~a"].served, actual["r~b"].served) == ({"click": 0.1}, {})


def test_features_that_are_not_finite_are_kept_bit_by_bit() -> None:
    unknown = pack(Block(np.array([[math.nan, math.inf]], np.float32), np.array([[7]])))
    served = replace(make_row("order", "o", 0), groups={"order": unknown})

    example = take_newest_examples(make_joiner(served, make_label(5, 1)))["o"]

    assert read_example(to_msgpack(example)).groups == served.groups
    assert math.isnan(example.groups["order"].unpack().numbers[0, 0])


def make_long_list() -> ScoredRow:
    return make_row("recommendation", "r", 0, MANY)


def test_sampled_negatives_have_their_rate() -> None:
    joiner = make_joiner(make_long_list(), make_impression(1, *MANY), tasks=HALF)
    joiner.advance(minutes_to_ms(40))

    actual = take_newest_examples(joiner)

    assert 70 < len(actual) < 130
    assert {e.negative_rate for e in actual.values()} == {0.5}
    assert count_outcomes(joiner) == {("sampled", "click"): 200 - len(actual)}


def test_negatives_are_sampled_by_the_hash_of_their_ids() -> None:
    joiner = make_joiner(make_long_list(), make_impression(1, *MANY), tasks=HALF)
    joiner.advance(minutes_to_ms(40))

    assert take_newest_examples(joiner).keys() == {f"r~{item}" for item in MANY if hash_text(f"r~{item}") < 2**63}


def test_positives_are_never_sampled() -> None:
    joiner = make_joiner(
        make_long_list(), make_impression(1, *MANY), *(make_click(2, item) for item in MANY), tasks=HALF
    )

    actual = take_newest_examples(joiner)

    assert len(actual) == 200
    assert {e.negative_rate for e in actual.values()} == {1.0}


def test_a_negative_left_out_becomes_a_positive_if_clicked_later() -> None:
    joiner = make_joiner(make_long_list(), make_impression(1, *MANY), tasks=HALF)
    joiner.advance(minutes_to_ms(40))
    sampled = take_newest_examples(joiner)
    left_out = next(item for item in MANY if f"r~{item}" not in sampled)

    feed_joiner(joiner, make_click(41, left_out))

    assert take_labels(joiner) == [(f"r~{left_out}", 1, {"click": 1.0})]


def test_clicked_items_that_are_not_bought_are_not_sampled() -> None:
    joiner = make_joiner(
        make_long_list(), make_impression(1, *MANY), *(make_click(2, item) for item in MANY), tasks=HALF
    )
    joiner.drain()

    joiner.advance(minutes_to_ms(63))

    assert len(take_labels(joiner)) == 200


def test_items_that_were_never_shown_are_not_sampled() -> None:
    joiner = make_joiner(make_long_list(), make_impression(1, *MANY[:20]), tasks=HALF)

    joiner.advance(minutes_to_ms(1000))

    sampled = take_newest_examples(joiner)
    assert sampled.keys() <= {f"r~{item}" for item in MANY[:20]}
    assert count_outcomes(joiner) == {("sampled", "click"): 20 - len(sampled)}


def test_skipped_items_of_a_search_are_sampled_by_the_relevance_rate() -> None:
    tasks = (Task("relevance", "binary", (), "search", negative_rate=0.3),)
    searches = [make_row("search", f"s{n}", n / 10, MANY[:10], query=f"q{n}") for n in range(20)]
    clicks = [make_click(5, "i3", recommendation_id=None, query=f"q{n}", ident=f"c{n}") for n in range(20)]
    joiner = make_joiner(*searches, *clicks, tasks=tasks)
    joiner.advance(minutes_to_ms(33))

    actual = take_newest_examples(joiner).values()

    clicked = [e for e in actual if e.labels == {"relevance": 1.0}]
    skipped = [e for e in actual if e.labels == {"relevance": 0.0}]
    assert (len(clicked), {e.negative_rate for e in clicked}) == (20, {1.0})
    assert 30 < len(skipped) < 80
    assert {e.negative_rate for e in skipped} == {0.3}
    assert count_outcomes(joiner) == {("sampled", "relevance"): 180 - len(skipped)}
