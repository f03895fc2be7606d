"""When a partition has nothing to tell."""

from transport.records import TopicPartition
from worker.joiner.idle_partitions import IdlePartitions

CLICKS, LABELS = TopicPartition("clicks", 0), TopicPartition("labels", 0)


def test_a_partition_is_quiet_when_it_has_been_at_its_end_for_a_while() -> None:
    quiet = IdlePartitions(after_s=2)

    assert quiet.update([CLICKS], [CLICKS], 10.0) == set()
    assert quiet.update([CLICKS], [], 11.9) == set()
    assert quiet.update([CLICKS], [], 12.0) == {CLICKS}


def test_a_record_begins_the_wait_anew() -> None:
    quiet = IdlePartitions(after_s=2)
    quiet.update([CLICKS, LABELS], [], 10.0)

    assert quiet.update([CLICKS, LABELS], [CLICKS], 12.0) == {LABELS}
    assert quiet.update([CLICKS, LABELS], [], 14.0) == {CLICKS, LABELS}


def test_a_partition_with_more_to_read_is_not_quiet() -> None:
    quiet = IdlePartitions(after_s=2)
    quiet.update([CLICKS], [], 10.0)

    assert quiet.update([], [], 13.0) == set()
    assert quiet.update([CLICKS], [], 14.0) == set()


def test_without_a_wait_the_end_is_enough() -> None:
    assert IdlePartitions(after_s=0).update([CLICKS], [CLICKS], 10.0) == {CLICKS}
