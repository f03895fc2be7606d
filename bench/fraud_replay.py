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

from bench.fraud_stream import FILE, Payments, stream
from contract.features.declaration import Block, FeatureSet
from contract.features.encoder import Encoder
from contract.profiles.entity_updates import to_updates
from contract.profiles.store import InMemoryProfileStore, fold

ROOT: Final = Path(__file__).parents[1]
MADE_BY: Final = ("contract", "features.toml", "bench/fraud_stream.py", "bench/fraud_replay.py")
READ: Final = ("user", "order", "context")  # the groups that the graph of decisions is given
ARRIVALS: Final = 20_000  # folded at once: a profile is the same however the log was cut
Blocks = dict[str, Block]


def replayed(payments: Payments, features: FeatureSet, first: int) -> Blocks:
    """The blocks of the payments from number `first` on, each as known before its payment."""
    encoder, profiles = Encoder(features), InMemoryProfileStore()
    blocks = {group: features.empty_block(group, len(payments) - first) for group in READ}
    for stretch in stream(payments, ARRIVALS):
        touches = to_updates(stretch.arrivals)
        memory = fold(profiles.read(touches.entities), touches)
        wanted = stretch.rows >= first
        if wanted.any():
            for group, found in encoder.encode_before(memory, stretch.orders[wanted].tolist(), READ).items():
                at = stretch.rows[wanted] - first
                blocks[group].numbers[at], blocks[group].ids[at] = found.numbers, found.ids
        profiles.merge(memory.slice_writes(), {}, {})
    return blocks


def kept(payments: Payments, features: FeatureSet, first: int, data: Path, folder: Path) -> Blocks:
    """The same, read from `folder` if it holds what this code makes of these data, or made and kept there."""
    digest = f"{digest_of(MADE_BY, data / FILE)} from {first} to {len(payments)}"
    said = folder / "digest"
    if not (said.is_file() and said.read_text() == digest):
        print(f"{len(payments)} payments and their truths go through the fold: some minutes.", file=sys.stderr)
        blocks = replayed(payments, features, first)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for group, block in blocks.items():
            np.save(folder / f"{group}.numbers.npy", block.numbers)
            np.save(folder / f"{group}.ids.npy", block.ids)
        said.write_text(digest)  # last: a folder without it is made again
    return {
        group: Block(*(np.load(folder / f"{group}.{part}.npy", mmap_mode="r") for part in ("numbers", "ids")))
        for group in READ
    }


def digest_of(parts: Iterable[str], *more: Path) -> str:
    """Of the named code and of further files."""
    found = hashlib.sha256()
    paths = (p for part in parts for p in (sorted((ROOT / part).rglob("*.py")) or [ROOT / part]))
    for path in [*paths, *more]:
        found.update(path.read_bytes())
    return found.hexdigest()
