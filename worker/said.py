"""What earlier lives of the joiner have said, so that it is not said again. Pure.

An example or judgement is known by a 64-bit hash: of n remembered and m asked for, nm / 2^64 are taken for known by
chance (a ten-thousandth of one, with 50 million of each).
"""

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt

from contract.events import Judgement
from contract.hashing import digests
from contract.joining.output import Output

T = TypeVar("T")
Hashes = npt.NDArray[np.uint64]
NONE: Final[Hashes] = np.empty(0, np.uint64)


def example_key(example_id: str, revision: int) -> str:
    """What no two examples that readers see have in common."""
    return f"{example_id}\0{revision}"


def judgement_key(judged_event_id: str, event_id: str, task: str) -> str:
    """The same for judgements; an id holds no NUL, so no key is an example's."""
    return f"{judged_event_id}\0{event_id}\0{task}"


class Remembered:
    """Hashes of texts, the latest `limit` at most: 8 bytes each, three times that while they are put in order."""

    def __init__(self, *, limit: int) -> None:
        self._limit = limit
        self._parts: list[Hashes] = []
        self._sorted = NONE
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._sorted) + sum(map(len, self._parts))

    def add(self, texts: Sequence[str]) -> None:
        """Remember these, which came after the others."""
        self._parts.append(digests(texts))
        over = sum(map(len, self._parts)) - self._limit
        while over > 0:
            oldest = self._parts[0]
            gone = min(over, len(oldest))
            self._parts[0] = oldest[gone:]
            if gone == len(oldest):
                del self._parts[0]
            over, self.forgotten = over - gone, self.forgotten + gone

    def close(self) -> None:
        """Put in order what was added; nothing is added any more."""
        self._sorted, self._parts = np.sort(np.concatenate([NONE, *self._parts])), []

    def among(self, texts: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Which of these are remembered."""
        asked = digests(texts)
        at = np.searchsorted(self._sorted, asked)
        found = np.zeros(len(asked), np.bool_)
        inside = at < len(self._sorted)
        found[inside] = self._sorted[at[inside]] == asked[inside]
        return found


class Said:
    """Examples, judgements, and rows that were judged, as far as they are remembered: `limit` of each at most."""

    def __init__(self, *, limit: int) -> None:
        self._said, self._rows = Remembered(limit=limit), Remembered(limit=limit)

    def __len__(self) -> int:
        return len(self._said)

    @property
    def forgotten(self) -> int:
        """How much was said that could not be remembered, and may be said twice."""
        return self._said.forgotten

    def remember(self, keys: Sequence[str], rows: Sequence[str]) -> None:
        """These examples and judgements were said, and these rows have an example of their own."""
        self._said.add(keys)
        self._rows.add(rows)

    def close(self) -> None:
        """All that was said is told."""
        self._said.close()
        self._rows.close()

    def fresh(self, output: Output) -> Output:
        """What of this was not said yet; a label whose row was known to an earlier life is no orphan."""
        if not len(self._said) and not len(self._rows):
            return output
        examples = self._new(output.examples, [example_key(e.example_id, e.revision) for e in output.examples])
        judgements = self._new(output.judgements, [key_of(judgement) for judgement in output.judgements])
        known = self._rows.among([orphan.row_id for orphan in output.orphans])
        return Output(examples, judgements, left(output.orphans, known))

    def _new(self, things: list[T], keys: Sequence[str]) -> list[T]:
        return left(things, self._said.among(keys))


def key_of(judgement: Judgement) -> str:
    return judgement_key(judgement.judged_event_id, judgement.event_id, judgement.task)


def left(things: Sequence[T], known: Iterable[np.bool_]) -> list[T]:
    return [thing for thing, is_known in zip(things, known, strict=True) if not is_known]
