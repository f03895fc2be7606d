"""The published schemas: made from the code, valid, and of the records that the code writes and reads."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from checks.schemas import FOLDER, build_files
from contract.events.model import KINDS
from contract.events.reading import decode
from contract.settings.servers import TopicSettings
from tests.worker.events import make_click, make_order

FILES = build_files()


@pytest.mark.parametrize("name", FILES)
def test_a_published_schema_is_that_of_the_code(name: str) -> None:
    assert (FOLDER / name).read_text() == FILES[name], "python -m checks.schemas writes it again"


def test_no_other_schema_is_published() -> None:
    assert {path.name for path in FOLDER.iterdir()} == FILES.keys()


@pytest.mark.parametrize(("kind", "event"), [("orders", make_order("o1")), ("clicks", make_click("c1"))])
def test_an_event_that_is_read_matches_its_schema_and_one_without_a_user_does_not(kind: str, event: Any) -> None:
    # given
    value = event if isinstance(event, bytes) else msgspec.json.encode(event)
    schema = json.loads(FILES[f"{KINDS[kind].__name__.lower()}.json"])
    document = msgspec.to_builtins(decode(kind, value), str_keys=True)
    document = json.loads(json.dumps(document))
    # then
    jsonschema.validate(document, schema)
    del document["user_id"]
    with pytest.raises(jsonschema.ValidationError, match="user_id"):
        jsonschema.validate(document, schema)


def test_the_document_of_all_topics_refers_to_schemas_that_exist() -> None:
    document = yaml.safe_load(FILES["asyncapi.yaml"])
    topics = TopicSettings()
    assert {kind: channel["address"] for kind, channel in document["channels"].items()} == {
        kind: name for kind, name in topics.names_by_kind().items() if kind != "classifications"
    }
    for message in document["components"]["messages"].values():
        if "payload" in message:
            assert Path(message["payload"]["$ref"]).name in FILES
    assert document["operations"]["orders"]["action"] == "receive"
    assert document["operations"]["decisions"]["action"] == "send"
