"""A model that was fitted on a history, followed on a topic that holds the same history and what came after."""

from pathlib import Path

import msgspec
import pytest

from contract.messages import Example, to_msgpack
from contract.settings.reading import Settings
from contract.settings.servers import TopicSettings
from model.checkpoint import Checkpoint, make_metadata, write_checkpoint
from tests.conftest import KafkaBroker
from tests.kafka import BlockingProducer, make_settings
from tests.model.small import CLASSES, FEATURES, SHAPE, TASKS
from tests.training.counting_learner import export_without_graphs
from tests.training.examples import PLAN, make_rows, postpone
from training.__main__ import parse_arguments
from training.commands import follow
from training.data.examples import from_rows
from training.data.split import split_by_time
from training.online.learned_labels import LEARNED
from training.online.rejected_updates import STATE_FILE
from training.trainer.fit import fit

HISTORY = make_rows(600, 5)
CONFIG = PLAN.model_copy(update={"margin": 9.0, "jump": 99.0, "epochs": 2})


@pytest.fixture
def settings(broker: KafkaBroker, topic_prefix: str) -> Settings:
    topics = TopicSettings(erasures=f"{topic_prefix}erasures", feedback=f"{topic_prefix}feedback")
    broker.create_topics({topics.erasures: 4, topics.feedback: 4})
    kafka = make_settings(broker, topic_prefix)
    return Settings(tasks=TASKS).model_copy(update={"kafka": kafka, "topics": topics, "training": CONFIG})


def fit_history(bundles: Path) -> None:
    """A bundle of a model that has learned the history."""
    fitted = fit(from_rows(HISTORY, FEATURES, TASKS, CLASSES), SHAPE, CONFIG, lambda epoch: None)
    metadata = make_metadata(
        fitted.network, parent=None, created_ms=10**12, evaluation={}, positions={}, learned=fitted.learned
    )
    checkpoint = Checkpoint(metadata=metadata, weights=fitted.network.state_dict())
    write_checkpoint(bundles, checkpoint)
    export_without_graphs(checkpoint, bundles, {})


def send(settings: Settings, rows: list[Example]) -> None:
    with BlockingProducer(settings.kafka.bootstrap_servers) as producer:
        producer.send(settings.topics.feedback, [(row.user_id, to_msgpack(row)) for row in rows])


def learn_once(settings: Settings, bundles: Path) -> tuple[int, dict[str, int]]:
    """How many examples `training follow --once` has learned, and what it has left out."""
    arguments = parse_arguments(["follow", "--once", "--bundles", str(bundles)])
    assert follow.run(arguments, settings, None) == 0  # type: ignore[arg-type]  # features are not used
    state = msgspec.json.decode((bundles / STATE_FILE).read_bytes())
    return state["examples"], state["left_out"]


def test_what_a_fit_has_learned_of_a_history_is_not_learned_again_from_the_topic(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    monkeypatch.setattr("training.online.publication.export", export_without_graphs)
    fit_history(tmp_path)
    held_out = len(split_by_time(from_rows(HISTORY, FEATURES, TASKS, CLASSES), CONFIG.held_out).validation)
    # when the topic holds the rows of the history
    send(settings, HISTORY)
    examples, left_out = learn_once(settings, tmp_path)
    # then what the fit held out for its evaluation is learned, and nothing else
    assert examples == held_out
    assert left_out[LEARNED] + left_out.get("without a label", 0) == len(HISTORY) - held_out
    # and when rows follow that happened later
    later = postpone(HISTORY[:300], 30)
    send(settings, later)
    examples, left_out = learn_once(settings, tmp_path)
    # then they are learned
    assert LEARNED not in left_out
    assert examples + sum(left_out.values()) == len(later)
