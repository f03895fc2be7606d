"""The settings that give stored data its meaning, as the last worker had them: a change is told in the log."""

import logging
from typing import Final

from contract.settings.reading import Settings
from worker.redis.client import RedisClient, to_pairs

log = logging.getLogger(__name__)
EFFECTS: Final = {
    "lists.decision_ttl_s": "decisions that are stored keep their former time to live",
    "lists.ttl_s": "lists that are stored keep their former time to live",
    "redis.cache_url": "a former cache server keeps its answers until they expire, and no erasure reaches them",
    "kafka.topic_ids": "profiles are folded again under other sources",
    "entities": "a new kind counts from now on, until a rebuild from the beginning of the log",
    "kafka.group_prefix": "the new groups answer every record of the topics again",
}


def report_changed_settings(client: RedisClient, settings: Settings) -> list[str]:
    """Log each setting that differs from the recorded one, and record the present ones; returns their names."""
    key = f"{settings.redis.prefix}settings"
    values = {
        "lists.decision_ttl_s": str(settings.lists.decision_ttl_s),
        "lists.ttl_s": str(settings.lists.ttl_s),
        "redis.cache_url": (settings.redis.cache_url or "").rpartition("@")[2].partition("?")[0],  # no password
        "kafka.topic_ids": str(settings.kafka.topic_ids),
        "entities": ", ".join(sorted(f"{e.kind}: {e.meaning}" for e in settings.entity_kinds().declared)),
        "kafka.group_prefix": settings.kafka.group_prefix,
    }
    client.delete_other_type(key, "hash")
    (reply,) = client.pipeline([("HGETALL", key)])
    former = {name.decode(errors="replace"): value.decode(errors="replace") for name, value in to_pairs(reply)}
    changed = [name for name, value in values.items() if former.get(name, value) != value]
    for name in changed:
        log.warning("`%s` has changed from `%s` to `%s`: %s.", name, former[name], values[name], EFFECTS[name])
    client.pipeline([("HSET", key, *[part for item in values.items() for part in item])])
    return changed
