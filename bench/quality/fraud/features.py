"""Features of each payment from the profiles before it, by one pass through the worker's own fold and encoder.

This is the longest part of the bench and the same for every row, so the feature blocks are kept in a folder until their
code, the declared features or the data change.
"""

import shutil
from pathlib import Path
from typing import Final

import numpy as np

from bench.quality.fraud.dataset import FILE, Payments, iterate_arrivals
from bench.results.cache import load_or_make
from bench.results.digest import digest_inputs
from bench.results.report import print_progress
from contract.features.declaration import Block, FeatureSet
from contract.features.encoder import Encoder
from contract.graphs import DECIDE
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import InMemoryProfileStore, fold

BLOCK_CODE_PATHS: Final = (
    "contract",
    "features.toml",
    "bench/quality/fraud/dataset.py",
    "bench/quality/fraud/features.py",
)
DECISION_GROUPS: Final = DECIDE.groups
CHUNK_ARRIVALS: Final = 20_000  # folded at once; profiles do not depend on it
Blocks = dict[str, Block]


def replay_blocks(payments: Payments, features: FeatureSet, first: int) -> Blocks:
    """The blocks of the payments from row `first` on, each from the profiles before its payment."""
    encoder, profiles = Encoder(features), InMemoryProfileStore()
    blocks = {group: features.empty_block(group, len(payments) - first) for group in DECISION_GROUPS}
    for chunk in iterate_arrivals(payments, CHUNK_ARRIVALS):
        updates = to_updates(chunk.arrivals)
        folded = fold(profiles.read(updates.entities), updates)
        is_wanted = chunk.payment_rows >= first
        if is_wanted.any():
            rows = chunk.payment_rows[is_wanted] - first
            encoded = encoder.encode_before(folded, chunk.order_indices[is_wanted].tolist(), DECISION_GROUPS)
            for group, block in encoded.items():
                blocks[group].numbers[rows] = block.numbers
                blocks[group].ids[rows] = block.ids
        profiles.merge(folded.slice_writes(), {}, {})
    return blocks


def load_or_replay(payments: Payments, features: FeatureSet, first: int, data: Path, folder: Path) -> Blocks:
    """The same blocks, read from `folder` if this code has made them of these data."""

    def replay() -> None:
        print_progress(f"{len(payments)} payments and their labels are folded, which takes some minutes")
        write_blocks(replay_blocks(payments, features, first), folder)

    digest = f"{digest_inputs(BLOCK_CODE_PATHS, files=[data / FILE])} from {first} to {len(payments)}"
    return load_or_make(folder, digest, replay, read=read_blocks)


def write_blocks(blocks: Blocks, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for group, block in blocks.items():
        np.save(folder / f"{group}.numbers.npy", block.numbers)
        np.save(folder / f"{group}.ids.npy", block.ids)


def read_blocks(folder: Path) -> Blocks:
    """The blocks, mapped into memory."""
    return {
        group: Block(
            np.load(folder / f"{group}.numbers.npy", mmap_mode="r"), np.load(folder / f"{group}.ids.npy", mmap_mode="r")
        )
        for group in DECISION_GROUPS
    }
