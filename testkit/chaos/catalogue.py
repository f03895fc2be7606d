"""Every kind of fault of a chaos run, with the server that it needs for itself."""

from collections.abc import Callable
from typing import Final, NamedTuple

from testkit.chaos import input_faults, kafka_faults, process_faults, redis_faults
from testkit.chaos.scene import Course, Scene
from testkit.kills.killed_process import STEPS_WITH_BATCH

KAFKA, REDIS, CLOCK, REBUILD = "kafka", "redis", "clock", "rebuild"
SHARED: Final = ""


class ChaosFault(NamedTuple):
    """A fault: its course, and what no other fault may have at the same time.

    `begins_drained`: it starts before the round's traffic, where all that was sent is folded and answered.
    """

    course: Callable[[Scene], Course]
    server: str = SHARED
    begins_drained: bool = False


STEPS: Final = (*STEPS_WITH_BATCH, "recover")
CHAOS_FAULTS: Final[dict[str, ChaosFault]] = {
    "SIGKILL": ChaosFault(process_faults.kill(None)),
    **{f"SIGKILL in {step}": ChaosFault(process_faults.kill(step)) for step in STEPS},
    "SIGTERM": ChaosFault(process_faults.terminate),
    "frozen briefly": ChaosFault(process_faults.freeze(None, process_faults.BRIEF_S)),
    "frozen": ChaosFault(process_faults.freeze(None, process_faults.BEYOND_SESSION_S)),
    **{f"frozen in {step}": ChaosFault(process_faults.freeze(step, process_faults.BEYOND_SESSION_S)) for step in STEPS},
    "worker joins": ChaosFault(process_faults.join),
    "worker leaves": ChaosFault(process_faults.leave),
    "broker killed": ChaosFault(kafka_faults.kill_broker, KAFKA),
    "broker stopped": ChaosFault(kafka_faults.stop_broker, KAFKA),
    "broker paused": ChaosFault(kafka_faults.pause_broker, KAFKA),
    "partitions added": ChaosFault(kafka_faults.add_partitions, KAFKA),
    "topic recreated": ChaosFault(kafka_faults.recreate_topic, KAFKA, begins_drained=True),
    "dead-letter topic missing": ChaosFault(kafka_faults.lose_dead_letter_topic, KAFKA, begins_drained=True),
    "dead-letter topic too small": ChaosFault(kafka_faults.shrink_dead_letter_topic, KAFKA),
    "too few replicas": ChaosFault(kafka_faults.require_replicas, KAFKA),
    "foreign transaction": ChaosFault(kafka_faults.open_foreign_transaction, KAFKA),
    "Redis away": ChaosFault(redis_faults.stop_redis, REDIS),
    "Redis paused": ChaosFault(redis_faults.pause_redis, REDIS),
    "Redis slow": ChaosFault(redis_faults.slow_redis, REDIS),
    "Redis connections reset": ChaosFault(redis_faults.disconnect, REDIS),
    "Redis full": ChaosFault(redis_faults.fill, REDIS),
    "Redis read-only": ChaosFault(redis_faults.demote, REDIS),
    "Redis locked": ChaosFault(redis_faults.lock, REDIS),
    "Redis flushed": ChaosFault(redis_faults.flush, REDIS),
    "Redis set back": ChaosFault(redis_faults.set_back, REDIS),
    "poison records": ChaosFault(input_faults.poison),
    "events repeated": ChaosFault(input_faults.repeat_events),
    "clock stepped": ChaosFault(input_faults.step_clock, CLOCK),
    "users erased": ChaosFault(input_faults.erase_users),
    "state rebuilt": ChaosFault(input_faults.rebuild_state, REBUILD),
    "bundle swapped": ChaosFault(input_faults.swap_bundle),
    "disk full for a bundle": ChaosFault(input_faults.fill_disk),
}
