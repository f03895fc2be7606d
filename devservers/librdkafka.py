"""Options of Kafka clients whose broker is stopped on purpose: librdkafka should then not write to stderr."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

SILENT: Final[Mapping[str, Any]] = MappingProxyType({"log_level": 0, "error_cb": lambda error: None})
