"""Kinds of entities: the built-in ones and those that a shop declares, and which kinds each is linked with.

`docs/decisions/0032-declared-entities-and-attributes.md` has the reasons.
"""

import hashlib
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from contract.attributes import read_field, to_whole
from contract.events.addresses import parse_address, to_address_entity
from contract.events.model import Event
from contract.profiles.record import ENTITY_KINDS, FAMILIES
from contract.settings.intake import IntakeSettings

DECLARED_MAX: Final = 8
KIND_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
DIGEST_BYTES: Final = 12
ADDRESS: Final = "event.ip"
FAMILY_CODES: Final = {family: code for code, family in enumerate(FAMILIES)}

KindsBySlot: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]  # that go to the first and to the second links
DEVICE_AND_IP: Final = ("device", "ip")
USER_ONLY: Final[KindsBySlot] = (("user",), ())
UNLINKED: Final[KindsBySlot] = ((), ())
LINKED_KINDS: Final[Mapping[str, Mapping[str, KindsBySlot]]] = {
    "orders": {
        "user": (("item",), ("device", "ip", "card")),
        "device": (("user",), ("card",)),
        "ip": (("user",), ("card",)),
        "card": (("user",), ("device",)),
        "item": USER_ONLY,
        "seller": USER_ONLY,
    },
    "clicks": {"user": (("item",), DEVICE_AND_IP), "item": USER_ONLY, "device": USER_ONLY, "ip": USER_ONLY},
    "reviews": {
        "user": (("item",), DEVICE_AND_IP),
        "item": USER_ONLY,
        "seller": USER_ONLY,
        "device": USER_ONLY,
        "ip": USER_ONLY,
    },
}
DECLARED_LINKED_KINDS: Final[Mapping[str, KindsBySlot]] = {
    "orders": (("user",), ("card",)),
    "clicks": USER_ONLY,
    "reviews": USER_ONLY,
}


@dataclass(frozen=True, slots=True)
class DeclaredEntity:
    """An entity of a shop's own: `source` is `event.FIELD` or `event.attributes.NAME`.

    `placeholders`: what stands for no value, in lower case: one profile of all events without it would say nothing.
    """

    kind: str
    source: str
    ignore_case: bool = False
    placeholders: frozenset[str] = IntakeSettings().folded_placeholders

    @property
    def meaning(self) -> str:
        """What decides which events belong to one profile; part of the digest of features on it."""
        if self.source == ADDRESS:
            return f"{self.source} by network"
        return f"{self.source} ignoring case" if self.ignore_case else self.source

    def identify(self, value: object) -> str | None:
        """The entity (`kind:id`) that a text or a whole number names; None for anything else and for placeholders.

        Spellings that differ only in spaces around words or in Unicode composition are one entity, and so are the
        addresses of one network, as for the built-in kind `ip`.
        """
        text = value if isinstance(value, str) else None if isinstance(value, bool) else to_whole(value)
        words = unicodedata.normalize("NFC", text).split() if text else []
        if not words:
            return None
        name = " ".join(words)
        if name.lower() in self.placeholders:
            return None
        if self.source == ADDRESS:
            address = parse_address(name)
            if address is None:
                return None
            name = to_address_entity(str(address))
        if self.ignore_case:
            name = unicodedata.normalize("NFC", name.casefold())
        digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=DIGEST_BYTES)
        return f"{self.kind}:{digest.hexdigest()}"


class EntityKinds:
    """The kinds of entities of a shop. `codes` number them within a batch and are not stored."""

    def __init__(self, declared: Sequence[DeclaredEntity] = ()) -> None:
        self.declared = tuple(declared)
        self.names = (*ENTITY_KINDS, *(entity.kind for entity in declared))
        self.codes = {kind: code for code, kind in enumerate(self.names)}
        self.link_slots = self._build_link_slots()
        self._fields = tuple((entity, entity.source.removeprefix("event.")) for entity in declared)

    def extract(self, event: Event) -> list[str]:
        """The declared entities (`kind:id`) of an event, in the order of declaration."""
        entities = (entity.identify(read_field(event, field)) for entity, field in self._fields)
        return [entity for entity in entities if entity is not None]

    def identify(self, kind: str, text: str) -> str:
        """The entity that an operator names by its kind and text."""
        declared = next((entity for entity in self.declared if entity.kind == kind), None)
        return f"{kind}:{text}" if declared is None else declared.identify(text) or f"{kind}:"

    def find_linked_kinds(self, family: str, kind: str) -> KindsBySlot:
        """The kinds that go to the first and to the second links of this kind, by events of this family."""
        if kind in ENTITY_KINDS:
            return LINKED_KINDS.get(family, {}).get(kind, UNLINKED)
        return DECLARED_LINKED_KINDS.get(family, UNLINKED)

    def _build_link_slots(self) -> npt.NDArray[np.int8]:
        """`find_linked_kinds` by codes: (family, kind, linked kind) -> 0: first links, 1: second, -1: not linked."""
        slots = np.full((len(FAMILIES), len(self.names), len(self.names)), -1, np.int8)
        for family, family_code in FAMILY_CODES.items():
            for kind, kind_code in self.codes.items():
                for slot, linked_kinds in enumerate(self.find_linked_kinds(family, kind)):
                    for linked_kind in linked_kinds:
                        slots[family_code, kind_code, self.codes[linked_kind]] = slot
        return slots


BUILT_IN_KINDS: Final = EntityKinds()
