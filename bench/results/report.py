"""What a bench prints: progress and missed aims on stderr, its result on stdout, as JSON in the last line if asked."""

import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec


def print_progress(message: object) -> None:
    """One line on stderr, with the time of day."""
    print(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr, flush=True)


def print_missed(aims: Iterable[str]) -> bool:
    """Print each missed aim; returns whether there was one."""
    missed = list(aims)
    for aim in missed:
        print_progress(f"Missed: {aim}")
    return bool(missed)


def print_missing_data(path: Path) -> None:
    print(f"The data should be at {path}: set SHOPSTREAM_DATA or --data. Found none.", file=sys.stderr)


def print_json(result: msgspec.Struct | Mapping[str, Any]) -> None:
    """One line of JSON on stdout."""
    print(msgspec.json.encode(result).decode(), flush=True)


def print_result(result: msgspec.Struct | Mapping[str, Any], *, as_json: bool) -> None:
    """As one line of JSON, or one line for each field."""
    if as_json:
        print_json(result)
        return
    fields = result if isinstance(result, Mapping) else msgspec.structs.asdict(result)
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        print(f"{name:{width}}  {value}")
