"""An erasure removes what waits for a person's further events; everybody else's examples stay the same."""

from collections.abc import Sequence

import pytest

from contract.events.model import Event
from contract.joining.joiner import Joiner
from contract.joining.output import JoinOutput
from contract.messages import ScoredRow
from tests.contract.joining.builders import (
    FEEDBACK,
    FRAUD,
    feed_joiner,
    make_click,
    make_impression,
    make_joiner,
    make_label,
    make_order,
    make_row,
    minutes_to_ms,
)
from tests.worker.joiner_simulation import END_MINUTES, USERS, simulate_shop

Input = ScoredRow | Event
LIST = make_row("recommendation", "r", 0, ("a", "b"))
SEARCH = make_row("search", "s", 0, ("a", "b"), query="q")
SEARCH_CLICK = make_click(5, "a", recommendation_id=None, query="q")
WAITING: dict[str, tuple[Sequence[Input], Sequence[Input]]] = {
    "a list without an impression": ([LIST], [make_impression(2, "a"), make_click(3, "a")]),
    "a list that was shown": ([LIST, make_impression(2, "a", "b")], [make_click(3, "a")]),
    "a click that came before its list": ([make_click(3, "a")], [LIST, make_impression(2, "a")]),
    "a clicked item": ([LIST, make_impression(1, "a"), make_click(2, "a")], [make_order(5, "a")]),
    "an order that came before its click": ([make_order(5, "a")], [LIST, make_impression(1, "a"), make_click(2, "a")]),
    "an order without a label": ([make_row("order", "o", 0)], [make_label(4, 1)]),
    "a label that came before its order": ([make_label(4, 1)], [make_row("order", "o", 0)]),
    "a search without a click": ([SEARCH], [SEARCH_CLICK]),
    "a click that came before its search": ([SEARCH_CLICK], [SEARCH]),
}


def drain_at_end(joiner: Joiner) -> JoinOutput:
    """All that is emitted until every window has closed."""
    joiner.advance(minutes_to_ms(END_MINUTES))
    return joiner.drain()


@pytest.mark.parametrize("name", WAITING)
def test_what_waited_emits_nothing_after_an_erasure(name: str) -> None:
    # given
    before, after = WAITING[name]
    joiner = make_joiner(*before)
    joiner.drain()
    # when
    joiner.erase("u", minutes_to_ms(5))
    # then nothing waits
    assert joiner.oldest_pending_ms() is None
    # and no event makes an example of it, as the joiner skips those that are covered
    feed_joiner(joiner, *(value for value in after if value.ts_ms > minutes_to_ms(5)))
    output = drain_at_end(joiner)
    assert (output.examples, output.judgements) == ([], [])


@pytest.mark.parametrize("name", WAITING)
def test_without_an_erasure_it_would_have_emitted(name: str) -> None:
    before, after = WAITING[name]
    joiner = make_joiner(*before)
    joiner.drain()

    joiner.erase("another", minutes_to_ms(5))
    joiner.erase("u", minutes_to_ms(-1))
    feed_joiner(joiner, *after)

    assert drain_at_end(joiner).examples


def test_a_label_after_an_erasure_gives_no_judgement_of_an_earlier_order() -> None:
    joiner = make_joiner(make_row("order", "o", 0))

    joiner.erase("u", minutes_to_ms(1))
    feed_joiner(joiner, make_label(4, 1))

    assert drain_at_end(joiner).judgements == []


@pytest.mark.parametrize("shop_seed", range(5))
def test_after_an_erasure_the_output_is_that_of_a_joiner_that_never_had_the_person(seed: int, shop_seed: int) -> None:
    # given two joiners over the first half of a shop, one without a person
    inputs = sorted(
        (value for values in simulate_shop(seed + shop_seed).values() for value in values), key=lambda v: v.ts_ms
    )
    half, user = inputs[len(inputs) // 2].ts_ms, USERS[shop_seed]
    former = [value for value in inputs if value.ts_ms <= half]
    later = [value for value in inputs if value.ts_ms > half]
    with_person, without_person = (Joiner(feedback=FEEDBACK, tasks=(FRAUD,)) for _ in range(2))
    feed_joiner(with_person, *former)
    feed_joiner(without_person, *(value for value in former if getattr(value, "user_id", "") != user))
    for joiner in (with_person, without_person):
        joiner.advance(half)
        joiner.drain()
    assert with_person.oldest_pending_ms() is not None
    # when
    with_person.erase(user, half)
    # then both emit the same of the second half
    outputs = []
    for joiner in (with_person, without_person):
        feed_joiner(joiner, *later)
        outputs.append(drain_at_end(joiner))
    assert outputs[0].examples == outputs[1].examples
    assert outputs[0].judgements == outputs[1].judgements
    assert outputs[0].examples
