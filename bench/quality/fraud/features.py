"""What profiles knew of each payment when it came: the stream goes through the worker's own fold and encoder once.

That is the long part of the bench and the same for every row, so its blocks are kept in a folder until the code that
makes them, the declared features or the data change.
"""

import shutil
import sys
from pathlib import Path
from typing import Final

import numpy as np

from bench.quality.fraud.dataset import FILE, Payments, iterate_arrivals
from bench.results.digest import digest_inputs
from contract.features.declaration import Block, FeatureSet
from contract.features.encoder import Encoder
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import InMemoryProfileStore, fold

BLOCK_CODE_PATHS: Final = (
    "contract",
    "features.toml",
    "bench/quality/fraud/dataset.py",
    "bench/quality/fraud/features.py",
)
DECISION_GROUPS: Final = ("user", "order", "context")  # the groups that the graph of decisions is given
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
    digest = f"{digest_inputs(BLOCK_CODE_PATHS, files=[data / FILE])} from {first} to {len(payments)}"
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
