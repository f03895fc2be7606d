"""Generations: builds of the state, one of which serves. One Redis hash names it for each layout of records.

Each generation has its own profiles and merged offsets: the keys of generation `g3` begin with PREFIX `g3:`, those of
the first one, which has no name, with PREFIX alone. A worker that switches starts at the offsets of the new generation,
so nothing is lost or counted twice, wherever workers wrote at the moment of the switch. See docs/decisions/0007.
"""

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Final

from contract.errors import BadProfile, ShopstreamError
from contract.hashing import BUCKETS
from contract.profiles.record import LAYOUT
from worker.ops import metrics
from worker.redis.client import RedisClient, WrongType, to_pairs

log = logging.getLogger(__name__)
GENERATION: Final = re.compile(rb"(?:g\d+)?")
FIRST: Final = ""  # the generation without a name
LEASE_MS: Final = 60_000

# KEYS: generations. Its fields: LAYOUT -> generation, for each layout; `last`: the number of builds begun; `building`:
# the generation being built, `until`: the end of its lease, in ms of Redis' clock.
OPEN: Final = """
local serving = redis.call('HGET', KEYS[1], ARGV[1])
if serving then return serving end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do if tonumber(field) then return nil end end
redis.call('HSET', KEYS[1], ARGV[1], '')
return ''
"""
# ARGV: the layout, its generation, the value that is unreadable, the number of generations. A full Redis refuses SET,
# and not DEL: a key that is deleted and not written would name the first generation.
RESTORE: Final = """
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' then
  redis.call('SET', KEYS[1], '')
  redis.call('DEL', KEYS[1])
end
local held = redis.call('HGET', KEYS[1], ARGV[1])
if held and held ~= ARGV[3] then return held end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if tonumber(ARGV[4]) > (tonumber(redis.call('HGET', KEYS[1], 'last')) or 0) then
  redis.call('HSET', KEYS[1], 'last', ARGV[4])
end
return ARGV[2]
"""
NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local building = redis.call('HGET', KEYS[1], 'building')
local leased = building and now < (tonumber(redis.call('HGET', KEYS[1], 'until')) or 0)
"""
BEGIN: Final = f"""{NOW}
if leased then return nil end
local name = 'g' .. redis.call('HINCRBY', KEYS[1], 'last', 1)
redis.call('HSET', KEYS[1], 'building', name, 'until', now + ARGV[1])
return name
"""
RENEW: Final = f"""{NOW}
if building ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'until', now + ARGV[1])
return 1
"""
SWITCH: Final = f"""{NOW}
local serving = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if serving == ARGV[2] then return 1 end
if building ~= ARGV[2] or serving ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
END: Final = """
if redis.call('HGET', KEYS[1], 'building') == ARGV[1] then redis.call('HDEL', KEYS[1], 'building', 'until') end
return 1
"""
Command = tuple[str, str, str]


class LeaseLost(ShopstreamError):
    """A build has lost its lease, or another generation serves than at its start."""


class Generations:
    """Reads and switches the serving generation of a layout."""

    def __init__(self, *, client: RedisClient, prefix: str, layout: int = LAYOUT) -> None:
        self.client, self.prefix, self.layout = client, prefix, layout
        self.key = f"{prefix}generations"

    @property
    def serving_command(self) -> Command:
        """The command that reads the serving generation; `parse_generation` parses its reply."""
        return "HGET", self.key, str(self.layout)

    def open(self) -> str:
        """The serving generation of this layout; raises `BadProfile` where only other layouts have a state."""
        try:
            reply = self._run_script(OPEN, self.layout)
        except WrongType:
            reply = self._restore(b"")
        if reply is not None and not GENERATION.fullmatch(reply):
            reply = self._restore(reply)
        if reply is None:
            raise BadProfile(
                f"The state under {self.prefix} should have layout {self.layout}. Found one of another release: run "
                "`python -m worker rebuild` of this release first; workers of the other release may go on until then."
            )
        return str(reply.decode())

    def _restore(self, unreadable: bytes) -> bytes:
        """Write which generation serves where it cannot be read: the one with the most merged offsets.

        Any generation is complete with the log from its offsets on, so a wrong choice costs time.
        """
        counts, merged_key = Counter[str](), re.compile(re.escape(self.prefix) + r"(?:(g\d+):)?merged:\{")
        for page in self.client.scan(self.prefix):
            counts.update(match[1] or FIRST for key in page if (match := merged_key.match(key)))
        name = max(counts, key=lambda name: (counts[name], number_of(name)), default=FIRST)
        self._run_script(RESTORE, self.layout, name, unreadable, max(map(number_of, counts), default=0))
        metrics.UNREADABLE_KEYS.labels("generations").inc()
        log.error("%s should name the serving generation. Found it unreadable, going on with `%s`.", self.key, name)
        return name.encode()

    def begin_build(self) -> str | None:
        """The name of a new generation that only the caller builds; None while another build holds its lease."""
        name = self._run_script(BEGIN, LEASE_MS)
        return None if name is None else str(name.decode())

    def renew_lease(self, name: str) -> None:
        """Extend the lease; raises `LeaseLost` if another build holds it."""
        if not self._run_script(RENEW, LEASE_MS, name):
            raise LeaseLost(f"{self.key} should name {name} as being built. Found another build.")

    def read_serving(self) -> str:
        """The serving generation of this layout; the first one where none is recorded yet."""
        return parse_generation(self.client.pipeline([self.serving_command])[0])

    def switch(self, name: str, before: str) -> None:
        """Make the built generation serve instead of `before`; raises `LeaseLost`, and then nothing has changed."""
        if not self._run_script(SWITCH, self.layout, name, before):
            raise LeaseLost(f"{self.key} should name `{before}` as serving and {name} as being built. Found others.")

    def end_build(self, name: str) -> None:
        """Give the lease back."""
        self._run_script(END, name)

    def delete_other_layouts(self) -> list[int]:
        """Remove the generations of all other layouts from the hash; returns those layouts."""
        layouts = [int(field) for field in self._read_fields() if field.isdigit() and int(field) != self.layout]
        if layouts:
            self.client.pipeline([("HDEL", self.key, *layouts)])
        return layouts

    def read_live(self) -> set[str]:
        """The generations that serve a layout or are being built."""
        fields = self._read_fields()
        served = {name for field, name in fields.items() if field.isdigit()}
        return (served or {FIRST}) | {name for field, name in fields.items() if field == "building"}

    def fence(self, name: str) -> None:
        """Delete the merged offsets of a generation that is not live, so that no worker can merge into it."""
        if name not in self.read_live():
            prefix = generation_prefix(self.prefix, name)
            self.client.pipeline([("UNLINK", f"{prefix}merged:{{{bucket}}}") for bucket in range(BUCKETS)])

    def delete_unused(self, on_page: Callable[[], object] = lambda: None) -> int:
        """Delete the keys of every generation that is not live; returns their number."""
        count = 0
        for keys in self._scan_unused(self.read_live()):
            self.client.pipeline([("UNLINK", key) for key in keys])
            count += len(keys)
            on_page()
        return count

    def _scan_unused(self, live: set[str]) -> Iterator[list[str]]:
        """The keys of generations that are not live, page by page."""
        state_key = re.compile(
            re.escape(self.prefix)
            + r"(?:(g\d+):)?(?:profile:\{|history:\{|merged:\{|begins$|history_begins$|history$|erasures$)"
        )
        for page in self.client.scan(self.prefix):
            named_keys = [(match[1] or FIRST, key) for key in page if (match := state_key.match(key))]
            if unused := [key for name, key in named_keys if name not in live]:
                yield unused

    def _read_fields(self) -> dict[str, str]:
        (reply,) = self.client.pipeline([("HGETALL", self.key)])
        return {field.decode(): value.decode() for field, value in to_pairs(reply)}

    def _run_script(self, script: str, *arguments: Any) -> Any:
        return self.client.run_script(script, [([self.key], arguments)])[0]


def number_of(name: str) -> int:
    """The number in the name of a generation; 0 for the first one."""
    return int(name[1:] or 0)


def parse_generation(reply: bytes | None) -> str:
    """The generation in the reply to `Generations.serving_command`; the first one where none is recorded yet."""
    return FIRST if reply is None else reply.decode(errors="replace")


def generation_prefix(prefix: str, generation: str) -> str:
    """The prefix of a generation's keys."""
    return f"{prefix}{generation}:" if generation else prefix
