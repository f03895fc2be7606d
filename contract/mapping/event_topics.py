"""Which topics hold events of which kinds: those of `[topics]`, and those that `[map]` adds.

A map may read the topic that `[topics]` names for its kind, or others, which are read in addition.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from contract.errors import BadConfig
from contract.events.model import KINDS
from contract.mapping.topic_map import DEFAULTS, TopicMap, compile_maps
from contract.settings.mapping import read_maps
from contract.settings.servers import TopicSettings

# Kinds whose profiles one worker writes: of one topic it can fold one of them, whose merged offset is the topic's.
FOLDED_TOGETHER: Final = (("orders", "reviews"), ("clicks", "impressions", "searches"))


class EventTopics:
    """The topics that events are read from; raises `BadConfig` where maps are wrong.

    `placeholders`: what stands for no id, in lower case. `settings`: `[topics]`. `kinds`, of events, and `maps` are by
    topic. `added`: the topics that only maps name.
    """

    def __init__(
        self,
        topics: TopicSettings,
        tables: Mapping[str, Any] = MappingProxyType({}),
        placeholders: frozenset[str] = DEFAULTS.folded_placeholders,
    ) -> None:
        self.maps: dict[str, TopicMap] = compile_maps(read_maps(tables), placeholders)
        self.settings, own = topics, topics.kinds_by_topic()
        self.kinds: dict[str, tuple[str, ...]] = {topic: (kind,) for topic, kind in own.items()}
        self.kinds |= {topic: topic_map.kinds for topic, topic_map in self.maps.items()}
        self.added = frozenset(self.maps.keys() - own.keys())
        if errors := [*self._find_unlike(own), *self._find_outputs(topics), *self._find_together()]:
            raise BadConfig(errors)

    def names_of(self, kinds: Iterable[str]) -> list[str]:
        """The topics of these kinds: those of `[topics]`, then those that maps add for any of them."""
        wanted = tuple(dict.fromkeys(kinds))
        added = [topic for topic, own in self.kinds.items() if topic in self.added and set(own) & set(wanted)]
        return [*map(self.settings.topic_name, wanted), *added]

    def name_added(self, kinds: Iterable[str]) -> dict[str, str]:
        """The topics that maps add for any of these kinds, by the map's place in the settings."""
        return {
            f"map.{table.name}.topics[{table.topics.index(topic)}]": topic
            for topic in self.names_of(kinds)
            if topic in self.added
            for table in self.maps[topic].tables
        }

    def kinds_folded(self, kinds: Iterable[str]) -> dict[str, str]:
        """Topic -> the kind among `kinds` that its events have, for the topics with one."""
        wanted = set(kinds)
        return {topic: kind for topic, own in self.kinds.items() for kind in own if kind in wanted}

    def _find_unlike(self, own: Mapping[str, str]) -> Iterable[str]:
        for topic, topic_map in self.maps.items():
            if topic in own and own[topic] not in topic_map.kinds:
                yield (
                    f"A map of the topic of {own[topic]} should make {own[topic]}. Found {', '.join(topic_map.kinds)} "
                    f"made of {topic}."
                )

    def _find_together(self) -> Iterable[str]:
        for topic, kinds in self.kinds.items():
            for together in FOLDED_TOGETHER:
                if len(mapped := [kind for kind in kinds if kind in together]) > 1:
                    yield (
                        f"A topic should hold at most one kind among {', '.join(together)}. Found {', '.join(mapped)} "
                        f"mapped from {topic}: send them to a topic for each kind."
                    )

    def _find_outputs(self, topics: TopicSettings) -> Iterable[str]:
        outputs = {name: kind for kind, name in topics.names_by_kind().items() if kind not in KINDS}
        for topic in self.maps:
            if topic in outputs:
                yield f"A map should read a topic of events. Found {topic}, the topic of {outputs[topic]}."
