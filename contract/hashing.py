"""The one hash of the house: XXH3-64 with a stated seed, the same in every process, language and year.

Ids that only need to be told apart travel as these hashes (linked ids in profiles, categories in features). 0 means
"absent" everywhere, so no id hashes to it. Source: the XXH3 specification, https://xxhash.com.
"""

from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

SEED: Final = 20_110_609
BUCKETS: Final = 64


def hash_text(text: str) -> int:
    """The 64 bits from which ids and buckets are cut; to look one up among many costs more than to reckon it again."""
    return xxhash.xxh3_64_intdigest(text.encode(), SEED)


def hash_texts(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """`digest` of each text, without the cost of a call for each."""
    hash_bytes = xxhash.xxh3_64_intdigest
    return np.array([hash_bytes(text.encode(), SEED) for text in texts], np.uint64)


def hash_id(text: str) -> int:
    """A number from 1 to 2**63 - 1 for `text`; it fits signed 64-bit tensors."""
    return (hash_text(text) >> 1) or 1


def item_hash(item_id: str) -> int:
    """The hash by which profiles link an item."""
    return hash_id(f"item:{item_id}")


def buckets_of(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The buckets of entities of these digests."""
    return (hashes % BUCKETS).astype(np.int64)


def bucket_of(entity: str) -> int:
    """The bucket (0 to 63) in which an entity's profile is kept: the hash tag that Redis Cluster shards by."""
    return hash_text(entity) % BUCKETS


def hash_fraction(text: str, salt: str) -> float:
    """A number in [0, 1) for `text`, the same everywhere; another salt draws anew, as if by chance."""
    return hash_text(f"{salt} {text}") / 2**64
