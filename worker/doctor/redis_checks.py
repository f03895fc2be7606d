"""What is wrong with a Redis server: version, eviction, persistence, clock."""

import time
from collections.abc import Iterator
from typing import Final

from worker.doctor.finding import Finding, Severity, approve
from worker.redis.client import PermissionDenied, RedisClient

VERSION_MIN: Final = (7, 0)  # `SET ... NX GET`
CLOCK_DIFFERENCE_S_MAX: Final = 5.0
MEMORY_SHARE_MAX: Final = 0.8


def check_rights(client: RedisClient, prefix: str) -> Finding:
    """The verdict on the rights of the user, each tried on a key that does not exist and is not created."""
    subject, key = f"redis {client.name}", f"{prefix}doctor"
    try:
        client.pipeline(
            [
                ("HGETALL", key),
                ("SET", key, "1", "XX", "EX", "1"),
                ("HDEL", key, "1"),
                ("ZREM", key, "1"),
                ("UNLINK", key),
            ]
        )
        client.run_script("return redis.call('EXISTS', KEYS[1])", [([key], [])])
        client.servers()[0].pipeline([("SCAN", "0", "COUNT", "1")])
    except PermissionDenied as error:
        return Finding(
            Severity.ERROR,
            subject,
            f"The user should be allowed what workers do with keys that begin with {prefix}. Found: {error}",
            f"redis-cli ACL SETUSER NAME +@all -@admin '~{prefix}*'",
        )
    return approve(subject, f"This user may read and write keys that begin with {prefix}.")


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
        fields = parse_info(info)
        yield from check_memory(subject, fields)
        yield from check_info(subject, fields, int(seconds) + int(microseconds) / 1e6 - time.time())


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


def check_memory(subject: str, info: dict[str, str]) -> Iterator[Finding]:
    """Whether a server comes near its limit of memory, or near the memory of its machine if it has none."""
    used = int(info.get("used_memory", "0"))
    limit = int(info.get("maxmemory", "0")) or int(info.get("total_system_memory", "0"))
    if limit and used > MEMORY_SHARE_MAX * limit:
        yield Finding(
            Severity.WARNING,
            subject,
            f"Redis should use at most {MEMORY_SHARE_MAX:.0%} of its memory: a full one takes no answers. "
            f"Found {used / 2**20:.0f} of {limit / 2**20:.0f} MiB.",
        )


def parse_info(reply: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines() if ":" in line)
    return {name: value for name, _, value in lines}
