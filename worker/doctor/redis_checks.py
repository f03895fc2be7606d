"""What is wrong with a Redis server: version, eviction, persistence, clock."""

import time
from collections.abc import Iterator
from typing import Final

from worker.doctor.topic_checks import Finding, Severity
from worker.redis.client import PermissionDenied, RedisClient

VERSION_MIN: Final = (7, 0)  # `SET ... NX GET`
CLOCK_DIFFERENCE_S_MAX: Final = 5.0


def check_redis(client: RedisClient) -> Iterator[Finding]:
    """The findings about every server that holds keys; raises `Unavailable`."""
    for server in client.servers():
        subject = f"redis {server.name}"
        yield from (Finding(Severity.ERROR, subject, error) for error in server.find_config_errors())
        try:
            info, (seconds, microseconds) = server.pipeline([("INFO",), ("TIME",)])
        except PermissionDenied as error:
            yield Finding(Severity.WARNING, subject, f"The user should be allowed INFO and TIME. Found: {error}")
            continue
        yield from check_info(subject, parse_info(info), int(seconds) + int(microseconds) / 1e6 - time.time())


def check_info(subject: str, info: dict[str, str], ahead_s: float) -> Iterator[Finding]:
    """The findings from a server's INFO; `ahead_s`: how far its clock is ahead of this machine's."""
    version = info.get("redis_version", "")
    if version and tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < VERSION_MIN:
        yield Finding(Severity.ERROR, subject, f"Redis should be 7.0 or later, or Valkey. Found {version}.")
    if info.get("aof_enabled") == "0":
        yield Finding(
            Severity.WARNING,
            subject,
            "Redis should write every change to disk (appendonly yes). Found it off: after a crash the workers fold "
            "again what is lost, and decisions that were claimed but not published yet may be made again.",
        )
    if abs(ahead_s) > CLOCK_DIFFERENCE_S_MAX:
        yield Finding(
            Severity.WARNING,
            subject,
            f"The clocks of Redis and of this machine should agree. Found a difference of {ahead_s:+.1f} s.",
        )


def parse_info(reply: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines() if ":" in line)
    return {name: value for name, _, value in lines}
