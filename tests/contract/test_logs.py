"""Log lines as text and as JSON."""

import io
import json
import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from contract.logs import create_handler
from contract.settings.worker import LogSettings


def write_lines(settings: LogSettings, write: Callable[[logging.Logger], object], **origin: str) -> list[str]:
    """What `write` logs through a handler of these settings."""
    stream, logger = io.StringIO(), logging.Logger("shop.part")
    logger.addHandler(create_handler(settings, stream, process="score worker", **origin))
    write(logger)
    return stream.getvalue().splitlines()


def write_json(write: Callable[[logging.Logger], object], **origin: str) -> dict[str, Any]:
    (line,) = write_lines(LogSettings(format="json"), write, **origin)
    fields: dict[str, Any] = json.loads(line)
    return fields


def test_a_text_line_has_level_logger_and_message() -> None:
    (line,) = write_lines(LogSettings(), lambda logger: logger.warning("Waiting for %s.", "kafka"))

    assert line.endswith("WARNING shop.part: Waiting for kafka.")


def test_a_json_line_names_process_lane_and_instance() -> None:
    # when
    fields = write_json(lambda logger: logger.info("Read %d records.", 7), lane="orders", instance="3")
    # then
    assert fields.pop("timestamp")
    assert fields == {
        "level": "INFO",
        "logger": "shop.part",
        "message": "Read 7 records.",
        "process": "score worker",
        "lane": "orders",
        "instance": "3",
    }


def test_a_process_without_a_lane_has_no_such_field() -> None:
    assert "lane" not in write_json(lambda logger: logger.info("Ready."))


def test_topic_and_partition_of_a_line_are_fields() -> None:
    extra = {"topic": "shop.orders", "partition": 3}

    fields = write_json(lambda logger: logger.warning("Unreadable record.", extra=extra))

    assert (fields["topic"], fields["partition"]) == ("shop.orders", 3)


def test_a_traceback_is_part_of_the_json_line() -> None:
    # given
    def fail(logger: logging.Logger) -> None:
        try:
            raise ZeroDivisionError("no rows")
        except ZeroDivisionError:
            logger.error("Scoring failed.", exc_info=True)

    # then
    assert "ZeroDivisionError: no rows" in write_json(fail)["exc_info"]


@pytest.mark.parametrize(("level", "count"), [("info", 2), ("error", 1)])
def test_a_process_writes_lines_of_its_level_and_above(level: str, count: int) -> None:
    # given
    program = (
        "import logging; from contract.logs import configure_logging\n"
        "from contract.settings.worker import LogSettings\n"
        f"configure_logging(LogSettings(format='json', level='{level}'), process='joiner')\n"
        "log = logging.getLogger('x'); log.debug('a'); log.info('b'); log.error('c')"
    )
    # when
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    # then
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert len(lines) == count
    assert lines[-1]["process"] == "joiner"
