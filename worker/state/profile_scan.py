"""Scans profiles and histories while workers go on writing them, in pages of one bucket and one moment each."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from contract.profiles.histories import Histories
from contract.profiles.record import entity_from_key
from contract.profiles.slices import Slices
from worker.redis.client import RedisClient, to_pairs
from worker.state.profile_keys import ProfileKeys, hash_tag
from worker.state.profile_store import is_offset

# KEYS: merged:{bucket}, then profiles of that bucket. Returns the fields of each; one script, so all of one moment.
READ_PAGE: Final = """
local hashes = {}
for n = 1, #KEYS do hashes[n] = redis.call('HGETALL', KEYS[n]) end
return hashes
"""
PAGE_KEYS: Final = 64  # Redis serves no other command while it copies them


class ProfilePage(NamedTuple):
    """Profiles and histories of one bucket by key (without the prefix), and its merged offsets at the same moment."""

    merged: Mapping[str, int]
    profiles: Mapping[str, Slices]
    histories: Mapping[str, Histories]  # of users, by the key of the profile; the fields of logins too


class ProfileScan:
    """Scans the profiles under the keys of one generation."""

    def __init__(self, client: RedisClient, keys: ProfileKeys) -> None:
        self._client, self._keys = client, keys

    def slices(self, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Slices]]:
        """The key (without the prefix) and the slices of each wanted entity's profile; see `pages`."""
        for page in self.pages(wanted):
            yield from page.profiles.items()

    def pages(
        self,
        wanted: Callable[[str], bool],
        kind: str = "profile",
        is_known: Callable[[str], bool] = lambda _: False,
    ) -> Iterator[ProfilePage]:
        """The profiles of wanted entities, unchecked, in pages of one bucket each.

        `kind`: the keys to scan, `profile` or `history`: the profiles of users with a history, absent ones too.
        `is_known`: whether to leave out the profile under a key (without the prefix). What exists during the whole scan
        is returned at least once; a later page replaces an earlier one.
        """
        keys_by_tag = defaultdict[str, list[str]](list)
        for page in self._client.scan(f"{self._keys.prefix}{kind}:"):
            keys = page if kind == "profile" else [key for own in page if (key := self._keys.profile_of(own))]
            for key in keys:
                if wanted(entity_from_key(key)) and not is_known(key.removeprefix(self._keys.prefix)):
                    keys_by_tag[hash_tag(key, self._keys.prefix)].append(key)
            full = {tag: keys_by_tag.pop(tag) for tag, keys in list(keys_by_tag.items()) if len(keys) >= PAGE_KEYS}
            yield from self._read_pages(full)
        yield from self._read_pages(keys_by_tag)

    def _read_pages(self, keys_by_tag: Mapping[str, Sequence[str]]) -> Iterator[ProfilePage]:
        for tag, all_keys in keys_by_tag.items():
            for start in range(0, len(all_keys), PAGE_KEYS):
                keys = all_keys[start : start + PAGE_KEYS]
                histories = {key: own for key in keys if (own := self._keys.history_of(key))}
                all_of_page = [f"{self._keys.prefix}merged:{tag}", *keys, *histories.values()]
                (reply,) = self._client.run_script(READ_PAGE, [(all_of_page, [])])
                offsets, *hashes = [to_pairs(fields) for fields in reply]
                named = [
                    (key.removeprefix(self._keys.prefix), {source.decode(): record for source, record in pairs})
                    for key, pairs in zip([*keys, *histories], hashes, strict=True)
                ]
                yield ProfilePage(
                    merged={source.decode(): int(offset) for source, offset in offsets if is_offset(offset)},
                    profiles=dict(named[: len(keys)]),
                    histories={key: own for key, own in named[len(keys) :] if own},
                )
