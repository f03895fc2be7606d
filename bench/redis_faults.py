"""Redis that answers, but not as it should: full, read-only, slow, locked, evicting, half a pipeline, half a record.

A worker holds the batch in hand, says so, and goes on when the server is well again; where waiting would not help, it
ends and says what to do.
"""

from collections.abc import Mapping
from typing import Final

from bench.faults import Fault, refused
from bench.scene import Scene, Terms

REDIS_FAULTS: Final[Mapping[str, Fault]] = {}
