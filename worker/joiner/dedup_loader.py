"""Loads the outputs that earlier runs of the joiner published, from the topics that it writes.

Committed positions lag behind the rows that wait, so a new run reads many records again and would publish their outputs
again. All outputs of these records were written after the earliest of them: reading the output topics from there on
finds every output that may recur.
"""

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Set
from contextlib import closing
from typing import Final

import msgspec
from msgspec import Struct

from contract.settings.reading import Settings
from transport.kafka_times import read_clock_ms
from transport.log_reader import LogReader
from transport.records import Headers, PartitionOffsets, Record, TopicPartition
from worker.joiner.dedup import PublishedOutputs, example_key, judgement_key

log = logging.getLogger(__name__)
SHARD_HEADER: Final = "shopstream-shard"
# Kafka timestamps of input records may be ahead of those of output records: by default a broker accepts records up to
# an hour ahead of its clock, and clocks differ by minutes.
TIMESTAMP_LEAD_MS: Final = 70 * 60 * 1000


class ExampleIdentity(Struct, frozen=True, gc=False):
    """The fields of an example that identify it."""

    example_id: str
    revision: int
    item_id: str = ""


class JudgementIdentity(Struct, frozen=True, gc=False):
    """The fields of a judgement that identify it."""

    judged_event_id: str
    event_id: str
    task: str


decode_example: Final = msgspec.msgpack.Decoder(ExampleIdentity).decode
decode_judgement: Final = msgspec.json.Decoder(JudgementIdentity).decode


class DedupLoader:
    """Reads published outputs. `on_poll` is called after each poll, also while there is no record.

    `on_records` is called when there are some: the load advances.
    """

    def __init__(
        self, *, settings: Settings, on_poll: Callable[[], None], on_records: Callable[[], None] = lambda: None
    ) -> None:
        self._topics = (settings.topics.feedback, settings.topics.judgements)
        self._kafka = settings.kafka
        self._limit = settings.feedback.said_max
        self._on_poll, self._on_records = on_poll, on_records

    def load(self, offsets: Mapping[TopicPartition, PartitionOffsets]) -> dict[int, PublishedOutputs]:
        """The published outputs of records at or after the group's offsets, by shard; raises `Unavailable`.

        An output of a release that did not name its shard is in all of them.

        The offsets should be stable, so that an earlier run can no longer commit others. Its last transaction may have
        outputs that are not readable yet, so the output topics are read to the end that they have now, behind the
        records of transactions that are still open.
        """
        numbers = {partition.partition for partition in offsets}
        with closing(LogReader(kafka=self._kafka, on_poll=self._on_poll)) as reader:
            first_ms = reader.earliest_timestamp_ms(
                {partition: start_offset(partition_offsets) for partition, partition_offsets in offsets.items()},
                latest_ms=read_clock_ms() + TIMESTAMP_LEAD_MS,
            )
            if first_ms is None:
                return self._read(reader, numbers, {}, {})
            ends = reader.fetch_written_ends(self._topics)
            starts = reader.offsets_for_time(ends, max(0, first_ms - TIMESTAMP_LEAD_MS))
            return self._read(reader, numbers, ends, starts)

    def load_from(self, numbers: Set[int], starts: Mapping[TopicPartition, int]) -> dict[int, PublishedOutputs]:
        """What these shards published at or after these offsets, and all in partitions without one.

        Raises `Unavailable`.
        """
        with closing(LogReader(kafka=self._kafka, on_poll=self._on_poll)) as reader:
            ends = reader.fetch_written_ends(self._topics)
            ranges = reader.fetch_offset_ranges(self._topics)
            # A topic that is shorter was recreated.
            first = {
                partition: max(ranges[partition].low, start if (start := starts.get(partition, 0)) <= end else 0)
                for partition, end in ends.items()
            }
            return self._read(reader, numbers, ends, first)

    def fetch_ends(self) -> dict[TopicPartition, int]:
        """The present ends of the output topics; raises `Unavailable`."""
        with closing(LogReader(kafka=self._kafka)) as reader:
            return {partition: ends.high for partition, ends in reader.fetch_offset_ranges(self._topics).items()}

    def _read(
        self,
        reader: LogReader,
        numbers: Set[int],
        ends: Mapping[TopicPartition, int],
        starts: Mapping[TopicPartition, int],
    ) -> dict[int, PublishedOutputs]:
        published = {number: PublishedOutputs(limit=self._limit, starts=starts) for number in numbers}
        for records in reader.read(ends, starts):
            self._add(published, records)
            self._on_records()
        for outputs in published.values():
            outputs.freeze()
        log.info(
            "Loaded %d published examples and judgements; none of them is published twice.",
            sum(map(len, published.values())),
        )
        return published

    def _add(self, published: Mapping[int, PublishedOutputs], records: Iterable[Record]) -> None:
        keys = defaultdict[int | None, list[str]](list)
        row_ids = defaultdict[int | None, list[str]](list)
        for record in records:
            shard = read_shard(record.headers)
            if shard is not None and shard not in published:
                continue
            try:
                if record.topic_partition.topic == self._topics[0]:
                    example = decode_example(record.value or b"")
                    keys[shard].append(example_key(example.example_id, example.revision))
                    if not example.item_id:
                        row_ids[shard].append(example.example_id)
                else:
                    judgement = decode_judgement(record.value or b"")
                    keys[shard].append(judgement_key(judgement.judged_event_id, judgement.event_id, judgement.task))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                pass  # another program wrote this record
        for shard, outputs in published.items():
            outputs.add(keys[shard] + keys[None], row_ids[shard] + row_ids[None])


def make_shard_header(shard: int) -> tuple[str, bytes]:
    """The header of an output that names its shard: output topics may be partitioned in another way."""
    return SHARD_HEADER, str(shard).encode()


def read_shard(headers: Headers) -> int | None:
    """The shard that an output's headers name; None if they name none."""
    for name, value in headers:
        if name == SHARD_HEADER and value and value.isdigit():
            return int(value)
    return None


def start_offset(offsets: PartitionOffsets) -> int:
    """The offset at which the group continues in a partition."""
    return offsets.low if offsets.committed is None else max(offsets.low, offsets.committed)
