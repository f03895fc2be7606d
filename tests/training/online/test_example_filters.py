import numpy as np
import pytest

from contract.events import AHEAD_MS_MAX
from tests.training.examples import make_examples
from training.data.examples import Examples
from training.online.example_filters import USER_ROWS_MIN, filter_examples

SHARE = 0.05


def make_screen_examples(rows: int = 60) -> Examples:
    found = make_examples(rows, 3)
    found.user_id[:] = [f"u{at}" for at in range(len(found))]
    return found


def newest_ms(examples: Examples) -> int:
    return int(max(examples.ts_ms.max(), *(ms.max() for ms in examples.known_ms.values())))


def test_honest_examples_are_all_learned_from() -> None:
    actual = make_screen_examples()

    kept, left_out = filter_examples(actual, None, newest_ms(actual), SHARE)

    assert (len(kept), left_out) == (len(actual), {})


@pytest.mark.parametrize("number", [np.inf, -np.inf, 2e18, -2e18])
def test_numbers_that_nothing_in_a_shop_comes_to_are_left_out(number: float) -> None:
    actual = make_screen_examples()
    actual.blocks["user"].numbers[4, 0] = number

    kept, left_out = filter_examples(actual, None, 0, SHARE)

    assert left_out == {"of absurd features": 1}
    assert len(kept) == len(actual) - 1


def test_a_number_that_is_not_known_is_learned_from() -> None:
    actual = make_screen_examples()
    actual.blocks["user"].numbers[4, 0] = np.nan

    assert filter_examples(actual, None, 0, SHARE)[1] == {}


def test_rows_that_lack_a_group_that_kept_ones_have_are_left_out() -> None:
    actual, kept = make_screen_examples(), make_screen_examples(100)
    row = int(np.flatnonzero(~np.isnan(actual.labels["click"]))[0])
    actual.blocks["user"].numbers[row], actual.blocks["user"].ids[row] = np.nan, 0

    assert filter_examples(actual, kept, 0, SHARE)[1] == {"without features": 1}
    assert filter_examples(actual, None, 0, SHARE)[1] == {}


def test_a_group_that_kept_rows_may_lack_is_no_fault() -> None:
    actual = make_screen_examples()
    actual.blocks["user"].numbers[:], actual.blocks["user"].ids[:] = np.nan, 0

    assert filter_examples(actual, actual, 0, SHARE)[1] == {}


@pytest.mark.parametrize(("before_ms", "left_out"), [(AHEAD_MS_MAX, 0), (AHEAD_MS_MAX + 1, 1)])
def test_labels_known_before_their_event_are_left_out_but_for_clocks_that_differ(before_ms: int, left_out: int) -> None:
    actual = make_screen_examples()
    row = int(np.flatnonzero(~np.isnan(actual.labels["fraud"]))[0])
    actual.known_ms["fraud"][row] = actual.ts_ms[row] - before_ms

    assert filter_examples(actual, None, 0, SHARE)[1].get("known before they happened", 0) == left_out


@pytest.mark.parametrize("what", ["event", "label"])
@pytest.mark.parametrize(("after_ms", "left_out"), [(AHEAD_MS_MAX, 0), (AHEAD_MS_MAX + 1, 1)])
def test_what_lies_ahead_of_the_newest_record_is_left_out(what: str, after_ms: int, left_out: int) -> None:
    actual = make_screen_examples()
    now_ms, row = newest_ms(actual), int(np.flatnonzero(~np.isnan(actual.labels["fraud"]))[0])
    actual.known_ms["fraud"][row] = now_ms + after_ms
    if what == "event":
        actual.ts_ms[row] = now_ms + after_ms

    assert filter_examples(actual, None, now_ms, SHARE)[1].get("from the future", 0) == left_out


def test_without_a_time_of_records_nothing_is_from_the_future() -> None:
    actual = make_screen_examples()
    actual.ts_ms[:] += 10**12
    for ms in actual.known_ms.values():
        ms += 10**12

    assert filter_examples(actual, None, 0, SHARE)[1] == {}


def test_of_one_user_a_stated_number_is_learned_from() -> None:
    actual = make_screen_examples(USER_ROWS_MIN + 80)
    crowd = USER_ROWS_MIN + 30
    actual.user_id[:crowd] = "one"

    kept, left_out = filter_examples(actual, None, 0, SHARE)

    assert left_out == {"too many of one user": len(actual) - len(kept)}
    assert (actual.user_id[kept] == "one").sum() == USER_ROWS_MIN


def test_a_user_may_be_a_share_of_many() -> None:
    actual = make_screen_examples(1_000)
    actual.user_id[:200] = "one"

    kept, _ = filter_examples(actual, None, 0, 0.2)

    assert (actual.user_id[kept] == "one").sum() == int(0.2 * (len(actual) - 200))


def test_rows_of_nobody_crowd_nobody_out() -> None:
    actual = make_screen_examples(400)
    actual.user_id[:] = ""

    assert filter_examples(actual, None, 0, SHARE)[1] == {}


def test_each_example_is_counted_once() -> None:
    actual = make_screen_examples()
    actual.blocks["user"].numbers[:, 0] = np.inf
    actual.known_ms["click"][:] = 1

    kept, left_out = filter_examples(actual, None, 0, SHARE)

    assert (len(kept), left_out) == (0, {"of absurd features": len(actual)})
