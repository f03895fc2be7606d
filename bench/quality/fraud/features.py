"""What profiles knew of each payment when it came: the stream goes through the worker's own fold and encoder once.

That is the long part of the bench and the same for every row, so its blocks are kept in a folder until the code that
makes them, the declared features or the data change.
"""

import hashlib
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from bench.quality.fraud.dataset import FILE, Payments, iterate_arrivals
from contract.features.declaration import Block, FeatureSet
from contract.features.encoder import Encoder
from contract.graphs import DECIDE
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import InMemoryProfileStore, fold

ROOT: Final = Path(__file__).parents[1]
BLOCK_CODE_PATHS: Final = (
    "contract",
    "features.toml",
    "bench/quality/fraud/dataset.py",
    "bench/quality/fraud/features.py",
)
DECISION_GROUPS: Final = DECIDE.groups
CHUNK_ARRIVALS: Final = 20_000  # folded at once: a profile is the same however the log was cut
Blocks = dict[str, Block]


def replay_blocks(payments: Payments, features: FeatureSet, first: int) -> Blocks:
    """The blocks of the payments from number `first` on, each as known before its payment."""
    encoder, profiles = Encoder(features), InMemoryProfileStore()
    blocks = {group: features.empty_block(group, len(payments) - first) for group in DECISION_GROUPS}
    for chunk in iterate_arrivals(payments, CHUNK_ARRIVALS):
        touches = to_updates(chunk.arrivals)
        memory = fold(profiles.read(touches.entities), touches)
        is_wanted = chunk.payment_rows >= first
        if is_wanted.any():
            for group, block in encoder.encode_before(
                memory, chunk.order_indices[is_wanted].tolist(), DECISION_GROUPS
            ).items():
                rows = chunk.payment_rows[is_wanted] - first
                blocks[group].numbers[rows], blocks[group].ids[rows] = block.numbers, block.ids
        profiles.merge(memory.slice_writes(), {}, {})
    return blocks


def load_or_replay(payments: Payments, features: FeatureSet, first: int, data: Path, folder: Path) -> Blocks:
    """The same, read from `folder` if it holds what this code makes of these data, or made and kept there."""
    digest = f"{digest_files(BLOCK_CODE_PATHS, data / FILE)} from {first} to {len(payments)}"
    digest_path = folder / "digest"
    if not (digest_path.is_file() and digest_path.read_text() == digest):
        print(f"{len(payments)} payments and their truths go through the fold: some minutes.", file=sys.stderr)
        blocks = replay_blocks(payments, features, first)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for group, block in blocks.items():
            np.save(folder / f"{group}.numbers.npy", block.numbers)
            np.save(folder / f"{group}.ids.npy", block.ids)
        digest_path.write_text(digest)  # last: a folder without it is made again
    return {
        group: Block(
            *(np.load(folder / f"{group}.{array_name}.npy", mmap_mode="r") for array_name in ("numbers", "ids"))
        )
        for group in DECISION_GROUPS
    }


def digest_files(entries: Iterable[str], *files: Path) -> str:
    """Of the named code and of further files."""
    digest = hashlib.sha256()
    paths = (file for entry in entries for file in (sorted((ROOT / entry).rglob("*.py")) or [ROOT / entry]))
    for path in [*paths, *files]:
        digest.update(path.read_bytes())
    return digest.hexdigest()
