"""Lines of librdkafka go through the process's logger, not to stderr."""

import subprocess
import sys

import pytest

CLIENTS = {
    "log reader": (
        "from transport import log_reader\n"
        "log_reader.IDLE_TIMEOUT_S = 1\n"
        "from transport.records import TopicPartition\n"
        "list(log_reader.LogReader(kafka=kafka).read({TopicPartition('orders', 0): 1}))"
    ),
    "group consumer": (
        "from worker.group.consumer import GroupConsumer\n"
        "consumer = GroupConsumer(kafka=kafka, group='g', instance='0')\n"
        "consumer.subscribe(['orders'], None)\n"
        "for _ in range(5): consumer.poll(10, 50)"
    ),
    "producer": (
        "import threading\n"
        "from worker.kafka import producer_clients\n"
        "producer_clients.TIMEOUT_S = 1\n"
        "from worker.kafka.outgoing import OutgoingRecord\n"
        "from worker.kafka.producer import TransactionalProducer\n"
        "from worker.ops.retry import Retry\n"
        "from worker.ops.steps import StepMarker\n"
        "made = TransactionalProducer(\n"
        "    kafka=kafka, transactional_id=None, retry=Retry(threading.Event()), step_marker=StepMarker())\n"
        "made.send([OutgoingRecord('orders', b'k', b'v')])\n"
        "made._flush([])"
    ),
    "admin client": (
        "from worker.kafka import admin\n"
        "client = admin.KafkaAdmin(kafka=kafka)\n"
        "import time; time.sleep(0.5)\n"
        "client.filter_committed('orders', [])\n"
        "client.fetch_topic_ids([])\n"
        "client._connection.client"
    ),
}
PROGRAM = """
import logging
logging.basicConfig(format="logged %(name)s", level=logging.INFO)
from contract.settings.servers import KafkaSettings
kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
try:
    exec({client!r})
except Exception as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("client", CLIENTS)
def test_no_client_writes_past_the_logger(client: str) -> None:
    # when a client cannot reach its broker
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(client=CLIENTS[client])], capture_output=True, text=True, timeout=60
    )
    # then
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert "logged librdkafka" in lines
    assert [line for line in lines if not line.startswith("logged ")] == []
