"""The hash that everything uses: XXH3-64 with a fixed seed, the same in every process, language and version.

Ids that only need to be distinguished are stored as these hashes (linked ids in profiles, categories in features). 0
means "absent" everywhere, so no id hashes to it. Source: the XXH3 specification, https://xxhash.com.
"""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final

import numpy as np
import numpy.typing as npt
import xxhash

SEED: Final = 20_110_609
BUCKETS: Final = 64
HASH_RANGE: Final = 2**64


def hash_text(text: str) -> int:
    """The 64 bits that ids and buckets are taken from. Not cached: a lookup costs more than hashing."""
    return xxhash.xxh3_64_intdigest(text.encode(), SEED)


def hash_texts(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
    """`hash_text` of each text, without the cost of a call, and of an integer, for each."""
    digest = xxhash.xxh3_64_digest  # big-endian
    return np.frombuffer(b"".join([digest(text.encode(), SEED) for text in texts]), ">u8").astype(np.uint64)


def hash_id(text: str) -> int:
    """A number from 1 to 2**63 - 1 for `text`; it fits signed 64-bit tensors."""
    return (hash_text(text) >> 1) or 1


def digest_all(contents: Iterable[bytes], size: int) -> list[str]:
    """The BLAKE2b digest of each, in hexadecimal digits; copies of an empty one, since a new one takes longer."""
    empty, digests = blake2b(digest_size=size), list[str]()
    for content in contents:
        digest = empty.copy()
        digest.update(content)
        digests.append(digest.hexdigest())
    return digests


def item_hash(item_id: str) -> int:
    """The hash by which links name an item."""
    return hash_id(f"item:{item_id}")


def buckets_of(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The buckets of entities with these hashes."""
    return (hashes % BUCKETS).astype(np.int64)


def bucket_of(entity: str) -> int:
    """The bucket (0 to 63) of an entity's profile: the hash tag by which Redis Cluster distributes keys."""
    return hash_text(entity) % BUCKETS


def hash_fraction(text: str, salt: str) -> float:
    """A number in [0, 1) for `text`, the same everywhere; another salt gives an independent one."""
    return hash_text(f"{salt} {text}") / HASH_RANGE
