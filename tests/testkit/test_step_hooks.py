"""Step hooks run each callback once, at the chosen occurrence of its step."""

from testkit.faults.step_hooks import StepHooks


def test_a_callback_runs_once_at_its_occurrence_from_now_on() -> None:
    # given
    hooks, calls = StepHooks(), list[str]()
    hooks("merge")
    hooks.add("merge", lambda: calls.append("second merge"), occurrence=2)

    # when
    hooks("merge")
    hooks("claim")
    before = (list(calls), hooks.is_pending)
    hooks("merge")
    hooks("merge")

    # then
    assert before == ([], True)
    assert (calls, hooks.is_pending) == (["second merge"], False)


def test_callbacks_of_one_step_count_independently() -> None:
    hooks, calls = StepHooks(), list[int]()
    for occurrence in (1, 2, 2):
        hooks.add("claim", lambda number=occurrence: calls.append(number), occurrence)  # type: ignore[misc]

    for _ in range(3):
        hooks("claim")

    assert calls == [1, 2, 2]


def test_a_callback_may_add_the_next_one() -> None:
    hooks, calls = StepHooks(), list[str]()
    hooks.add("claim", lambda: hooks.add("claim", lambda: calls.append("next")))

    hooks("claim")
    hooks("claim")

    assert calls == ["next"]
