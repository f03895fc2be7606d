"""The door through which events come in: a group's member that starts each partition where recovery says."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

from confluent_kafka import OFFSET_END, OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from contract.errors import ShopstreamError, StaleState, Unavailable
from contract.settings import Kafka
from worker import metrics

log = logging.getLogger(__name__)
TIMEOUT_S: Final = 10.0
NOWHERE: Final = OFFSET_END  # where a partition is begun whose start will be told by `seek`
T = TypeVar("T")


class Place(NamedTuple):
    """One partition of one topic."""

    topic: str
    partition: int


NO_NOTES: Final[Mapping[Place, str]] = MappingProxyType({})
Headers: TypeAlias = Sequence[Any]  # pairs of a name and bytes, as the client gives and takes them


class Record(NamedTuple):
    """One record as it lies on a topic; `kafka_ms` is its own timestamp (-1: it has none)."""

    place: Place
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Headers
    kafka_ms: int


class Held(NamedTuple):
    """What the cluster knows of a partition: the group's committed offset (None: never), its first, its next one.

    `note`: what was committed along with the offset.
    """

    committed: int | None
    low: int
    high: int
    note: str = ""


class Listener(Protocol):
    """Who is told of partitions that come and go, inside `Intake.poll` and `Intake.keep_alive` only."""

    def assigned(self, places: list[Place]) -> Mapping[Place, int]:
        """Where to start in each new partition."""

    def revoked(self, places: list[Place]) -> None:
        """These partitions leave now."""


class Replaced(ShopstreamError):
    """Another process works under this instance's name; two cannot, so this one ends."""


class Intake:
    """Reads records of the partitions that this member holds, once it has subscribed."""

    def __init__(self, *, kafka: Kafka, group: str, instance: str, skips_gaps: bool = True) -> None:
        """`skips_gaps`: go on with the first record there is where those to be read are gone; else `StaleState`."""
        self._skips_gaps = skips_gaps
        self.timeout_s = TIMEOUT_S
        self._listener: Listener | None = None
        self.places: set[Place] = set()
        self._known: dict[tuple[str, int], Place] = {}
        self.down = False
        self._paused: set[Place] = set()  # while something else is waited for
        self._held: set[Place] = set()
        self._closing = False
        self.ended: set[Place] = set()  # read to their ends, as far as was known at the last poll
        self._consumer = Consumer(self._configuration(kafka, group, instance))

    def subscribe(self, topics: Iterable[str], listener: Listener) -> None:
        """Join the group for these topics; a topic that appears later is taken up when it does."""
        self._listener = listener
        self._consumer.subscribe(
            list(topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def poll(self, records_max: int, wait_ms: int) -> list[Record]:
        """At most `records_max` records: what there is, at once; where there is nothing, what comes first in `wait_ms`.

        So a batch is as large as the load makes it, and nobody waits for it to fill. Raises `StaleState` where the next
        record of a partition is gone, unless gaps are skipped.
        """
        self._resume()
        if self.down:
            self._ask_whether_up()
        consume = self._consumer.consume
        messages = consume(records_max, 0) or consume(1, wait_ms / 1000)
        if len(messages) == 1 < records_max:
            messages += consume(records_max - 1, 0)  # what came together with the first
        found = [record for message in messages if (record := self._accept(message))]
        return [record for record in found if record.place in self.places]  # some may have left in this very call

    def keep_alive(self) -> None:
        """Stay a member of the group while something else is waited for; no record is read."""
        if fresh := self.places - self._paused:  # also those that came while we wait
            self._consumer.pause([TopicPartition(*place) for place in fresh])
            self._paused |= fresh
        if (message := self._consumer.poll(0)) is not None:
            self._accept(message)  # no record, since all is paused, but maybe the word that nothing will go on

    def hold(self, places: Iterable[Place]) -> None:
        """Read nothing from exactly these partitions, until told otherwise."""
        wanted = self.places.intersection(places)
        self._consumer.pause([TopicPartition(*place) for place in wanted - self._held])
        self._consumer.resume([TopicPartition(*place) for place in self._held - wanted - self._paused])
        self._held = wanted

    def seek(self, starts: Mapping[Place, int]) -> None:
        """Go on reading elsewhere."""
        for place, offset in starts.items():
            self.ended.discard(place)
            try:
                self._consumer.seek(TopicPartition(*place, offset))
            except KafkaException:  # reading had stopped there: its records are gone, or its topic is another one
                self._ask("begin elsewhere", partial(self._begin, TopicPartition(*place, offset)))

    def _begin(self, partition: TopicPartition) -> None:
        self._consumer.incremental_unassign([partition])
        self._consumer.incremental_assign([partition])

    def held(self, places: Iterable[Place]) -> dict[Place, Held]:
        """What the cluster knows of these partitions."""
        asked = [TopicPartition(*place) for place in places]
        if not asked:
            return {}  # the client would wait in vain for an answer about nothing
        committed = self._ask("tell committed offsets", lambda: self._consumer.committed(asked, timeout=self.timeout_s))
        found = {}
        for tp in committed:
            ends = partial(self._consumer.get_watermark_offsets, tp, timeout=self.timeout_s)
            low, high = self._ask("tell a partition's ends", ends)
            found[Place(tp.topic, tp.partition)] = Held(
                tp.offset if tp.offset >= 0 else None, low, high, tp.metadata or ""
            )
        return found

    def ends(self) -> dict[Place, int]:
        """The end of each held partition as of the last fetch; asks nobody."""
        found = {}
        for place in self.places:
            ends = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            if ends[1] >= 0:
                found[place] = ends[1]
        return found

    def commit(self, positions: Mapping[Place, int], notes: Mapping[Place, str] = NO_NOTES) -> None:
        """Store where to go on, when this is not part of a transaction."""
        offsets = [TopicPartition(*place, at, metadata=notes.get(place, "")) for place, at in positions.items()]
        self._ask("take committed offsets", lambda: self._consumer.commit(offsets=offsets, asynchronous=False))

    def membership(self) -> Any:
        """What a transactional producer needs to commit for this member, and only while it is one."""
        return self._consumer.consumer_group_metadata()

    def close(self) -> None:
        """Leave; partitions that were about to come are not taken up, since nobody may be asked where they start.

        A rebalance that waits for us is heard out first. The client's own close would hand it to us together with the
        last revocation; it takes the answer to the first for the answer to both, ends its part in the group, and waits
        for ever for somebody to take the second answer, with Python's lock in its hand.
        """
        self._closing = True
        self._consumer.pause([TopicPartition(*place) for place in self.places])
        while self._consumer.poll(0) is not None:
            pass  # an error or an end: every partition is paused
        self._consumer.close()

    def _configuration(self, kafka: Kafka, group: str, instance: str) -> dict[str, Any]:
        return {
            "isolation.level": "read_committed",
            "auto.offset.reset": "earliest" if self._skips_gaps else "error",
            "fetch.wait.max.ms": 50,
            "topic.metadata.refresh.interval.ms": 10_000,  # how soon a topic that appears later is taken up
            **kafka.connection(),
            "group.id": group,
            "group.instance.id": f"{group}-{instance}",
            "session.timeout.ms": kafka.session_timeout_ms,
            "partition.assignment.strategy": "cooperative-sticky",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "enable.partition.eof": True,  # an end cannot be told from offsets: markers of transactions take some too
            "error_cb": self._on_error,
            "log_level": 3,
        }

    def _accept(self, message: Message) -> Record | None:
        error, place = message.error(), self._place(message)
        if error is None:
            if self.ended:
                self.ended.discard(place)
            key, value, headers = as_bytes(message.key()), as_bytes(message.value()), list(message.headers() or ())
            return Record(place, message.offset() or 0, key, value, headers, message.timestamp()[1])
        if error.code() == KafkaError._PARTITION_EOF:
            self.ended.add(place)
            return None
        if error.fatal() or error.code() == KafkaError._FATAL:
            raise Replaced(f"One process should work under the name of an instance. Found: {error.str()}")
        if error.code() == KafkaError._AUTO_OFFSET_RESET:
            raise StaleState(f"{place.topic}/{place.partition} should go on where it was read to. Found: {error.str()}")
        log.warning("Kafka has no record now, reading goes on by itself: %s", error.str())
        return None

    def _place(self, message: Message) -> Place:
        """One object for each partition, since every record has one."""
        named = (message.topic() or "", message.partition() or 0)
        return self._known.get(named) or self._known.setdefault(named, Place(*named))

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        if self._closing:
            self._consumer.incremental_assign(partitions)
            self._consumer.pause(partitions)
            return
        new = [Place(tp.topic, tp.partition) for tp in partitions]
        starts = self._listener.assigned(new) if self._listener else {}
        self.places.update(new)
        self._consumer.incremental_assign([TopicPartition(*p, starts.get(p, OFFSET_INVALID)) for p in new])
        # The client remembers that a partition was paused when it left, and would never read from it again.
        self._consumer.resume(partitions)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        leaving = [Place(tp.topic, tp.partition) for tp in partitions]
        if self._listener:
            self._listener.revoked(leaving)
        self.places.difference_update(leaving)
        self.ended.difference_update(leaving)
        self._held.difference_update(leaving)
        self._paused.difference_update(leaving)
        self._consumer.incremental_unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        log.warning("Partitions were lost to another member: %s", [f"{tp.topic}/{tp.partition}" for tp in partitions])
        self._on_revoke(consumer, partitions)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self.down:
            log.warning("Waiting for Kafka; reading goes on by itself when it answers: %s", error.str())
            metrics.WAITING.labels("kafka").set(1)
            self.down = True

    def _ask_whether_up(self) -> None:
        try:
            self._consumer.list_topics(timeout=1)
        except KafkaException:
            return
        log.warning("Kafka answers again; going on.")
        metrics.WAITING.labels("kafka").set(0)
        self.down = False

    def _resume(self) -> None:
        if self._paused:
            self._consumer.resume([TopicPartition(*place) for place in self._paused - self._held])
            self._paused.clear()

    @staticmethod
    def _ask(what: str, question: Callable[[], T]) -> T:
        try:
            return question()
        except KafkaException as error:
            raise Unavailable(f"Kafka should {what}. Found: {error.args[0].str()}") from error


def as_bytes(value: bytes | str | None) -> bytes | None:
    """What a client without deserialisers gives is bytes; its types allow more."""
    return value.encode() if isinstance(value, str) else value
