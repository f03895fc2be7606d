import numpy as np
import pytest

from contract.tasks import Task
from tests.model.small import CATEGORY, CLICK, FRAUD
from tests.training.examples import make_examples
from training.data.examples import Examples
from training.metrics.ranking import auc
from training.online.label_checks import auc_influence, check_labels, measure_skill
from training.online.promotion_gate import ROWS_MIN

JUMP = 1.5


def make_labelled(task: Task, rows: int, labels: np.ndarray) -> Examples:
    """Rows of many users with these labels of one task."""
    made = make_examples(200, 3)
    found = made.take(np.resize(np.flatnonzero(made.has_label(task)), rows))
    found.labels[task.name][:] = labels
    found.known_ms[task.name][:] = found.ts_ms
    found.user_id[:] = [f"u{indexes // 2}" for indexes in range(rows)]
    return found


def draw_labels(task: Task, rows: int, seed: int, *, times: float = 1.0) -> tuple[Examples, dict[str, np.ndarray]]:
    """Labels that happen `times` as often as is said."""
    rng = np.random.default_rng(seed)
    p = rng.beta(1, 4, rows).astype(np.float32)
    return make_labelled(task, rows, rng.random(rows) < p * times), {task.name: p}


def find_doubts(task: Task, new: tuple[Examples, dict[str, np.ndarray]], seed: int = 2) -> list[str]:
    return list(check_labels([task], new, draw_labels(task, 300, seed), JUMP))


@pytest.mark.parametrize("times", [0.9, 1.0, 1.1])
def test_labels_as_the_model_expects_them_are_believed(times: float) -> None:
    assert find_doubts(CLICK, draw_labels(CLICK, 600, 1, times=times)) == []


MINUTE_MS = 60_000


@pytest.mark.parametrize(("since", "until"), [(0, 25), (120, 185), (170, 230), (200, 260)])
def test_labels_of_which_yes_is_told_before_no_are_believed_whenever_one_looks(since: int, until: int) -> None:
    # Given three hours of clicks that are told after a minute, and of others that are told after half an hour
    (new, said), kept = draw_labels(CLICK, 3_600, 1), draw_labels(CLICK, 300, 2)
    new.ts_ms[:] = np.arange(3_600) // 20 * MINUTE_MS
    for examples in (new, kept[0]):
        wait_ms = np.where(examples.labels["click"] > 0.5, 1, 30) * MINUTE_MS
        examples.known_ms["click"][:] = examples.ts_ms + wait_ms

    # When one looks at what became known within an hour or less, also after everybody has gone
    now = (new.known_ms["click"] >= since * MINUTE_MS) & (new.known_ms["click"] < until * MINUTE_MS)

    assert list(check_labels([CLICK], (new.take(now), {"click": said["click"][now]}), kept, JUMP)) == []


@pytest.mark.parametrize("times", [0.0, 0.3, 2.5])
def test_labels_that_happen_several_times_as_often_or_hardly_at_all_are_not(times: float) -> None:
    (sentence,) = (s for s in find_doubts(CLICK, draw_labels(CLICK, 600, 1, times=times)) if "as often" in s)

    assert sentence.startswith("`click` should happen 0.67 to 1.5 times as often as the present model expects. Found ")


def test_how_often_fraud_is_told_says_little_since_its_absence_is_told_weeks_later() -> None:
    assert find_doubts(FRAUD, draw_labels(FRAUD, 600, 1, times=2.5)) == []


@pytest.mark.parametrize("task", [CLICK, FRAUD])
def test_labels_in_no_order_or_the_opposite_one_are_not_believed(task: Task) -> None:
    new, said = draw_labels(task, 600, 1)
    shuffled = new.with_labels({**new.labels, task.name: np.random.default_rng(3).permutation(new.labels[task.name])})

    (sentence,) = find_doubts(task, (shuffled, said))

    assert sentence.startswith(f"The present model should put in order new `{task.name}` at least 40 % as well")


def test_classes_are_believed_while_the_model_is_right_half_as_often_as_before() -> None:
    y = np.arange(300) % 3
    right = {"category": np.eye(3)[y] * 0.9 + 0.03}
    wrong = {"category": np.eye(3)[(y + 1) % 3] * 0.9 + 0.03}
    rows = make_labelled(CATEGORY, 300, y)

    assert list(check_labels([CATEGORY], (rows, right), (rows, right), JUMP)) == []
    (sentence,) = check_labels([CATEGORY], (rows, wrong), (rows, right), JUMP)
    assert "should be right about new `category`" in sentence


@pytest.mark.parametrize(("rows", "doubted"), [(ROWS_MIN - 1, False), (ROWS_MIN, True)])
def test_a_few_labels_are_left_to_the_gate(rows: int, doubted: bool) -> None:
    assert bool(find_doubts(CLICK, draw_labels(CLICK, rows, 1, times=4.0))) == doubted


def test_without_kept_examples_the_rate_alone_is_looked_at() -> None:
    new, said = draw_labels(CLICK, 600, 1)
    opposite = {"click": said["click"].max() + said["click"].min() - said["click"]}

    assert not any("in order" in sentence for sentence in check_labels([CLICK], (new, opposite), None, JUMP))


def test_worth_is_twice_the_auc_less_one_with_the_bounds_that_chance_has(seed: int) -> None:
    rng, inside = np.random.default_rng(seed), 0
    for _ in range(100):
        y = rng.random(200) < 0.3
        p = rng.normal(y * 1.0, 1.0)
        interval = measure_skill(CLICK, y.astype(np.float32), p, np.arange(200))
        assert interval.value == pytest.approx(2 * auc(y, p) - 1)
        inside += interval.low <= 2 * 0.7602 - 1 <= interval.high  # of two normals one apart

    assert inside >= 88


def test_what_rows_add_to_an_auc_adds_up_to_nothing() -> None:
    y = np.array([True, False, True, False, False])
    p = np.array([0.9, 0.9, 0.3, 0.1, 0.2])

    each = auc_influence(y, p, auc(y, p))

    assert each[y].sum() == pytest.approx(0, abs=1e-12)
    assert each[~y].sum() == pytest.approx(0, abs=1e-12)


def test_labels_that_are_all_equal_have_no_order_to_doubt() -> None:
    new, said = draw_labels(FRAUD, 100, 1)
    new.labels["fraud"][:] = 1

    assert find_doubts(FRAUD, (new, said)) == []
