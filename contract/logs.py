"""Log lines of every process: as text for a terminal, or as one JSON object per line for a log collector.

A JSON line names the process, its lane and its instance; `topic`, `partition` and `offset` are fields of their own
where the caller passes them as `extra`. Log lines never name a person.
"""

import logging
import sys
from typing import Final, TextIO

from pythonjsonlogger.json import JsonFormatter

from contract.settings.worker import LogSettings

TEXT_FORMAT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"
JSON_FORMAT: Final = "%(levelname)s %(name)s %(message)s"  # the fields; their order in the line


def configure_logging(
    settings: LogSettings, *, process: str, lane: str | None = None, instance: str | None = None
) -> None:
    """Write the log to stderr from now on; no effect where the root logger has a handler already."""
    handler = create_handler(settings, sys.stderr, process=process, lane=lane, instance=instance)
    logging.basicConfig(level=settings.level.upper(), handlers=[handler])


def create_handler(
    settings: LogSettings, stream: TextIO, *, process: str, lane: str | None = None, instance: str | None = None
) -> logging.Handler:
    handler = logging.StreamHandler(stream)
    if settings.format == "text":
        handler.setFormatter(logging.Formatter(TEXT_FORMAT))
        return handler
    origin = {"process": process, "lane": lane, "instance": instance}
    handler.setFormatter(
        JsonFormatter(
            JSON_FORMAT,
            rename_fields={"levelname": "level", "name": "logger"},
            static_fields={name: value for name, value in origin.items() if value is not None},
            timestamp=True,
        )
    )
    return handler
