"""Deduplication of outputs against those that earlier runs of the joiner published. Pure.

An example or judgement is identified by a 64-bit hash. With n stored and m queried outputs, n * m / 2^64 of them are
expected to be taken for duplicates by collision (a ten-thousandth of one, with 50 million of each).
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from contract.events.model import Judgement
from contract.hashing import hash_texts
from contract.joining.output import JoinOutput
from transport.records import TopicPartition

T = TypeVar("T")
Hashes = npt.NDArray[np.uint64]
NO_STARTS: Final[Mapping[TopicPartition, int]] = MappingProxyType({})
NO_HASHES: Final[Hashes] = np.empty(0, np.uint64)


def example_key(example_id: str, revision: int) -> str:
    """The identity of an example: unique among the examples that readers of committed records see."""
    return f"{example_id}\0{revision}"


def judgement_key(judged_event_id: str, event_id: str, task: str) -> str:
    """The identity of a judgement; ids contain no NUL, so it never equals the key of an example."""
    return f"{judged_event_id}\0{event_id}\0{task}"


class HashSet:
    """Hashes of the latest `limit` texts: 8 bytes each, three times that while `freeze` sorts them."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._parts: list[Hashes] = []
        self._sorted = NO_HASHES
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._sorted) + sum(map(len, self._parts))

    def add(self, texts: Sequence[str]) -> None:
        """Add texts that are later than all before; beyond the limit the oldest are evicted."""
        self._parts.append(hash_texts(texts))
        over = sum(map(len, self._parts)) - self._limit
        while over > 0:
            oldest = self._parts[0]
            dropped = min(over, len(oldest))
            self._parts[0] = oldest[dropped:]
            if dropped == len(oldest):
                del self._parts[0]
            over -= dropped
            self.evicted += dropped

    def freeze(self) -> None:
        """Sort the hashes for lookup; nothing can be added afterwards."""
        self._sorted = np.sort(np.concatenate([NO_HASHES, *self._parts]))
        self._parts = []

    def merge(self, hashes: Hashes) -> None:
        """Add hashes after `freeze`."""
        self._sorted = np.union1d(self._sorted, hashes)

    def hashes(self) -> Hashes:
        """All hashes, sorted; only after `freeze`."""
        return self._sorted

    def contains(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Whether each text is in the set; only after `freeze`."""
        hashes = hash_texts(texts)
        positions = np.searchsorted(self._sorted, hashes)
        is_member = np.zeros(len(hashes), np.bool_)
        inside = positions < len(self._sorted)
        is_member[inside] = self._sorted[positions[inside]] == hashes[inside]
        return is_member


class PublishedOutputs:
    """Keys of published examples and judgements, and ids of rows that have an example; the latest `limit` of each."""

    def __init__(self, *, limit: int, starts: Mapping[TopicPartition, int] = NO_STARTS) -> None:
        """`starts`: from where on the output topics were read."""
        self.starts = starts
        self._keys = HashSet(limit=limit)
        self._row_ids = HashSet(limit=limit)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def evicted(self) -> int:
        """The number of keys beyond the limit; these outputs may be published twice."""
        return self._keys.evicted

    def add(self, keys: Sequence[str], row_ids: Sequence[str]) -> None:
        """Add keys of published examples and judgements, and ids of rows that have an example of their own."""
        self._keys.add(keys)
        self._row_ids.add(row_ids)

    def freeze(self) -> None:
        """Make the keys searchable; nothing can be added afterwards."""
        self._keys.freeze()
        self._row_ids.freeze()

    def row_hashes(self) -> bytes:
        """The hashes of the ids of rows."""
        return self._row_ids.hashes().tobytes()

    def merge_row_hashes(self, hashes: bytes) -> None:
        """Add what `row_hashes` returned; only after `freeze`."""
        self._row_ids.merge(np.frombuffer(hashes, np.uint64))

    def without_published(self, output: JoinOutput) -> JoinOutput:
        """The unpublished part of `output`; a label whose row an earlier run had is not an orphan."""
        if not len(self._keys) and not len(self._row_ids):
            return output
        examples = self._drop_published(
            output.examples, [example_key(e.example_id, e.revision) for e in output.examples]
        )
        judgements = self._drop_published(
            output.judgements, [key_from_judgement(judgement) for judgement in output.judgements]
        )
        known = self._row_ids.contains([orphan.row_id for orphan in output.orphans])
        return JoinOutput(examples, judgements, drop_known(output.orphans, known), output.foreign)

    def _drop_published(self, outputs: list[T], keys: Sequence[str]) -> list[T]:
        return drop_known(outputs, self._keys.contains(keys))


def key_from_judgement(judgement: Judgement) -> str:
    return judgement_key(judgement.judged_event_id, judgement.event_id, judgement.task)


def drop_known(outputs: Sequence[T], known: Iterable[np.bool_]) -> list[T]:
    return [output for output, is_known in zip(outputs, known, strict=True) if not is_known]
