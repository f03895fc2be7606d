"""Records to events, whatever their form: ours, one that a map reads, one of a schema registry.

Every reader of events uses this one, so that all read the same. Topics of our own form in JSON need nothing of it but
`kinds` and `readers`.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from contract.events.model import DELETABLE_KINDS, Event
from contract.events.reading import READERS, EventReaders
from contract.mapping.envelopes import Skipped, is_framed, parse
from contract.mapping.event_topics import EventTopics
from contract.settings.reading import Settings
from transport.records import Record

if TYPE_CHECKING:
    from transport.schemas.deserializer import Deserializer


Call = Callable[[str, Callable[[], Any]], Any]  # with the name of the server


class RecordReader:
    """Reads the records of the topics of events. `kinds`: of events by topic, for topics that hold one kind.

    `readers`: of documents in our form, by kind. `deserializer`: of values with the framing of a schema registry, where
    one is set; `retry` calls it until the registry answers.
    """

    def __init__(
        self,
        topics: EventTopics,
        readers: EventReaders = READERS,
        deserializer: "Deserializer | None" = None,
        retry: Call = lambda name, call: call(),
    ) -> None:
        self.topics, self.readers = topics, readers
        self._deserializer, self._retry = deserializer, retry
        self.kinds = {topic: kinds[0] for topic, kinds in self.topics.kinds.items() if len(kinds) == 1}
        self._typed = {
            topic: (topic_map.kinds[0], topic_map.read_event, self.readers[topic_map.kinds[0]].takes)
            for topic, topic_map in self.topics.maps.items()
            if topic_map.read_event
        }
        self._plain_kinds = {topic: kind for topic, kind in self.kinds.items() if self.is_plain(topic)}

    def is_plain(self, topic: str) -> bool:
        """Whether all records of a topic are JSON in our own form."""
        return topic not in self.topics.maps and self._deserializer is None

    def first_kind(self, topic: str) -> str:
        """The kind that a record counts as which cannot be read far enough to know its own."""
        return self.topics.kinds[topic][0]

    def is_tombstone(self, record: Record) -> bool:
        """Whether a record deletes what its key names, or repeats that a change before it does."""
        if record.value is not None:
            return False
        topic = record.topic_partition.topic
        if (topic_map := self.topics.maps.get(topic)) and topic_map.has_deletions:
            return True
        return bool(record.key) and bool(DELETABLE_KINDS.intersection(self.topics.kinds[topic]))

    def is_deletion(self, record: Record) -> bool:
        """Whether a tombstone of products deletes the item that its key names."""
        topic_map = self.topics.maps.get(record.topic_partition.topic)
        return topic_map is None or not topic_map.has_deletions

    def find_kind(self, record: Record) -> tuple[str, object]:
        """The kind of a record that is not plain, and its document in our form; raises `BadEvent` or `Skipped`."""
        (topic, _), _, key, value, headers, _ = record
        document: object = self._deserialize(topic, value) if self._deserializer and value else value
        topic_map = self.topics.maps.get(topic)
        if topic_map is None:
            return self.kinds[topic], parse(value or b"") if document is value else document
        return topic_map.read(document, key, headers)

    def _deserialize(self, topic: str, value: bytes) -> object:
        """The document of a value in the framing of a schema registry; any other value as it is."""
        deserializer = self._deserializer
        if deserializer is None or not is_framed(value):
            return value
        return self._retry("schema registry", lambda: deserializer.read(topic, value))

    def read_typed(self, record: Record) -> tuple[str, Event] | None:
        """The kind and the event of a record that a map reads without a document; None for any other record.

        The same as `find_kind` and the kind's reader give.
        """
        (topic, _), _, _, value, _, _ = record
        typed = self._typed.get(topic)
        if typed is None or not value or (self._deserializer and is_framed(value)):
            return None
        kind, read_event, takes = typed
        event = read_event(value)
        return (kind, event) if event is not None and takes(event) else None

    def read(self, record: Record) -> tuple[str, Event]:
        """The kind and the event of a record; raises `BadEvent` or `Skipped`."""
        plain_kind = self._plain_kinds.get(record.topic_partition.topic)
        if plain_kind is not None:
            return plain_kind, self.readers[plain_kind].read(record.value)
        if (typed := self.read_typed(record)) is not None:
            return typed
        kind, document = self.find_kind(record)
        return kind, self.readers[kind].read_document(document)


def open_record_reader(
    settings: Settings, readers: EventReaders, retry: Call = lambda name, call: call()
) -> RecordReader:
    """The reader of these settings; raises `BadConfig` where the packages of a registry are missing."""
    deserializer = None
    if settings.registry.url:
        from transport.schemas.deserializer import Deserializer

        deserializer = Deserializer(settings.registry)
    return RecordReader(settings.event_topics(), readers, deserializer, retry)


__all__ = ["RecordReader", "Skipped", "open_record_reader"]
