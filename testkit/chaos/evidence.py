"""What a round that fails leaves behind, so that a loss can be found afterwards in the records themselves.

`lagging.txt` has every sentence, `produced.jsonl` where Kafka holds each event, `kafka/` the segments of all topics for
Kafka's own `DumpLogSegments`, which shows producers, transactions and markers, and `redis.rdb` the state.
"""

import json
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from contract.errors import Unavailable
from testkit.chaos.scene import Scene

SEGMENTS: Final = ("*/*.log", "*/*.txnindex")  # the other indexes are large, and can be made again


def keep_evidence(scene: Scene, sentences: Iterable[str]) -> Path:
    """Write all files into the environment's folder, and return the new folder in it."""
    folder = scene.environment.folder / "evidence"
    folder.mkdir(exist_ok=True)
    (folder / "lagging.txt").write_text("".join(f"{sentence}\n" for sentence in sentences))
    write_produced(scene, folder / "produced.jsonl")
    copy_segments(scene.kafka.log_folder, folder / "kafka")
    try:
        (folder / "redis.rdb").write_bytes(scene.environment.redis.save_snapshot())
    except Unavailable as error:
        scene.report(f"the state is not kept: {error}")
    return folder


def write_produced(scene: Scene, path: Path) -> None:
    """One line for each event that Kafka has taken, with its topic, partition and offset."""
    with path.open("w") as file:
        for producer in scene.traffic.producers.values():
            for record, position in producer.acknowledged:
                line = {"kind": record.kind, "id": record.event_id, "reason": record.reason, **position._asdict()}
                file.write(f"{json.dumps(line)}\n")


def copy_segments(source: Path, target: Path) -> None:
    for pattern in SEGMENTS:
        for segment in source.glob(pattern):
            copy = target / segment.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # the broker has deleted it since
                shutil.copyfile(segment, copy)
