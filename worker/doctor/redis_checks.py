"""What is wrong with a Redis server: version, eviction, persistence, clock."""

import time
from collections.abc import Iterator
from typing import Final

from worker.doctor.finding import SET_CLOCK, Finding, Severity, approve
from worker.redis.client import PermissionDenied, RedisClient

VERSION_MIN: Final = (7, 0)  # `SET ... NX GET`
CLOCK_DIFFERENCE_S_MAX: Final = 5.0
MEMORY_SHARE_MAX: Final = 0.8
SHELL: Final = "redis-cli"


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
            f"{format_shell(client)} ACL SETUSER NAME +@all -@admin '~{prefix}*'",
        )
    return approve(subject, f"This user may read and write keys that begin with {prefix}.")


def format_shell(client: RedisClient) -> str:
    """The command that sends this server others."""
    return f"{client.shell} -u {client.name if '://' in client.name else f'redis://{client.name}'}"


def check_redis(client: RedisClient) -> Iterator[Finding]:
    """The findings about every server that holds keys; raises `Unavailable`."""
    for server in client.servers():
        subject, shell = f"redis {server.name}", format_shell(server)
        yield from (
            Finding(Severity.ERROR, subject, error, f"{shell} CONFIG SET maxmemory-policy noeviction")
            for error in server.find_config_errors()
        )
        try:
            info, (seconds, microseconds) = server.pipeline([("INFO",), ("TIME",)])
        except PermissionDenied as error:
            yield Finding(
                Severity.WARNING,
                subject,
                f"The user should be allowed INFO and TIME. Found: {error}",
                f"{shell} ACL SETUSER NAME +info +time",
            )
            continue
        fields, ahead_s = parse_info(info), int(seconds) + int(microseconds) / 1e6 - time.time()
        yield from [*check_memory(subject, fields, shell), *check_info(subject, fields, ahead_s, shell)]
        yield approve(f"{subject} server", describe_server(fields))


def describe_server(info: dict[str, str]) -> str:
    """Version, policy, memory and place in a cluster, as the server says them."""
    used, limit = int(info.get("used_memory", "0")), int(info.get("maxmemory", "0"))
    return (
        f"{info.get('server_name', 'redis')} {info.get('valkey_version') or info.get('redis_version', 'unknown')}, "
        f"{info.get('maxmemory_policy', 'policy unknown')}, {used / 2**20:.0f} MiB of "
        f"{f'{limit / 2**20:.0f} MiB' if limit else 'no limit'}, "
        f"{'in a cluster' if info.get('cluster_enabled') == '1' else 'alone'}, {info.get('role', 'role unknown')}."
    )


def check_info(subject: str, info: dict[str, str], ahead_s: float, shell: str = SHELL) -> Iterator[Finding]:
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
            f"{shell} CONFIG SET appendonly yes",
        )
    if abs(ahead_s) > CLOCK_DIFFERENCE_S_MAX:
        yield Finding(
            Severity.WARNING,
            subject,
            f"The clocks of Redis and of this machine should agree. Found a difference of {ahead_s:+.1f} s.",
            SET_CLOCK,
        )


def check_memory(subject: str, info: dict[str, str], shell: str = SHELL) -> Iterator[Finding]:
    """Whether a server comes near its limit of memory, or near the memory of its machine if it has none."""
    used = int(info.get("used_memory", "0"))
    limit = int(info.get("maxmemory", "0")) or int(info.get("total_system_memory", "0"))
    if limit and used > MEMORY_SHARE_MAX * limit:
        yield Finding(
            Severity.WARNING,
            subject,
            f"Redis should use at most {MEMORY_SHARE_MAX:.0%} of its memory: a full one takes no answers. "
            f"Found {used / 2**20:.0f} of {limit / 2**20:.0f} MiB.",
            f"{shell} CONFIG SET maxmemory BYTES" if int(info.get("maxmemory", "0")) else "",
        )


def parse_info(reply: bytes) -> dict[str, str]:
    """The fields of an INFO reply."""
    lines = (line.partition(":") for line in reply.decode(errors="replace").splitlines() if ":" in line)
    return {name: value for name, _, value in lines}
