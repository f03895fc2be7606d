"""A key of another type or content, wherever it is, ends no worker and costs no exactness."""

import pytest
from msgspec.structs import replace

from contract.errors import BadProfile
from contract.hashing import BUCKETS
from contract.messages import to_json
from contract.profiles.histories import history_key
from contract.profiles.record import profile_key
from testkit.metrics import read_metric
from tests.worker.environment import WorkerEnvironment
from tests.worker.events import make_order
from tests.worker.worker_lifecycle import InProcessWorker
from worker.ops import metrics

USER = "user:u1"
PROFILE, MERGED = "profile", "merged"  # labels of the metric


def spoil_commands(environment: WorkerEnvironment, worker: InProcessWorker, fault: str) -> list[tuple[object, ...]]:
    """The commands that make one key unreadable."""
    prefix = environment.prefix
    profile, merged = f"{prefix}{profile_key(USER)}", worker.profiles.keys.offsets(7)
    source = next(iter(worker.offsets.sources.values()))
    history = f"{prefix}{history_key(USER)}"
    (fields,) = environment.redis.pipeline([("HKEYS", history)])
    (history_source,) = [name for name in fields if not name.startswith(b"logins:")]  # of the user's partition
    (logins,) = [name for name in fields if name.startswith(b"logins:")]
    commands: dict[str, list[tuple[object, ...]]] = {
        "a profile that is text": [("SET", profile, "x")],
        "a profile that is a list": [("DEL", profile), ("LPUSH", profile, "x")],
        "a slice that is cut short": [("HSET", profile, source, b"short")],
        "a slice of another layout": [("HSET", profile, source, b"\x01" * 472)],
        "a field that is no slice": [("HSET", profile, "foreign", b"x")],
        "a history that is text": [("SET", history, "x")],
        "a history that is cut short": [("HSET", history, history_source, b"short")],
        "a history of another layout": [("HSET", history, history_source, b"\x01" * 17)],
        "logins that are cut short": [("HSET", history, logins, b"\x92")],
        "logins of another layout": [("HSET", history, logins, b"\x92\x02\x91\x93\xa1g\x01\x01")],
        "offsets that are text": [("SET", merged, "x")],
        "an offset that is no number": [("HSET", merged, source, "x")],
        "an offset that is negative": [("HSET", merged, source, "-5")],
        "generations that are text": [("SET", f"{prefix}generations", "x")],
        "progress of erasures that is text": [("SET", f"{prefix}erasures", "x")],
        "confirmations to repeat that are text": [("SET", f"{prefix}unconfirmed", "x")],
        "progress of erasures that is no JSON": [("HSET", f"{prefix}erasures", "orders>x/0", "x")],
        "beginnings of logs that are text": [("SET", f"{prefix}begins", "x"), ("SET", merged, "x")],
    }
    return commands[fault]


FAULTS = [
    ("a profile that is text", PROFILE),
    ("a profile that is a list", PROFILE),
    ("a slice that is cut short", PROFILE),
    ("a slice of another layout", PROFILE),
    ("a field that is no slice", PROFILE),
    ("a history that is text", PROFILE),
    ("a history that is cut short", PROFILE),
    ("a history of another layout", PROFILE),
    ("logins that are cut short", PROFILE),
    ("logins of another layout", PROFILE),
    ("offsets that are text", MERGED),
    ("an offset that is no number", MERGED),
    ("an offset that is negative", MERGED),
    ("generations that are text", "generations"),
    ("progress of erasures that is text", "erasures"),
    ("confirmations to repeat that are text", "erasures"),
    ("progress of erasures that is no JSON", ""),
    ("beginnings of logs that are text", "begins"),
]


def send_orders(environment: WorkerEnvironment, numbers: range) -> set[str]:
    orders = [replace(make_order(f"o{n}", user=f"u{n % 3}", device=f"d{n % 2}"), guest_id="g") for n in numbers]
    environment.send("orders", [(order.user_id, to_json(order)) for order in orders])
    return {order.event_id for order in orders}


@pytest.mark.parametrize(("fault", "kind"), FAULTS, ids=[fault for fault, _ in FAULTS])
@pytest.mark.apache_kafka
def test_a_worker_repairs_an_unreadable_key_and_goes_on(apache_stage: WorkerEnvironment, fault: str, kind: str) -> None:
    # given a worker with some state
    environment = apache_stage
    sent = send_orders(environment, range(12))
    repaired = metrics.UNREADABLE_KEYS.labels(kind or "erasures")
    with InProcessWorker(environment, erases=True) as worker:
        worker.process_all(environment.end_offsets("orders"))
        before = read_metric(repaired)
        # when
        environment.redis.pipeline(spoil_commands(environment, worker, fault))
        sent |= send_orders(environment, range(12, 24))
        worker.run_until(lambda: read_metric(repaired) > before or not kind)
        worker.run_until(lambda: environment.is_decided_once(sent))
        environment.send_erasure("u2", 1)
        worker.run_until(lambda: bool(environment.read_records("erased")))
        worker.process_all(environment.end_offsets("orders"))
        # then the state is what a clean pass gives, each order is decided once, and erasures are confirmed
        assert environment.find_differences("orders") == []
        assert environment.is_decided_once(sent)
        assert all(worker.profiles.read_offsets(worker.offsets.sources.values())[b] for b in range(BUCKETS))


@pytest.mark.apache_kafka
def test_an_unreadable_profile_whose_log_is_gone_is_left_to_the_operator(apache_stage: WorkerEnvironment) -> None:
    # given a log without its first records
    environment = apache_stage
    send_orders(environment, range(12))
    with InProcessWorker(environment) as worker:
        worker.process_all(environment.end_offsets("orders"))
        environment.remove_records("orders", below=1)
        key = f"{environment.prefix}{profile_key(USER)}"
        environment.redis.pipeline([("SET", key, "x")])
        send_orders(environment, range(12, 24))
        # then
        with pytest.raises(BadProfile, match=r"first records deleted.*redis-cli DEL"):
            worker.run_until(lambda: False)
        # and nothing was deleted
        assert environment.redis.pipeline([("GET", key)]) == [b"x"]
