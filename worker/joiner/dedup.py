"""What earlier lives of the joiner have said, so that it is not said again. Pure.

An example or judgement is known by a 64-bit hash: of n remembered and m asked for, nm / 2^64 are taken for known by
chance (a ten-thousandth of one, with 50 million of each).
"""

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from contract.events import Judgement
from contract.hashing import hash_texts
from contract.joining.output import JoinOutput

T = TypeVar("T")
Hashes = npt.NDArray[np.uint64]
NO_HASHES: Final[Hashes] = np.empty(0, np.uint64)


def example_key(example_id: str, revision: int) -> str:
    """What no two examples that readers see have in common."""
    return f"{example_id}\0{revision}"


def judgement_key(judged_event_id: str, event_id: str, task: str) -> str:
    """The same for judgements; an id holds no NUL, so no key is an example's."""
    return f"{judged_event_id}\0{event_id}\0{task}"


class HashSet:
    """Hashes of texts, the latest `limit` at most: 8 bytes each, three times that while they are put in order."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._parts: list[Hashes] = []
        self._sorted = NO_HASHES
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._sorted) + sum(map(len, self._parts))

    def add(self, texts: Sequence[str]) -> None:
        """Remember these, which came after the others."""
        self._parts.append(hash_texts(texts))
        over = sum(map(len, self._parts)) - self._limit
        while over > 0:
            oldest = self._parts[0]
            dropped = min(over, len(oldest))
            self._parts[0] = oldest[dropped:]
            if dropped == len(oldest):
                del self._parts[0]
            over, self.evicted = over - dropped, self.evicted + dropped

    def freeze(self) -> None:
        """Put in order what was added; nothing is added any more."""
        self._sorted, self._parts = np.sort(np.concatenate([NO_HASHES, *self._parts])), []

    def contains(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which of these are remembered."""
        asked = hash_texts(texts)
        positions = np.searchsorted(self._sorted, asked)
        is_member = np.zeros(len(asked), np.bool_)
        inside = positions < len(self._sorted)
        is_member[inside] = self._sorted[positions[inside]] == asked[inside]
        return is_member


class PublishedOutputs:
    """Examples, judgements, and rows that were judged, as far as they are remembered: `limit` of each at most."""

    def __init__(self, *, limit: int) -> None:
        self._keys, self._row_ids = HashSet(limit=limit), HashSet(limit=limit)

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def evicted(self) -> int:
        """How much was said that could not be remembered, and may be said twice."""
        return self._keys.evicted

    def add(self, keys: Sequence[str], row_ids: Sequence[str]) -> None:
        """These examples and judgements were said, and these rows have an example of their own."""
        self._keys.add(keys)
        self._row_ids.add(row_ids)

    def freeze(self) -> None:
        """All that was said is told."""
        self._keys.freeze()
        self._row_ids.freeze()

    def without_published(self, output: JoinOutput) -> JoinOutput:
        """What of this was not said yet; a label whose row was known to an earlier life is no orphan."""
        if not len(self._keys) and not len(self._row_ids):
            return output
        examples = self._drop_published(
            output.examples, [example_key(e.example_id, e.revision) for e in output.examples]
        )
        judgements = self._drop_published(
            output.judgements, [key_from_judgement(judgement) for judgement in output.judgements]
        )
        known = self._row_ids.contains([orphan.row_id for orphan in output.orphans])
        return JoinOutput(examples, judgements, drop_known(output.orphans, known))

    def _drop_published(self, outputs: list[T], keys: Sequence[str]) -> list[T]:
        return drop_known(outputs, self._keys.contains(keys))


def key_from_judgement(judgement: Judgement) -> str:
    return judgement_key(judgement.judged_event_id, judgement.event_id, judgement.task)


def drop_known(outputs: Sequence[T], known: Iterable[np.bool_]) -> list[T]:
    return [output for output, is_known in zip(outputs, known, strict=True) if not is_known]
