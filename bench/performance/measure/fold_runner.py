"""Folds batches over Redis as a worker does, with the compiled fold or with the plain loop."""

from collections.abc import Mapping, Sequence

from bench.performance.baselines.dict_fold import PlainEncoder, process_batch
from contract.features.encoder import Encoder
from contract.hashing import bucket_of
from contract.profiles.entity_updates import Arrival, extract_updates, to_updates
from contract.profiles.slices import Slices, SliceWrites
from contract.profiles.store import MergedOffsets, fold
from contract.settings.reading import read_settings
from worker.redis.client import RedisClient
from worker.state.profile_store import RedisProfileStore


class FoldRunner:
    """Reads, folds, encodes and writes consecutive batches under one key prefix."""

    def __init__(self, *, client: RedisClient, prefix: str) -> None:
        _, self.features = read_settings()
        self.encoder = Encoder(self.features)
        self.store = RedisProfileStore(client=client, prefix=prefix)
        self.merged: MergedOffsets = {}

    def process_batch(self, arrivals: Sequence[Arrival], groups: Sequence[str], *, plain: bool = False) -> None:
        """Do everything that a worker does to a batch between decoding and the model."""
        writes: Mapping[str, Slices]
        if plain:
            writes = self._fold_plainly(arrivals, groups)
            buckets = {bucket_of(entity) for entity in writes}
        else:
            writes = written = self._fold(arrivals, groups)
            buckets = written.buckets()
        end_offsets = {arrival.source: arrival.offset + 1 for arrival in arrivals}
        offsets_after = {bucket: dict(end_offsets) for bucket in buckets}
        self.store.merge(writes, self.merged, offsets_after)
        for bucket, positions in offsets_after.items():
            self.merged.setdefault(bucket, {}).update(positions)

    def _fold(self, arrivals: Sequence[Arrival], groups: Sequence[str]) -> SliceWrites:
        updates = to_updates(arrivals)
        folded = fold(self.store.read(updates.entities), updates)
        self.encoder.encode_before(folded, range(len(arrivals)), groups)
        return folded.slice_writes()

    def _fold_plainly(self, arrivals: Sequence[Arrival], groups: Sequence[str]) -> Mapping[str, Mapping[str, bytes]]:
        updated = (entity for arrival in arrivals for entity, _ in extract_updates(arrival.event))
        entities = list(dict.fromkeys(updated))
        encoder = PlainEncoder(self.features, groups)
        profiles = dict(zip(entities, self.store.read(entities), strict=True))
        writes = process_batch(profiles, arrivals, encoder)
        encoder.to_blocks()
        return writes
