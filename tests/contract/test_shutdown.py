"""A signal ends a process within a set time, whatever its servers do; a fault ends it with a trace."""

import os
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from contract.shutdown import EXIT_GAVE_UP
from devservers.apache_kafka import ApacheKafka
from devservers.process import ChildProcess
from devservers.redis_server import RedisServer
from testkit.checkout import CHECKOUT_VARIABLES
from testkit.environment.run_environment import RunEnvironment
from tests.checkout import ROOT
from tests.polling import wait_until

COMMANDS = {
    "orders": ["worker", "score", "--lane", "orders"],
    "browsing": ["worker", "score", "--lane", "browsing"],
    "joiner": ["worker", "feedback"],
    "learner": ["training", "follow"],
    "monitor": ["training", "watch"],
}
STARTED = {
    "orders": "Starting at",
    "browsing": "Starting at",
    "joiner": "Loaded 0 published",
    "learner": "Trying again",
    "monitor": "Metrics are served",
}
UNREACHABLE = {
    "SHOPSTREAM_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9",
    "SHOPSTREAM_REDIS__URL": "redis://127.0.0.1:9/0",
    "SHOPSTREAM_WORKER__HTTP_PORT": "0",
}
HANGS = """
import ctypes, logging, threading, time
from contract.shutdown import Shutdown
logging.basicConfig()
shutdown = Shutdown(threading.Event())
shutdown.limit_s = 0.2
shutdown.install()
print("ready", flush=True)
shutdown.stop.wait()
{call}
"""
LOCK_TWICE = "mutex = ctypes.create_string_buffer(64); lib.pthread_mutex_lock(mutex); lib.pthread_mutex_lock(mutex)"
CALLS = {
    "a call in C": f"lib = ctypes.CDLL(None); {LOCK_TWICE}",
    "a call that holds the GIL": f"lib = ctypes.PyDLL(None); {LOCK_TWICE}",
}


@pytest.mark.parametrize(("call", "status"), [("a call in C", EXIT_GAVE_UP), ("a call that holds the GIL", 1)])
def test_a_process_that_hangs_ends_by_force_and_says_where(call: str, status: int, tmp_path: Path) -> None:
    # given
    process = ChildProcess(
        command=[sys.executable, "-u", "-c", HANGS.format(call=CALLS[call])],
        output=tmp_path / "log",
        environment={"PYTHONPATH": str(ROOT)},
    )
    process.start()
    process.wait_until(lambda: "ready" in process.tail(), timeout_s=60)
    # when
    ended = process.stop(timeout_s=60)
    # then
    assert ended == status
    assert "<module>" in process.tail()


@pytest.fixture
def servers(apache_kafka: ApacheKafka) -> Iterator[Mapping[str, Any]]:
    """A broker and a Redis that a test may pause; after `apache_kafka`, which skips where there is none."""
    with ApacheKafka() as kafka, RedisServer() as redis:
        yield {"kafka": kafka, "redis": redis}


@pytest.mark.parametrize("server", ["kafka", "redis"])
@pytest.mark.parametrize("process_name", COMMANDS)
def test_a_process_ends_after_a_signal_while_a_server_does_not_answer(
    servers: Mapping[str, Any], process_name: str, server: str, tmp_path: Path
) -> None:
    # given a worker that has started
    environment = RunEnvironment(kafka=servers["kafka"], redis=servers["redis"], folder=tmp_path)
    environment.create_topics()
    process = ChildProcess(
        command=[sys.executable, "-m", *COMMANDS[process_name]],
        output=tmp_path / "log",
        environment={**environment.env_variables(), "SHOPSTREAM_WORKER__STOP_S": "15"},
    )
    process.start()
    process.wait_until(lambda: STARTED[process_name] in process.tail(100_000), timeout_s=60)
    servers[server].pause()
    # when
    status = process.stop(timeout_s=90)
    # then
    assert status in (0, EXIT_GAVE_UP), process.tail()
    assert status == 0 or "should end within 15 s" in process.tail()


@pytest.mark.parametrize("process_name", COMMANDS)
@pytest.mark.parametrize("fault", [signal.SIGABRT, signal.SIGSEGV], ids=lambda number: number.name)
def test_a_process_that_a_fault_ends_writes_the_stacks_of_its_threads(
    process_name: str, fault: signal.Signals, tmp_path: Path
) -> None:
    # given a process that waits for its servers
    process = ChildProcess(
        command=[sys.executable, "-m", *COMMANDS[process_name]],
        output=tmp_path / "log",
        environment={**CHECKOUT_VARIABLES, **UNREACHABLE, "SHOPSTREAM_BUNDLES": str(tmp_path)},
    )
    process.start()
    process.wait_until(lambda: handles(process, signal.SIGTERM), timeout_s=60)
    # when
    os.kill(process.pid or 0, fault)
    # then
    wait_until(lambda: not process.is_running)
    assert process.describe_end() == f"ended with {fault.name}"
    assert "Fatal Python error" in process.tail(100_000)
    assert "(most recent call first)" in process.tail(100_000)


def handles(process: ChildProcess, number: signal.Signals) -> bool:
    """Whether a process has a handler of this signal, which it sets once its libraries are loaded."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], base=16) >> (number - 1) & 1)
