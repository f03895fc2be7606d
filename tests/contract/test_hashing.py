"""The hash of ids is part of bundles and profiles, so it is the same in every process, language and version."""

from collections import Counter
from hashlib import blake2b

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.hashing import BUCKETS, bucket_of, buckets_of, digest_all, hash_id, hash_text, hash_texts


@pytest.mark.parametrize(
    ("text", "ident"),
    [
        ("", 3_087_336_321_353_531_149),
        ("user:u1", 5_283_408_043_384_140_604),
        ("item:85123A", 6_911_296_350_995_009_712),
        ("größe", 7_850_653_094_264_618_983),
    ],
)
def test_known_ids_have_known_hashes(text: str, ident: int) -> None:
    assert hash_id(text) == ident


@given(text=st.text())
def test_an_id_fits_signed_64_bits_and_is_never_0(text: str) -> None:
    assert 1 <= hash_id(text) < 2**63


def test_many_texts_are_hashed_like_single_ones() -> None:
    texts = ["", "user:u1", "größe"]

    assert hash_texts(texts).tolist() == [hash_text(text) for text in texts]
    assert buckets_of(hash_texts(texts)).tolist() == [bucket_of(text) for text in texts]


@pytest.mark.parametrize("size", [12, 16])
def test_digests_are_those_of_each_content_alone(size: int) -> None:
    contents = [b"", b"u1", b"u2", b"u1", bytes(300)]

    assert digest_all(contents, size) == [blake2b(content, digest_size=size).hexdigest() for content in contents]


def test_entities_spread_over_all_buckets() -> None:
    counts = Counter(bucket_of(f"user:{n}") for n in range(64 * 200))
    assert set(counts) == set(range(BUCKETS))
    assert max(counts.values()) < 2 * min(counts.values())
