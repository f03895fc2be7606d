"""Generations: builds of the state, one of which serves. One hash names it for each layout of records.

A generation's profiles and positions have keys of their own: those of generation `g3` begin with PREFIX `g3:`, those of
the first one, which has no name, with PREFIX alone. Whoever takes a generation up starts where *its* positions say, so
nothing is lost and nothing counts twice, whoever wrote where in the moment of a switch. docs/decisions/0007 has it all.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from contract.errors import BadProfile, ShopstreamError
from contract.hashing import BUCKETS
from contract.profiles.record import LAYOUT
from worker.redis.client import RedisClient, to_pairs

FIRST: Final = ""  # the generation without a name
LEASE_MS: Final = 60_000

# KEYS: generations. Its fields: LAYOUT -> generation, for each layout; `last`: how many were begun; `building`: the one
# that is being built, `until`: the time (Redis' own, in ms) at which whoever builds it is taken for dead.
OPEN: Final = """
local found = redis.call('HGET', KEYS[1], ARGV[1])
if found then return found end
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do if tonumber(field) then return nil end end
redis.call('HSET', KEYS[1], ARGV[1], '')
return ''
"""
NOW: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local held = redis.call('HGET', KEYS[1], 'building')
local holds = held and now < tonumber(redis.call('HGET', KEYS[1], 'until'))
"""
BEGIN: Final = f"""{NOW}
if holds then return nil end
local name = 'g' .. redis.call('HINCRBY', KEYS[1], 'last', 1)
redis.call('HSET', KEYS[1], 'building', name, 'until', now + ARGV[1])
return name
"""
RENEW: Final = f"""{NOW}
if held ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 'until', now + ARGV[1])
return 1
"""
SWITCH: Final = f"""{NOW}
local serving = redis.call('HGET', KEYS[1], ARGV[1]) or ''
if serving == ARGV[2] then return 1 end
if held ~= ARGV[2] or serving ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1
"""
END: Final = """
if redis.call('HGET', KEYS[1], 'building') == ARGV[1] then redis.call('HDEL', KEYS[1], 'building', 'until') end
return 1
"""
Command = tuple[str, str, str]


class LeaseLost(ShopstreamError):
    """Whoever built a generation has lost its lease, or what serves is not what served when it began."""


class Generations:
    """Asks and says which generation serves the workers of a layout."""

    def __init__(self, *, client: RedisClient, prefix: str, layout: int = LAYOUT) -> None:
        self.client, self.prefix, self.layout = client, prefix, layout
        self.key = f"{prefix}generations"

    @property
    def serving_command(self) -> Command:
        """The command that asks which generation serves; `name_in` reads its answer."""
        return "HGET", self.key, str(self.layout)

    def open(self) -> str:
        """The generation that serves this layout; raises `BadProfile` where there is a state of other layouts alone."""
        reply = self._run_script(OPEN, self.layout)
        if reply is None:
            raise BadProfile(
                f"The state under {self.prefix} should have layout {self.layout}. Found one of another release: run "
                "`python -m worker rebuild` of this release first; workers of the other one may go on meanwhile."
            )
        return str(reply.decode())

    def begin_build(self) -> str | None:
        """The name of a new generation, to be built by the caller alone; None while another build holds its lease."""
        name = self._run_script(BEGIN, LEASE_MS)
        return None if name is None else str(name.decode())

    def renew_lease(self, name: str) -> None:
        """Go on building; raises `Overtaken` if the lease is another's."""
        if not self._run_script(RENEW, LEASE_MS, name):
            raise LeaseLost(f"{self.key} should say that {name} is being built. Found that it does not.")

    def read_serving(self) -> str:
        """The generation that serves this layout; the first one also before anybody said so."""
        return parse_generation(self.client.pipeline([self.serving_command])[0])

    def switch(self, name: str, before: str) -> None:
        """Let the one that was built serve instead of `before`; raises `Overtaken`, and then nothing has changed."""
        if not self._run_script(SWITCH, self.layout, name, before):
            raise LeaseLost(f"{self.key} should say `{before}` serves and {name} is being built. Found another.")

    def end_build(self, name: str) -> None:
        """Build no more."""
        self._run_script(END, name)

    def delete_other_layouts(self) -> list[int]:
        """Forget the states of all layouts but this one; returns those layouts."""
        layouts = [int(field) for field in self._read_fields() if field.isdigit() and int(field) != self.layout]
        if layouts:
            self.client.pipeline([("HDEL", self.key, *layouts)])
        return layouts

    def read_live(self) -> set[str]:
        """The generations that serve some layout, or are being built."""
        fields = self._read_fields()
        served = {name for field, name in fields.items() if field.isdigit()}
        return (served or {FIRST}) | {name for field, name in fields.items() if field == "building"}

    def fence(self, name: str) -> None:
        """Forget how far a generation is merged, unless it is kept: nobody who is in it can merge on."""
        if name not in self.read_live():
            prefix = generation_prefix(self.prefix, name)
            self.client.pipeline([("UNLINK", f"{prefix}merged:{{{bucket}}}") for bucket in range(BUCKETS)])

    def delete_unused(self, on_page: Callable[[], object] = lambda: None) -> int:
        """Delete what is left of every generation that is not kept; returns how many keys that were."""
        count = 0
        for keys in self._scan_unused(self.read_live()):
            self.client.pipeline([("UNLINK", key) for key in keys])
            count += len(keys)
            on_page()
        return count

    def _scan_unused(self, live: set[str]) -> Iterator[list[str]]:
        """The keys of generations that are not kept, page by page."""
        state_key = re.compile(re.escape(self.prefix) + r"(?:(g\d+):)?(?:profile:\{|merged:\{|begins$|erasures$)")
        for page in self.client.scan(self.prefix):
            named_keys = [(match[1] or FIRST, key) for key in page if (match := state_key.match(key))]
            if unused := [key for name, key in named_keys if name not in live]:
                yield unused

    def _read_fields(self) -> dict[str, str]:
        (reply,) = self.client.pipeline([("HGETALL", self.key)])
        return {field.decode(): value.decode() for field, value in to_pairs(reply)}

    def _run_script(self, script: str, *arguments: Any) -> Any:
        return self.client.run_script(script, [([self.key], arguments)])[0]


def parse_generation(reply: bytes | None) -> str:
    """The generation in the answer to `Generations.question`; the first one before anybody said so."""
    return FIRST if reply is None else reply.decode()


def generation_prefix(prefix: str, generation: str) -> str:
    """What the keys of a generation begin with."""
    return f"{prefix}{generation}:" if generation else prefix
