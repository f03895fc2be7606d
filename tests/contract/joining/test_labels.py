"""What is said later of an order, a review or a product."""

from collections.abc import Callable

from contract.events import Judgement
from contract.joining.early_events import PER_KEY_MAX
from contract.joining.joiner import Joiner
from contract.joining.labels import LABELS_MAX
from contract.joining.output import Origin, OrphanLabel
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


def test_a_label_makes_an_example_of_the_order_as_served() -> None:
    given = make_joiner(ORDER, make_label(90, 1))

    example = take_newest_examples(given)["o"]

    assert (example.labels, example.known_ms) == ({"fraud": 1.0}, {"fraud": minutes_to_ms(90)})
    assert (example.event_id, example.item_id, example.ts_ms) == ("o", "", 0)
    assert example.groups == {"user": make_block(1, 1000), "order": make_block(1, 1001), "context": make_block(1, 1002)}


def test_a_label_is_sent_on_with_the_entities_of_what_it_judges() -> None:
    given = make_joiner(ORDER, make_label(90, 1, ident="chargeback"))

    assert given.drain().judgements == [
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


def test_labels_of_several_tasks_gather_in_rising_revisions() -> None:
    given = make_joiner(ORDER, make_label(5, 0), make_label(7, 1, task="brushing"), make_label(9, 1))

    assert take_labels(given) == [
        ("o", 2, {"fraud": 0.0}),
        ("o", 4, {"fraud": 0.0, "brushing": 1.0}),
        ("o", 6, {"fraud": 1.0, "brushing": 1.0}),
    ]


def test_not_fraud_is_said_after_the_window_and_not_before() -> None:
    given = make_joiner(ORDER, tasks=(FRAUD, BRUSHING))

    given.advance(minutes_to_ms(WINDOW))
    assert take_labels(given) == []
    given.advance(minutes_to_ms(WINDOW) + 1)

    example = take_newest_examples(given)["o"]
    assert (example.revision, example.labels) == (1, {"fraud": 0.0, "brushing": 0.0})
    assert example.known_ms == {"fraud": minutes_to_ms(WINDOW), "brushing": minutes_to_ms(WINDOW)}


def test_silence_is_no_judgement() -> None:
    given = make_joiner(ORDER)

    given.advance(minutes_to_ms(WINDOW) + 1)

    assert given.drain().judgements == []


def test_silence_speaks_only_of_tasks_without_a_label() -> None:
    given = make_joiner(ORDER, make_label(90, 1), tasks=(FRAUD, BRUSHING))

    given.advance(minutes_to_ms(WINDOW) + 1)

    assert take_newest_examples(given)["o"].labels == {"fraud": 1.0, "brushing": 0.0}


def test_silence_says_nothing_of_an_order_that_is_labelled_in_full() -> None:
    given = make_joiner(ORDER, make_label(90, 1))
    given.drain()

    given.advance(minutes_to_ms(WINDOW) + 1)

    assert take_labels(given) == []


def test_a_label_in_the_grace_corrects_and_one_after_it_is_late() -> None:
    in_grace, past = make_joiner(ORDER, make_label(WINDOW + 15, 1)), make_joiner(ORDER, make_label(WINDOW + 15.1, 1))

    assert [(revision, labels) for _, revision, labels in take_labels(in_grace)] == [
        (1, {"fraud": 0.0}),
        (3, {"fraud": 1.0}),
    ]
    assert take_labels(past) == []
    assert count_outcomes(past) == {("late", "fraud"): 1}


def test_the_same_revision_says_the_same_whether_the_timer_or_the_label_came_first() -> None:
    timer_first = make_joiner(ORDER, tasks=(FRAUD, BRUSHING))
    timer_first.advance(minutes_to_ms(WINDOW) + 1)
    feed_joiner(timer_first, make_label(90, 1))
    label_first = make_joiner(ORDER, make_label(90, 1), tasks=(FRAUD, BRUSHING))
    label_first.advance(minutes_to_ms(WINDOW) + 1)

    ones, others = take_newest_examples(timer_first), take_newest_examples(label_first)

    assert ones == others
    assert ones["o"].revision == 3


def test_an_order_waits_since_the_earliest_of_its_parts() -> None:
    given = make_joiner(make_row("order", "o", 10))
    assert given.oldest_pending_ms() == minutes_to_ms(10)

    feed_joiner(given, make_label(9, 1))

    assert given.oldest_pending_ms() == minutes_to_ms(9)


def test_a_label_after_the_row_left_is_late() -> None:
    given = make_joiner(ORDER)
    given.advance(minutes_to_ms(WINDOW + 15) + 1)
    given.drain()

    feed_joiner(given, make_label(90, 1))

    assert take_labels(given) == []
    assert count_outcomes(given) == {("late", "fraud"): 1}


def test_a_label_that_comes_before_its_row_is_kept_for_it() -> None:
    given = make_joiner(make_label(90, 1))
    assert take_labels(given) == []

    feed_joiner(given, ORDER)

    assert take_newest_examples(given)["o"].labels == {"fraud": 1.0}
    assert given.counts["parked", "fraud"] == 1


def test_a_label_whose_row_never_comes_is_an_orphan_in_the_end() -> None:
    given = make_joiner(make_label(0, 1))

    given.advance(minutes_to_ms(WINDOW))
    assert (given.oldest_pending_ms(), count_outcomes(given)) == (0, {})
    given.advance(minutes_to_ms(WINDOW) + 1)
    assert (given.oldest_pending_ms(), count_outcomes(given)) == (None, {("orphan", "fraud"): 1})


def test_the_oldest_parked_labels_leave_as_orphans() -> None:
    few = FEEDBACK.model_copy(update={"parked_max": 2})
    labels = [make_label(n, 1, judged_event_id=f"o{n}") for n in range(3)]

    given = make_joiner(*labels, *(make_row("order", f"o{n}", n) for n in range(3)), feedback=few)

    assert take_newest_examples(given).keys() == {"o1", "o2"}
    assert count_outcomes(given) == {("orphan", "fraud"): 1}


def test_a_label_for_another_users_order_is_refused() -> None:
    given = make_joiner(ORDER, make_label(90, 1, user="v"))

    taken = given.drain()
    assert (taken.examples, taken.judgements) == ([], [])
    assert count_outcomes(given) == {("foreign", "fraud"): 1}


def test_a_parked_label_of_another_user_is_refused_when_its_row_comes() -> None:
    given = make_joiner(make_label(90, 1, user="v"), ORDER)

    assert take_labels(given) == []
    assert count_outcomes(given) == {("foreign", "fraud"): 1}


def test_a_label_that_says_nothing_new_is_a_duplicate() -> None:
    first = make_label(90, 1, ident="l")
    redelivered, repeated = make_label(95, 0, ident="l"), make_label(96, 1, ident="m")

    given = make_joiner(ORDER, first, redelivered, repeated)

    assert [labels for _, _, labels in take_labels(given)] == [{"fraud": 1.0}]
    assert count_outcomes(given) == {("duplicate", "fraud"): 2}


def test_a_label_that_confirms_what_silence_said_is_a_judgement_all_the_same() -> None:
    given = make_joiner(ORDER)
    given.advance(minutes_to_ms(WINDOW) + 1)
    given.drain()

    feed_joiner(given, make_label(WINDOW + 10, 0))

    taken = given.drain()
    assert [(e.revision, e.labels, e.known_ms) for e in taken.examples] == [
        (3, {"fraud": 0.0}, {"fraud": minutes_to_ms(WINDOW + 10)})
    ]
    assert len(taken.judgements) == 1


def test_a_label_of_a_task_that_nobody_declared_is_joined_and_counted_as_other() -> None:
    given = make_joiner(ORDER, make_label(5, "x", task="novel"), make_label(6, "x", task="novel"))

    assert take_newest_examples(given)["o"].labels == {"novel": "x"}
    assert count_outcomes(given) == {("duplicate", "other"): 1}


def test_an_order_takes_a_bounded_number_of_labels() -> None:
    flips = [make_label(n, n, ident=f"l{n}") for n in range(LABELS_MAX + 3)]

    given = make_joiner(ORDER, *flips)

    assert len(take_labels(given)) == LABELS_MAX
    assert count_outcomes(given) == {("crowded", "fraud"): 3}


def test_the_oldest_orders_leave_when_there_are_too_many() -> None:
    few = FEEDBACK.model_copy(update={"rows_max": 2})

    given = make_joiner(*(make_row("order", f"o{n}", n) for n in range(3)), feedback=few)
    given.advance(minutes_to_ms(WINDOW + 3))

    assert take_newest_examples(given).keys() == {"o1", "o2"}
    assert count_outcomes(given) == {("crowded", "fraud"): 1}


def test_judgements_and_rows_of_clicks_wait_for_nothing() -> None:
    judged: Callable[[], Judgement] = make_joiner(ORDER, make_label(90, 1)).drain().judgements.pop

    given: Joiner = make_joiner(make_row("click", "c", 0), judged(), make_click(3, "a", recommendation_id=None))

    assert given.oldest_pending_ms() is None
    assert count_outcomes(given) == {}


def test_a_flood_of_labels_for_one_order_that_has_not_come_waits_in_bounded_number() -> None:
    flood = [make_label(n / 100, n, ident=f"l{n}") for n in range(100 * PER_KEY_MAX)]

    given = make_joiner(*flood, ORDER)

    assert len(take_labels(given)) == LABELS_MAX
    assert count_outcomes(given) == {
        ("orphan", "fraud"): 99 * PER_KEY_MAX,
        ("crowded", "fraud"): PER_KEY_MAX - LABELS_MAX,
    }


def test_a_review_is_honest_after_its_window_and_not_before() -> None:
    given = make_joiner(REVIEW, tasks=(FRAUD, FAKE))

    given.advance(minutes_to_ms(WINDOW))
    assert take_labels(given) == []
    given.advance(minutes_to_ms(WINDOW) + 1)

    assert take_labels(given) == [("v", 1, {"fake_review": 0.0})]


def test_a_fake_review_is_an_example_of_the_review_as_served_and_a_judgement_of_its_entities() -> None:
    given = make_joiner(REVIEW, make_label(9, 1, judged_event_id="v", task="fake_review"), tasks=(FRAUD, FAKE))

    taken = given.drain()

    (example,) = taken.examples
    assert example.labels == {"fake_review": 1.0}
    assert example.groups.keys() == {"user", "review", "item"}
    assert [(j.judged_event_id, j.task, j.entities) for j in taken.judgements] == [
        ("v", "fake_review", ("user:u", "device:d"))
    ]


def test_a_corrected_category_is_a_label_of_the_product_whoever_corrects_it() -> None:
    given = make_joiner(
        PRODUCT, make_label(9, "kitchen", judged_event_id="p", task="category", user="editor"), tasks=(CATEGORY,)
    )

    assert take_labels(given) == [("p", 2, {"category": "kitchen"})]


def test_silence_says_nothing_of_a_product() -> None:
    given = make_joiner(PRODUCT, tasks=(FRAUD, FAKE, CATEGORY))

    given.advance(minutes_to_ms(WINDOW + 15) + 1)

    assert take_labels(given) == []
    assert given.oldest_pending_ms() is None


def test_silence_answers_yes_or_no_and_nothing_else() -> None:
    weight = Task("weight", "regression", ("order",), "decide")
    given = make_joiner(ORDER, tasks=(FRAUD, weight))

    given.advance(minutes_to_ms(WINDOW) + 1)

    assert take_labels(given) == [("o", 1, {"fraud": 0.0})]


def test_an_order_and_a_review_of_one_id_are_told_apart_by_who_came_first() -> None:
    given = make_joiner(ORDER, make_row("review", "o", 1), tasks=(FRAUD, FAKE))

    given.advance(minutes_to_ms(WINDOW) + 1)

    assert take_labels(given) == [("o", 1, {"fraud": 0.0})]
    assert count_outcomes(given) == {("duplicate", "row"): 1}


def test_a_label_whose_row_never_came_is_told_with_where_it_was_read() -> None:
    given, origin = make_joiner(), Origin("shop.labels", 2, 7)
    given.add_event(make_label(0, 1, judged_event_id="gone"), origin)

    given.advance(minutes_to_ms(WINDOW) + 1)

    assert given.drain().orphans == [OrphanLabel("fraud", "gone", origin)]
    assert given.drain().orphans == []
