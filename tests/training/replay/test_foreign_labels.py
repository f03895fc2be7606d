"""Events whose label names another user are no negatives: the label is joined to nothing, but it was not silence."""

import json
from pathlib import Path

import numpy as np
import pytest

from contract.features.declaration import FeatureSet
from contract.history.format import HistoricEvent
from contract.joining.output import ForeignLabel
from contract.tasks import Task
from contract.units import DAY_MS
from tests.training.history.test_normalisation import make_fields, write_lines
from tests.training.replay.test_replay import FEATURES, FEEDBACK, SETTINGS, label_event, make_late_event, order_event
from tests.training.replay.test_unsettled_labels import make_row
from training.__main__ import main
from training.data.examples import from_rows
from training.erasure.arguments import OPTION
from training.replay.foreign_labels import describe_foreign, drop_foreign_negatives
from training.replay.replay import Replay

START_MS = 1_700_000_000_000
WINDOW = 30  # days, of the labels of orders
FRAUD = Task(name="fraud", kind="binary", groups=("user",), graph="decide")
CLICK = Task(name="click", kind="binary", groups=("user",), graph="recommend")


def replay_labels(*history: HistoricEvent) -> tuple[dict[str, float], list[ForeignLabel]]:
    """The labels of fraud by order, and the labels of another user."""
    replay = Replay(features=FEATURES, tasks=SETTINGS.tasks, feedback=FEEDBACK)
    examples = from_rows(replay.run(history), FEATURES, SETTINGS.tasks)
    window_ms = FEEDBACK.fraud_window_s * 1000
    kept = drop_foreign_negatives(examples, replay.foreign_labels, SETTINGS.tasks, window_ms)
    labels = zip(kept.example_id.tolist(), kept.labels["fraud"].tolist(), strict=True)
    return dict(labels), replay.foreign_labels


def test_an_order_with_a_label_of_another_user_is_no_example_of_an_honest_one() -> None:
    labels, foreign = replay_labels(
        order_event("o1", START_MS, "a", user_id="guest:anon-5"),
        order_event("o2", START_MS, "a", user_id="u"),
        label_event("l0", START_MS - DAY_MS, "o2", 1, user_id="U"),  # earlier than its order
        label_event("l1", START_MS + DAY_MS, "o1", 1, user_id="anon-5"),
        order_event("o3", START_MS + DAY_MS, "a", user_id="u"),
        make_late_event(),
    )

    assert labels == {"o3": 0}
    assert sorted(foreign) == [ForeignLabel("l0", "fraud", "o2"), ForeignLabel("l1", "fraud", "o1")]


def test_a_label_of_the_orders_own_user_counts_whatever_others_say() -> None:
    labels, foreign = replay_labels(
        order_event("o1", START_MS, "a", user_id="u"),
        order_event("o2", START_MS, "a", user_id="u"),
        label_event("l1", START_MS + DAY_MS, "o1", 1, user_id="v"),
        label_event("l2", START_MS + DAY_MS, "o1", 0, user_id="u"),
        label_event("l3", START_MS + 2 * DAY_MS, "o2", 1, user_id="u"),
        label_event("l4", START_MS + 2 * DAY_MS, "o2", 0, user_id="v"),
        make_late_event(),
    )

    assert labels == {"o1": 0, "o2": 1}
    assert len(foreign) == 2


def test_labels_of_other_tasks_on_such_an_event_stay() -> None:
    rows = [
        make_row(1, 0, {"fraud": 0.0}, WINDOW),
        make_row(2, 0, {"fraud": 0.0, "click": 0.0}, WINDOW),
        make_row(3, 0, {"fraud": 0.0}, WINDOW),
    ]
    examples = from_rows(rows, FeatureSet([]), (FRAUD, CLICK))
    foreign = [ForeignLabel("l1", "fraud", "e1"), ForeignLabel("l2", "fraud", "e2"), ForeignLabel("l3", "click", "e3")]

    kept = drop_foreign_negatives(examples, foreign, (FRAUD, CLICK), WINDOW * DAY_MS)

    assert kept.example_id.tolist() == ["e2", "e3"]
    assert np.isnan(kept.labels["fraud"][0])
    assert (kept.known_ms["fraud"][0], kept.labels["click"][0], kept.labels["fraud"][1]) == (0, 0, 0)
    assert drop_foreign_negatives(examples, [], (FRAUD, CLICK), WINDOW * DAY_MS) is examples


def test_the_first_labels_of_each_task_are_named() -> None:
    foreign = [ForeignLabel(f"l{n}", "fraud", f"o{n}") for n in range(5)] + [ForeignLabel("l9", "brushing", "o9")]

    first, second = describe_foreign(foreign)

    assert first.startswith("1 labels of `brushing` should have the user of the event that they judge.")
    assert "Found another one: l0 of o0, l1 of o1, l2 of o2." in second
    assert list(describe_foreign([])) == []


def test_the_command_counts_them_also_where_nothing_is_left_to_learn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = make_fields("labels", "l1", START_MS + DAY_MS, user_id="U1")
    foreign = [("orders", make_fields("orders", "o1", START_MS)), ("labels", label)]
    late = [("orders", make_fields("orders", f"o{n}", START_MS + n * WINDOW * DAY_MS)) for n in (2, 4)]
    path, out = tmp_path / "a.jsonl", tmp_path / "examples.parquet"

    write_lines(path, *foreign, late[0])
    assert main(["replay", OPTION, str(path), "--out", str(out)]) == 1
    assert "Found another one: l1 of o1." in capsys.readouterr().err

    write_lines(path, *foreign, *late)
    assert main(["replay", OPTION, str(path), "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["examples"], printed["foreign"], printed["labels"]["fraud"]) == (1, {"fraud": 1}, 1)
