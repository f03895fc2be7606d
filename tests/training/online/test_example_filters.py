import numpy as np
import pytest

from contract.events.model import AHEAD_MS_MAX
from tests.training.examples import make_examples
from training.data.examples import Examples
from training.online.example_filters import USER_ROWS_MIN, filter_examples

SHARE = 0.05


def make_plausible_examples(rows: int = 60) -> Examples:
    examples = make_examples(rows, 3)
    examples.user_id[:] = [f"u{n}" for n in range(len(examples))]
    return examples


def newest_ms(examples: Examples) -> int:
    return int(max(examples.ts_ms.max(), *(ms.max() for ms in examples.known_ms.values())))


def test_plausible_examples_all_pass() -> None:
    actual = make_plausible_examples()

    rows, left_out = filter_examples(actual, None, newest_ms(actual), SHARE)

    assert (len(rows), left_out) == (len(actual), {})


@pytest.mark.parametrize("number", [np.inf, -np.inf, 2e18, -2e18])
def test_infinite_and_impossibly_large_numbers_are_left_out(number: float) -> None:
    actual = make_plausible_examples()
    actual.blocks["user"].numbers[4, 0] = number

    rows, left_out = filter_examples(actual, None, 0, SHARE)

    assert left_out == {"of absurd features": 1}
    assert len(rows) == len(actual) - 1


def test_an_unknown_number_passes() -> None:
    actual = make_plausible_examples()
    actual.blocks["user"].numbers[4, 0] = np.nan

    assert filter_examples(actual, None, 0, SHARE)[1] == {}


def test_rows_without_a_group_that_replayed_rows_have_are_left_out() -> None:
    actual, buffered = make_plausible_examples(), make_plausible_examples(100)
    row = int(np.flatnonzero(~np.isnan(actual.labels["click"]))[0])
    actual.blocks["user"].numbers[row], actual.blocks["user"].ids[row] = np.nan, 0

    assert filter_examples(actual, buffered, 0, SHARE)[1] == {"without features": 1}
    assert filter_examples(actual, None, 0, SHARE)[1] == {}


def test_a_group_that_replayed_rows_lack_too_is_not_required() -> None:
    actual = make_plausible_examples()
    actual.blocks["user"].numbers[:], actual.blocks["user"].ids[:] = np.nan, 0

    assert filter_examples(actual, actual, 0, SHARE)[1] == {}


@pytest.mark.parametrize(("before_ms", "left_out"), [(AHEAD_MS_MAX, 0), (AHEAD_MS_MAX + 1, 1)])
def test_labels_known_well_before_their_event_are_left_out(before_ms: int, left_out: int) -> None:
    actual = make_plausible_examples()
    row = int(np.flatnonzero(~np.isnan(actual.labels["fraud"]))[0])
    actual.known_ms["fraud"][row] = actual.ts_ms[row] - before_ms

    assert filter_examples(actual, None, 0, SHARE)[1].get("known before they happened", 0) == left_out


@pytest.mark.parametrize("time", ["event", "label"])
@pytest.mark.parametrize(("after_ms", "left_out"), [(AHEAD_MS_MAX, 0), (AHEAD_MS_MAX + 1, 1)])
def test_rows_well_ahead_of_the_newest_record_are_left_out(time: str, after_ms: int, left_out: int) -> None:
    actual = make_plausible_examples()
    now_ms, row = newest_ms(actual), int(np.flatnonzero(~np.isnan(actual.labels["fraud"]))[0])
    actual.known_ms["fraud"][row] = now_ms + after_ms
    if time == "event":
        actual.ts_ms[row] = now_ms + after_ms

    assert filter_examples(actual, None, now_ms, SHARE)[1].get("from the future", 0) == left_out


def test_without_a_record_time_no_row_is_from_the_future() -> None:
    actual = make_plausible_examples()
    actual.ts_ms[:] += 10**12
    for ms in actual.known_ms.values():
        ms += 10**12

    assert filter_examples(actual, None, 0, SHARE)[1] == {}


def test_one_user_may_have_a_fixed_number_of_rows() -> None:
    actual = make_plausible_examples(USER_ROWS_MIN + 80)
    actual.user_id[: USER_ROWS_MIN + 30] = "one"

    rows, left_out = filter_examples(actual, None, 0, SHARE)

    assert left_out == {"too many of one user": len(actual) - len(rows)}
    assert (actual.user_id[rows] == "one").sum() == USER_ROWS_MIN


def test_one_user_may_have_a_share_of_many_rows() -> None:
    actual = make_plausible_examples(1_000)
    actual.user_id[:200] = "one"

    rows, _ = filter_examples(actual, None, 0, 0.2)

    assert (actual.user_id[rows] == "one").sum() == int(0.2 * (len(actual) - 200))


def test_rows_without_a_user_have_no_quota() -> None:
    actual = make_plausible_examples(400)
    actual.user_id[:] = ""

    assert filter_examples(actual, None, 0, SHARE)[1] == {}


def test_each_filtered_example_is_counted_once() -> None:
    actual = make_plausible_examples()
    actual.blocks["user"].numbers[:, 0] = np.inf
    actual.known_ms["click"][:] = 1

    rows, left_out = filter_examples(actual, None, 0, SHARE)

    assert (len(rows), left_out) == (0, {"of absurd features": len(actual)})
