"""`python -m worker features list`: every source of features, with its meaning and the features that use it."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from contract.attributes import is_attribute
from contract.features.declaration import FeatureSet
from contract.features.source_meanings import describe_source
from contract.features.sources import FOLDED_EVENTS, Source, list_sources
from contract.profiles.entity_kinds import EntityKinds
from contract.profiles.record import ENTITY_KINDS


class ListedSource(msgspec.Struct, frozen=True):
    """One source: the kinds of feature that it serves, the events that have it, and the features that read it."""

    source: str
    kinds: tuple[str, ...]
    events: tuple[str, ...]
    meaning: str
    used_by: tuple[str, ...]


def build_list(features: FeatureSet, entity_kinds: EntityKinds, word: str = "") -> Iterator[ListedSource]:
    """Every source whose name has the word in it; attributes as far as features or entities name them."""
    used_by = defaultdict[str, list[str]](list)
    for feature in features.features:
        used_by[feature.source].append(feature.name)
    attributes = {source for source in used_by if is_attribute(source.partition(".")[2])}
    attributes |= {e.source for e in entity_kinds.declared if is_attribute(e.source.removeprefix("event."))}
    for source in [*list_sources(entity_kinds.names), *map(to_attribute_source, sorted(attributes))]:
        if word in source.name:
            is_own = is_attribute(source.name.partition(".")[2])
            meaning = "the shop's own field" if is_own else describe_source(source.name)
            yield ListedSource(source.name, source.kinds, source.events, meaning, tuple(used_by[source.name]))


def to_attribute_source(name: str) -> Source:
    events = ("products",) if name.startswith("item.") else tuple(FOLDED_EVENTS)
    return Source(name, ("number", "category", "text", "vector"), events)


def print_list(features: FeatureSet, entity_kinds: EntityKinds, word: str, *, as_json: bool) -> int:
    """Print the sources; 0, or 1 if none has the word in its name."""
    sources = list(build_list(features, entity_kinds, word))
    if as_json:
        print(msgspec.json.format(msgspec.json.encode(sources)).decode())
    else:
        print("\n".join(format_list(sources)))
    return 0 if sources else 1


def format_list(sources: Sequence[ListedSource]) -> Iterator[str]:
    """A line for each source."""
    width = max((len(source.source) for source in sources), default=0)
    for source in sources:
        events = ", ".join(source.events) or "profiles"
        use = f" [used by {', '.join(source.used_by)}]" if source.used_by else ""
        yield f"{source.source:{width}}  {'/'.join(source.kinds):14} {events}: {source.meaning}{use}"
    used = sum(bool(source.used_by) for source in sources)
    yield f"{len(sources)} sources, {used} of them used. Built-in entities: {', '.join(ENTITY_KINDS)}."
