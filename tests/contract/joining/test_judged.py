"""What is said later of an order, a review or a product."""

from collections.abc import Callable

from contract.events import Judgement
from contract.joining.joiner import Joiner
from contract.joining.judged import LABELS_MAX
from contract.joining.output import Origin, Orphan
from contract.joining.parking import EACH_MAX
from contract.tasks import Task
from tests.contract.joining.shop import (
    BRUSHING,
    FEEDBACK,
    FRAUD,
    at,
    block,
    click,
    examples,
    fates,
    give,
    joiner,
    label,
    row,
    said,
)

ORDER = row("order", "o", 0)
REVIEW = row("review", "v", 0)
PRODUCT = row("product", "p", 0, user="")
FAKE = Task("fake_review", "binary", ("user", "review", "item"), "review")
CATEGORY = Task("category", "multiclass", ("item",), "classify")
WINDOW = 20 * 60  # minutes


def test_a_label_makes_an_example_of_the_order_as_served() -> None:
    given = joiner(ORDER, label(90, 1))

    example = examples(given)["o"]

    assert (example.labels, example.known_ms) == ({"fraud": 1.0}, {"fraud": at(90)})
    assert (example.event_id, example.item_id, example.ts_ms) == ("o", "", 0)
    assert example.groups == {"user": block(1, 1000), "order": block(1, 1001), "context": block(1, 1002)}


def test_a_label_is_sent_on_with_the_entities_of_what_it_judges() -> None:
    given = joiner(ORDER, label(90, 1, ident="chargeback"))

    assert given.take().judgements == [
        Judgement(
            event_id="chargeback",
            ts_ms=at(90),
            user_id="u",
            judged_event_id="o",
            task="fraud",
            value=1.0,
            entities=("user:u", "device:d"),
        )
    ]


def test_labels_of_several_tasks_gather_in_rising_revisions() -> None:
    given = joiner(ORDER, label(5, 0), label(7, 1, task="brushing"), label(9, 1))

    assert said(given) == [
        ("o", 2, {"fraud": 0.0}),
        ("o", 4, {"fraud": 0.0, "brushing": 1.0}),
        ("o", 6, {"fraud": 1.0, "brushing": 1.0}),
    ]


def test_not_fraud_is_said_after_the_window_and_not_before() -> None:
    given = joiner(ORDER, tasks=(FRAUD, BRUSHING))

    given.advance(at(WINDOW))
    assert said(given) == []
    given.advance(at(WINDOW) + 1)

    example = examples(given)["o"]
    assert (example.revision, example.labels) == (1, {"fraud": 0.0, "brushing": 0.0})
    assert example.known_ms == {"fraud": at(WINDOW), "brushing": at(WINDOW)}


def test_silence_is_no_judgement() -> None:
    given = joiner(ORDER)

    given.advance(at(WINDOW) + 1)

    assert given.take().judgements == []


def test_silence_speaks_only_of_tasks_without_a_label() -> None:
    given = joiner(ORDER, label(90, 1), tasks=(FRAUD, BRUSHING))

    given.advance(at(WINDOW) + 1)

    assert examples(given)["o"].labels == {"fraud": 1.0, "brushing": 0.0}


def test_silence_says_nothing_of_an_order_that_is_labelled_in_full() -> None:
    given = joiner(ORDER, label(90, 1))
    given.take()

    given.advance(at(WINDOW) + 1)

    assert said(given) == []


def test_a_label_in_the_grace_corrects_and_one_after_it_is_late() -> None:
    in_grace, past = joiner(ORDER, label(WINDOW + 15, 1)), joiner(ORDER, label(WINDOW + 15.1, 1))

    assert [(revision, labels) for _, revision, labels in said(in_grace)] == [(1, {"fraud": 0.0}), (3, {"fraud": 1.0})]
    assert said(past) == []
    assert fates(past) == {("late", "fraud"): 1}


def test_the_same_revision_says_the_same_whether_the_timer_or_the_label_came_first() -> None:
    timer_first = joiner(ORDER, tasks=(FRAUD, BRUSHING))
    timer_first.advance(at(WINDOW) + 1)
    give(timer_first, label(90, 1))
    label_first = joiner(ORDER, label(90, 1), tasks=(FRAUD, BRUSHING))
    label_first.advance(at(WINDOW) + 1)

    ones, others = examples(timer_first), examples(label_first)

    assert ones == others
    assert ones["o"].revision == 3


def test_an_order_waits_since_the_earliest_of_its_parts() -> None:
    given = joiner(row("order", "o", 10))
    assert given.oldest_open_ms() == at(10)

    give(given, label(9, 1))

    assert given.oldest_open_ms() == at(9)


def test_a_label_after_the_row_left_is_late() -> None:
    given = joiner(ORDER)
    given.advance(at(WINDOW + 15) + 1)
    given.take()

    give(given, label(90, 1))

    assert said(given) == []
    assert fates(given) == {("late", "fraud"): 1}


def test_a_label_that_comes_before_its_row_is_kept_for_it() -> None:
    given = joiner(label(90, 1))
    assert said(given) == []

    give(given, ORDER)

    assert examples(given)["o"].labels == {"fraud": 1.0}
    assert given.counts["parked", "fraud"] == 1


def test_a_label_whose_row_never_comes_is_an_orphan_in_the_end() -> None:
    given = joiner(label(0, 1))

    given.advance(at(WINDOW))
    assert (given.oldest_open_ms(), fates(given)) == (0, {})
    given.advance(at(WINDOW) + 1)
    assert (given.oldest_open_ms(), fates(given)) == (None, {("orphan", "fraud"): 1})


def test_the_oldest_parked_labels_leave_as_orphans() -> None:
    few = FEEDBACK.model_copy(update={"parked_max": 2})
    labels = [label(n, 1, of=f"o{n}") for n in range(3)]

    given = joiner(*labels, *(row("order", f"o{n}", n) for n in range(3)), feedback=few)

    assert examples(given).keys() == {"o1", "o2"}
    assert fates(given) == {("orphan", "fraud"): 1}


def test_a_label_for_another_users_order_is_refused() -> None:
    given = joiner(ORDER, label(90, 1, user="v"))

    taken = given.take()
    assert (taken.examples, taken.judgements) == ([], [])
    assert fates(given) == {("foreign", "fraud"): 1}


def test_a_parked_label_of_another_user_is_refused_when_its_row_comes() -> None:
    given = joiner(label(90, 1, user="v"), ORDER)

    assert said(given) == []
    assert fates(given) == {("foreign", "fraud"): 1}


def test_a_label_that_says_nothing_new_is_a_duplicate() -> None:
    first = label(90, 1, ident="l")
    redelivered, repeated = label(95, 0, ident="l"), label(96, 1, ident="m")

    given = joiner(ORDER, first, redelivered, repeated)

    assert [labels for _, _, labels in said(given)] == [{"fraud": 1.0}]
    assert fates(given) == {("duplicate", "fraud"): 2}


def test_a_label_that_confirms_what_silence_said_is_a_judgement_all_the_same() -> None:
    given = joiner(ORDER)
    given.advance(at(WINDOW) + 1)
    given.take()

    give(given, label(WINDOW + 10, 0))

    taken = given.take()
    assert [(e.revision, e.labels, e.known_ms) for e in taken.examples] == [
        (3, {"fraud": 0.0}, {"fraud": at(WINDOW + 10)})
    ]
    assert len(taken.judgements) == 1


def test_a_label_of_a_task_that_nobody_declared_is_joined_and_counted_as_other() -> None:
    given = joiner(ORDER, label(5, "x", task="novel"), label(6, "x", task="novel"))

    assert examples(given)["o"].labels == {"novel": "x"}
    assert fates(given) == {("duplicate", "other"): 1}


def test_an_order_takes_a_bounded_number_of_labels() -> None:
    flips = [label(n, n, ident=f"l{n}") for n in range(LABELS_MAX + 3)]

    given = joiner(ORDER, *flips)

    assert len(said(given)) == LABELS_MAX
    assert fates(given) == {("crowded", "fraud"): 3}


def test_the_oldest_orders_leave_when_there_are_too_many() -> None:
    few = FEEDBACK.model_copy(update={"rows_max": 2})

    given = joiner(*(row("order", f"o{n}", n) for n in range(3)), feedback=few)
    given.advance(at(WINDOW + 3))

    assert examples(given).keys() == {"o1", "o2"}
    assert fates(given) == {("crowded", "fraud"): 1}


def test_judgements_and_rows_of_clicks_wait_for_nothing() -> None:
    judged: Callable[[], Judgement] = joiner(ORDER, label(90, 1)).take().judgements.pop

    given: Joiner = joiner(row("click", "c", 0), judged(), click(3, "a", of=None))

    assert given.oldest_open_ms() is None
    assert fates(given) == {}


def test_a_flood_of_labels_for_one_order_that_has_not_come_waits_in_bounded_number() -> None:
    flood = [label(n / 100, n, ident=f"l{n}") for n in range(100 * EACH_MAX)]

    given = joiner(*flood, ORDER)

    assert len(said(given)) == LABELS_MAX
    assert fates(given) == {("orphan", "fraud"): 99 * EACH_MAX, ("crowded", "fraud"): EACH_MAX - LABELS_MAX}


def test_a_review_is_honest_after_its_window_and_not_before() -> None:
    given = joiner(REVIEW, tasks=(FRAUD, FAKE))

    given.advance(at(WINDOW))
    assert said(given) == []
    given.advance(at(WINDOW) + 1)

    assert said(given) == [("v", 1, {"fake_review": 0.0})]


def test_a_fake_review_is_an_example_of_the_review_as_served_and_a_judgement_of_its_entities() -> None:
    given = joiner(REVIEW, label(9, 1, of="v", task="fake_review"), tasks=(FRAUD, FAKE))

    taken = given.take()

    (example,) = taken.examples
    assert example.labels == {"fake_review": 1.0}
    assert example.groups.keys() == {"user", "review", "item"}
    assert [(j.judged_event_id, j.task, j.entities) for j in taken.judgements] == [
        ("v", "fake_review", ("user:u", "device:d"))
    ]


def test_a_corrected_category_is_a_label_of_the_product_whoever_corrects_it() -> None:
    given = joiner(PRODUCT, label(9, "kitchen", of="p", task="category", user="editor"), tasks=(CATEGORY,))

    assert said(given) == [("p", 2, {"category": "kitchen"})]


def test_silence_says_nothing_of_a_product() -> None:
    given = joiner(PRODUCT, tasks=(FRAUD, FAKE, CATEGORY))

    given.advance(at(WINDOW + 15) + 1)

    assert said(given) == []
    assert given.oldest_open_ms() is None


def test_silence_answers_yes_or_no_and_nothing_else() -> None:
    weight = Task("weight", "regression", ("order",), "decide")
    given = joiner(ORDER, tasks=(FRAUD, weight))

    given.advance(at(WINDOW) + 1)

    assert said(given) == [("o", 1, {"fraud": 0.0})]


def test_an_order_and_a_review_of_one_id_are_told_apart_by_who_came_first() -> None:
    given = joiner(ORDER, row("review", "o", 1), tasks=(FRAUD, FAKE))

    given.advance(at(WINDOW) + 1)

    assert said(given) == [("o", 1, {"fraud": 0.0})]
    assert fates(given) == {("duplicate", "row"): 1}


def test_a_label_whose_row_never_came_is_told_with_where_it_was_read() -> None:
    given, origin = joiner(), Origin("shop.labels", 2, 7)
    given.event(label(0, 1, of="gone"), origin)

    given.advance(at(WINDOW) + 1)

    assert given.take().orphans == [Orphan("fraud", "gone", origin)]
    assert given.take().orphans == []
