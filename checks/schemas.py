"""`python -m checks.schemas`: writes docs/schemas/ from the code, JSON Schemas of all records and an AsyncAPI document.

A test compares the files with the code.
"""

import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from contract.events.model import KINDS
from contract.messages import DeadLetter, Decision, ErasureConfirmation, Example, Ranking, ScoredRow
from contract.settings.servers import TopicSettings

FOLDER: Final = Path("docs/schemas")
ASYNCAPI_VERSION: Final = "3.0.0"
WRITTEN: Final[Mapping[str, type[msgspec.Struct]]] = {
    "decisions": Decision,
    "rankings": Ranking,
    "scored": ScoredRow,
    "feedback": Example,
    "erased": ErasureConfirmation,
}
MESSAGEPACK: Final = ("scored", "feedback")
PYTHONS_END: Final = json.dumps(r"\Z").strip('"')  # which the regular expressions of JSON Schema write as $
OWN: Final = ("judgements",)  # events that shopstream writes itself


def file_name(struct: type[msgspec.Struct]) -> str:
    """`erasure-confirmation.json` for `ErasureConfirmation`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", struct.__name__).lower() + ".json"


def build_schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of a struct with the draft that it follows."""
    text = json.dumps(msgspec.json.schema(struct)).replace(PYTHONS_END, "$")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **json.loads(text)}


def build_asyncapi() -> dict[str, Any]:
    """The topics with their records: what a shop sends, and what it receives."""
    topics = TopicSettings()
    records = {**KINDS, **WRITTEN}
    channels: dict[str, dict[str, Any]] = {
        kind: {
            "address": topics.topic_name(kind),
            "messages": {struct.__name__: {"$ref": f"#/components/messages/{struct.__name__}"}},
        }
        for kind, struct in records.items()
    }
    messages: dict[str, dict[str, Any]] = {
        struct.__name__: {
            "contentType": "application/msgpack" if kind in MESSAGEPACK else "application/json",
            "payload": {"$ref": f"./{file_name(struct)}"},
        }
        for kind, struct in records.items()
    }
    channels["dead_letters"] = {
        "address": topics.dead_letters,
        "messages": {"DeadLetter": {"$ref": "#/components/messages/DeadLetter"}},
    }
    messages["DeadLetter"] = {
        "description": "The original record, with the reason in a header.",
        "headers": {
            "type": "object",
            "properties": {"shopstream-dead-letter": {"$ref": f"./{file_name(DeadLetter)}"}},
        },
    }
    return {
        "asyncapi": ASYNCAPI_VERSION,
        "info": {"title": "shopstream", "version": "0.1.0", "description": "Events and answers; see docs/events.md."},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": {kind: build_operation(kind) for kind in channels},
        "components": {"messages": messages},
    }


def build_operation(kind: str) -> dict[str, Any]:
    """What shopstream does with a topic."""
    action = "receive" if kind in KINDS and kind not in OWN else "send"
    return {"action": action, "channel": {"$ref": f"#/channels/{kind}"}}


def build_files() -> dict[str, str]:
    """The text of each file, by its name."""
    structs: list[type[msgspec.Struct]] = [*KINDS.values(), *WRITTEN.values(), DeadLetter]
    files = {file_name(struct): json.dumps(build_schema(struct), indent=2) + "\n" for struct in structs}
    files["asyncapi.yaml"] = yaml.safe_dump(build_asyncapi(), sort_keys=False, allow_unicode=True)
    return files


def main(arguments: Sequence[str]) -> int:
    """Write the files into the folder in the first argument, by default `docs/schemas`."""
    folder = Path(arguments[0]) if arguments else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in build_files().items():
        (folder / name).write_text(text, encoding="utf8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
