"""Labels of orders, reviews and products."""

from msgspec.structs import replace

from contract.events.model import Judgement
from contract.joining.early_events import PER_KEY_MAX
from contract.joining.labels import LABELS_MAX
from contract.joining.output import ForeignLabel, Origin, OrphanLabel
from contract.tasks import Task
from tests.contract.joining.builders import (
    BRUSHING,
    FEEDBACK,
    FRAUD,
    count_outcomes,
    feed_joiner,
    make_block,
    make_click,
    make_joiner,
    make_label,
    make_row,
    minutes_to_ms,
    take_labels,
    take_newest_examples,
)

ORDER = make_row("order", "o", 0)
REVIEW = make_row("review", "v", 0)
PRODUCT = make_row("product", "p", 0, user="")
FAKE = Task("fake_review", "binary", ("user", "review", "item"), "review")
CATEGORY = Task("category", "multiclass", ("item",), "classify")
WINDOW = 20 * 60  # minutes


def test_a_label_emits_an_example_with_the_served_features() -> None:
    joiner = make_joiner(ORDER, make_label(90, 1))

    example = take_newest_examples(joiner)["o"]

    assert (example.labels, example.known_ms) == ({"fraud": 1.0}, {"fraud": minutes_to_ms(90)})
    assert (example.event_id, example.item_id, example.ts_ms) == ("o", "", 0)
    assert example.groups == {"user": make_block(1, 1000), "order": make_block(1, 1001), "context": make_block(1, 1002)}


def test_a_label_emits_a_judgement_with_the_entities_of_its_row() -> None:
    joiner = make_joiner(ORDER, make_label(90, 1, ident="chargeback"))

    assert joiner.drain().judgements == [
        Judgement(
            event_id="chargeback",
            ts_ms=minutes_to_ms(90),
            user_id="u",
            judged_event_id="o",
            task="fraud",
            value=1.0,
            entities=("user:u", "device:d"),
        )
    ]


def test_labels_of_several_tasks_accumulate_in_ascending_revisions() -> None:
    joiner = make_joiner(ORDER, make_label(5, 0), make_label(7, 1, task="brushing"), make_label(9, 1))

    assert take_labels(joiner) == [
        ("o", 2, {"fraud": 0.0}),
        ("o", 4, {"fraud": 0.0, "brushing": 1.0}),
        ("o", 6, {"fraud": 1.0, "brushing": 1.0}),
    ]


def test_the_negative_label_is_emitted_after_the_window() -> None:
    joiner = make_joiner(ORDER, tasks=(FRAUD, BRUSHING))

    joiner.advance(minutes_to_ms(WINDOW))
    assert take_labels(joiner) == []
    joiner.advance(minutes_to_ms(WINDOW) + 1)

    example = take_newest_examples(joiner)["o"]
    assert (example.revision, example.labels) == (1, {"fraud": 0.0, "brushing": 0.0})
    assert example.known_ms == {"fraud": minutes_to_ms(WINDOW), "brushing": minutes_to_ms(WINDOW)}


def test_a_passed_window_emits_no_judgement() -> None:
    joiner = make_joiner(ORDER)

    joiner.advance(minutes_to_ms(WINDOW) + 1)

    assert joiner.drain().judgements == []


def test_a_passed_window_only_labels_tasks_without_a_label() -> None:
    joiner = make_joiner(ORDER, make_label(90, 1), tasks=(FRAUD, BRUSHING))

    joiner.advance(minutes_to_ms(WINDOW) + 1)

    assert take_newest_examples(joiner)["o"].labels == {"fraud": 1.0, "brushing": 0.0}


def test_a_passed_window_emits_nothing_for_a_fully_labelled_order() -> None:
    joiner = make_joiner(ORDER, make_label(90, 1))
    joiner.drain()

    joiner.advance(minutes_to_ms(WINDOW) + 1)

    assert take_labels(joiner) == []


def test_a_label_within_the_grace_corrects_and_a_later_one_is_late() -> None:
    in_grace = make_joiner(ORDER, make_label(WINDOW + 15, 1))
    past = make_joiner(ORDER, make_label(WINDOW + 15.1, 1))

    assert [(revision, labels) for _, revision, labels in take_labels(in_grace)] == [
        (1, {"fraud": 0.0}),
        (3, {"fraud": 1.0}),
    ]
    assert take_labels(past) == []
    assert count_outcomes(past) == {("late", "fraud"): 1}


def test_a_revision_does_not_depend_on_the_order_of_timer_and_label() -> None:
    timer_first = make_joiner(ORDER, tasks=(FRAUD, BRUSHING))
    timer_first.advance(minutes_to_ms(WINDOW) + 1)
    feed_joiner(timer_first, make_label(90, 1))
    label_first = make_joiner(ORDER, make_label(90, 1), tasks=(FRAUD, BRUSHING))
    label_first.advance(minutes_to_ms(WINDOW) + 1)

    actual, expected = take_newest_examples(timer_first), take_newest_examples(label_first)

    assert actual == expected
    assert actual["o"].revision == 3


def test_an_order_is_pending_since_its_earliest_part() -> None:
    joiner = make_joiner(make_row("order", "o", 10))
    assert joiner.oldest_pending_ms() == minutes_to_ms(10)

    feed_joiner(joiner, make_label(9, 1))

    assert joiner.oldest_pending_ms() == minutes_to_ms(9)


def test_a_label_after_the_removal_of_its_row_is_late() -> None:
    joiner = make_joiner(ORDER)
    joiner.advance(minutes_to_ms(WINDOW + 15) + 1)
    joiner.drain()

    feed_joiner(joiner, make_label(90, 1))

    assert take_labels(joiner) == []
    assert count_outcomes(joiner) == {("late", "fraud"): 1}


def test_a_label_before_its_row_is_buffered() -> None:
    joiner = make_joiner(make_label(90, 1))
    assert take_labels(joiner) == []

    feed_joiner(joiner, ORDER)

    assert take_newest_examples(joiner)["o"].labels == {"fraud": 1.0}
    assert joiner.counts["parked", "fraud"] == 1


def test_a_label_without_a_row_becomes_an_orphan() -> None:
    joiner = make_joiner(make_label(0, 1))

    joiner.advance(minutes_to_ms(WINDOW))
    assert (joiner.oldest_pending_ms(), count_outcomes(joiner)) == (0, {})
    joiner.advance(minutes_to_ms(WINDOW) + 1)
    assert (joiner.oldest_pending_ms(), count_outcomes(joiner)) == (None, {("orphan", "fraud"): 1})


def test_the_oldest_buffered_labels_are_evicted_as_orphans() -> None:
    limits = FEEDBACK.model_copy(update={"parked_max": 2})
    labels = [make_label(n, 1, judged_event_id=f"o{n}") for n in range(3)]

    joiner = make_joiner(*labels, *(make_row("order", f"o{n}", n) for n in range(3)), feedback=limits)

    assert take_newest_examples(joiner).keys() == {"o1", "o2"}
    assert count_outcomes(joiner) == {("orphan", "fraud"): 1}


def test_a_label_for_an_order_of_another_user_is_refused() -> None:
    joiner = make_joiner(ORDER, make_label(90, 1, user="v"))

    output = joiner.drain()
    assert (output.examples, output.judgements) == ([], [])
    assert output.foreign == [ForeignLabel("l-fraud-90", "fraud", "o")]
    assert joiner.drain().foreign == []
    assert count_outcomes(joiner) == {("foreign", "fraud"): 1}


def test_a_buffered_label_of_another_user_is_refused_when_its_row_arrives() -> None:
    joiner = make_joiner(make_label(90, 1, user="v"), ORDER)

    assert take_labels(joiner) == []
    assert count_outcomes(joiner) == {("foreign", "fraud"): 1}


def test_a_redelivered_or_repeated_label_is_a_duplicate() -> None:
    first = make_label(90, 1, ident="l")
    redelivered, repeated = make_label(95, 0, ident="l"), make_label(96, 1, ident="m")

    joiner = make_joiner(ORDER, first, redelivered, repeated)

    assert [labels for _, _, labels in take_labels(joiner)] == [{"fraud": 1.0}]
    assert count_outcomes(joiner) == {("duplicate", "fraud"): 2}


def test_a_label_that_confirms_the_negative_is_a_judgement() -> None:
    joiner = make_joiner(ORDER)
    joiner.advance(minutes_to_ms(WINDOW) + 1)
    joiner.drain()

    feed_joiner(joiner, make_label(WINDOW + 10, 0))

    output = joiner.drain()
    assert [(e.revision, e.labels, e.known_ms) for e in output.examples] == [
        (3, {"fraud": 0.0}, {"fraud": minutes_to_ms(WINDOW + 10)})
    ]
    assert len(output.judgements) == 1


def test_a_label_of_an_undeclared_task_is_joined_and_counted_as_other() -> None:
    joiner = make_joiner(ORDER, make_label(5, "x", task="novel"), make_label(6, "x", task="novel"))

    assert take_newest_examples(joiner)["o"].labels == {"novel": "x"}
    assert count_outcomes(joiner) == {("duplicate", "other"): 1}


def test_the_labels_of_an_order_are_bounded() -> None:
    flips = [make_label(n, n, ident=f"l{n}") for n in range(LABELS_MAX + 3)]

    joiner = make_joiner(ORDER, *flips)

    assert len(take_labels(joiner)) == LABELS_MAX
    assert count_outcomes(joiner) == {("crowded", "fraud"): 3}


def test_the_oldest_orders_are_evicted_beyond_the_limit() -> None:
    limits = FEEDBACK.model_copy(update={"rows_max": 2})

    joiner = make_joiner(*(make_row("order", f"o{n}", n) for n in range(3)), feedback=limits)
    joiner.advance(minutes_to_ms(WINDOW + 3))

    assert take_newest_examples(joiner).keys() == {"o1", "o2"}
    assert count_outcomes(joiner) == {("crowded", "fraud"): 1}


def test_judgements_and_rows_of_clicks_are_not_pending() -> None:
    (judgement,) = make_joiner(ORDER, make_label(90, 1)).drain().judgements

    joiner = make_joiner(make_row("click", "c", 0), judgement, make_click(3, "a", recommendation_id=None))

    assert joiner.oldest_pending_ms() is None
    assert count_outcomes(joiner) == {}


def test_buffered_labels_of_one_order_are_bounded() -> None:
    flood = [make_label(n / 100, n, ident=f"l{n}") for n in range(100 * PER_KEY_MAX)]

    joiner = make_joiner(*flood, ORDER)

    assert len(take_labels(joiner)) == LABELS_MAX
    assert count_outcomes(joiner) == {
        ("orphan", "fraud"): 99 * PER_KEY_MAX,
        ("crowded", "fraud"): PER_KEY_MAX - LABELS_MAX,
    }


def test_a_review_is_labelled_honest_after_its_window() -> None:
    joiner = make_joiner(REVIEW, tasks=(FRAUD, FAKE))

    joiner.advance(minutes_to_ms(WINDOW))
    assert take_labels(joiner) == []
    joiner.advance(minutes_to_ms(WINDOW) + 1)

    assert take_labels(joiner) == [("v", 1, {"fake_review": 0.0})]


def test_a_fake_review_emits_an_example_and_a_judgement() -> None:
    joiner = make_joiner(REVIEW, make_label(9, 1, judged_event_id="v", task="fake_review"), tasks=(FRAUD, FAKE))

    output = joiner.drain()

    (example,) = output.examples
    assert example.labels == {"fake_review": 1.0}
    assert example.groups.keys() == {"user", "review", "item"}
    assert [(j.judged_event_id, j.task, j.entities) for j in output.judgements] == [
        ("v", "fake_review", ("user:u", "device:d"))
    ]


def test_any_user_may_correct_the_category_of_a_product() -> None:
    joiner = make_joiner(
        PRODUCT, make_label(9, "kitchen", judged_event_id="p", task="category", user="editor"), tasks=(CATEGORY,)
    )

    assert take_labels(joiner) == [("p", 2, {"category": "kitchen"})]


def test_a_passed_window_emits_nothing_for_a_product() -> None:
    joiner = make_joiner(PRODUCT, tasks=(FRAUD, FAKE, CATEGORY))

    joiner.advance(minutes_to_ms(WINDOW + 15) + 1)

    assert take_labels(joiner) == []
    assert joiner.oldest_pending_ms() is None


def test_a_passed_window_only_labels_binary_tasks() -> None:
    weight = Task("weight", "regression", ("order",), "decide")
    joiner = make_joiner(ORDER, tasks=(FRAUD, weight))

    joiner.advance(minutes_to_ms(WINDOW) + 1)

    assert take_labels(joiner) == [("o", 1, {"fraud": 0.0})]


def test_of_two_rows_with_one_id_the_first_counts() -> None:
    joiner = make_joiner(ORDER, make_row("review", "o", 1), tasks=(FRAUD, FAKE))

    joiner.advance(minutes_to_ms(WINDOW) + 1)

    assert take_labels(joiner) == [("o", 1, {"fraud": 0.0})]
    assert count_outcomes(joiner) == {("duplicate", "row"): 1}


def test_an_orphan_label_is_reported_with_its_origin() -> None:
    joiner, origin = make_joiner(), Origin("shop.labels", 2, 7)
    joiner.add_event(make_label(0, 1, judged_event_id="gone"), origin)

    joiner.advance(minutes_to_ms(WINDOW) + 1)

    assert joiner.drain().orphans == [OrphanLabel("fraud", "gone", origin)]
    assert joiner.drain().orphans == []


def test_a_row_whose_id_is_another_event_s_gets_no_label_and_no_example() -> None:
    # given the row of another user's order with the same id, which comes first
    conflict = replace(make_row("order", "o", 0, user="w"), is_conflict=True)
    # when
    joiner = make_joiner(conflict, ORDER, make_label(90, 1))
    joiner.advance(minutes_to_ms(WINDOW + 1))
    # then
    (example,) = joiner.drain().examples
    assert (example.user_id, example.labels) == ("u", {"fraud": 1.0})
