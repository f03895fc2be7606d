"""When a partition has nothing to tell."""

from worker.intake import Place
from worker.quiet import Quiet

CLICKS, LABELS = Place("clicks", 0), Place("labels", 0)


def test_a_partition_is_quiet_when_it_has_been_at_its_end_for_a_while() -> None:
    quiet = Quiet(after_s=2)

    assert quiet.note([CLICKS], [CLICKS], 10.0) == set()
    assert quiet.note([CLICKS], [], 11.9) == set()
    assert quiet.note([CLICKS], [], 12.0) == {CLICKS}


def test_a_record_begins_the_wait_anew() -> None:
    quiet = Quiet(after_s=2)
    quiet.note([CLICKS, LABELS], [], 10.0)

    assert quiet.note([CLICKS, LABELS], [CLICKS], 12.0) == {LABELS}
    assert quiet.note([CLICKS, LABELS], [], 14.0) == {CLICKS, LABELS}


def test_a_partition_with_more_to_read_is_not_quiet() -> None:
    quiet = Quiet(after_s=2)
    quiet.note([CLICKS], [], 10.0)

    assert quiet.note([], [], 13.0) == set()
    assert quiet.note([CLICKS], [], 14.0) == set()


def test_without_a_wait_the_end_is_enough() -> None:
    assert Quiet(after_s=0).note([CLICKS], [CLICKS], 10.0) == {CLICKS}
