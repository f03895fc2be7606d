"""A network that predicts worse than its base rate is recognised, and one that does not is not accused."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec import structs

from contract.bundle import current_version
from contract.errors import BadBundle
from contract.tasks import Task
from export.__main__ import main as export_main
from model.base_rate import WORSE_SHARE, WORSE_SHARE_MAX, check_base_rate, explain_if_worse
from model.checkpoint import Checkpoint, make_metadata, write_checkpoint
from model.network import Network
from tests.model.small import CATEGORY, CLASSES, CLICK, DEMAND, FEATURES, FRAUD, make_network
from tests.training.examples import make_rows
from training.__main__ import main as training_main
from training.data.examples import Examples, from_rows
from training.erasure.arguments import OPTION
from training.trainer.base_rate import measure_worse_share, share_of_draws

BY_TASK = {CLICK: "item", FRAUD: "order", CATEGORY: "item", DEMAND: "order"}


def draw_examples(task: Task, rows: int, seed: int) -> Examples:
    """Rows of many users, whose labels say nothing about their features."""
    rng = np.random.default_rng(seed)

    def draw_label() -> float | str:
        if task.kind == "multiclass":
            return str(rng.choice(CLASSES["category"], p=[0.5, 0.3, 0.2]))
        return float(rng.lognormal(0, 1)) if task.kind == "regression" else float(rng.random() < 0.2)

    made = [row for row in make_rows(rows * 6, seed) if set(task.groups) <= set(row.groups)][:rows]
    labelled = [
        structs.replace(row, user_id=f"u{number % 400}", labels={task.name: draw_label()}, known_ms={})
        for number, row in enumerate(made)
    ]
    return from_rows(labelled, FEATURES, (task,), CLASSES if task.kind == "multiclass" else None)


def measure(network: Network, task: Task, seed: int) -> float:
    training, validation = (draw_examples(task, 800, seed + part) for part in (0, 1_000))
    return measure_worse_share(network, training, validation)[task.name][WORSE_SHARE]


@pytest.mark.parametrize("task", BY_TASK, ids=lambda task: task.name)
def test_an_untrained_network_is_worse_than_the_base_rate_of_each_kind_of_task(task: Task) -> None:
    assert measure(make_network(tasks=(task,), seed=1), task, 1) > WORSE_SHARE_MAX


@pytest.mark.parametrize("gain", [0.0, 0.02])
def test_a_model_no_worse_than_its_base_rate_is_seldom_refused(gain: float) -> None:
    rng = np.random.default_rng(3)
    refused = [share_of_draws(rng.normal(-gain, 0.25, 900), np.arange(900)) > WORSE_SHARE_MAX for _ in range(100)]

    assert np.mean(refused) < (0.33 if gain == 0 else 0.03)


def test_few_labels_or_few_users_do_not_judge_a_model() -> None:
    network = make_network(tasks=(CLICK,), seed=1)
    examples = draw_examples(CLICK, 800, 2)
    few_users = examples.take(np.isin(examples.user_id, [f"u{number}" for number in range(29)]))

    assert measure_worse_share(network, examples, examples.take(np.arange(49))) == {}
    assert measure_worse_share(network, examples, few_users) == {}


def test_the_refusal_names_the_task_and_the_way_out() -> None:
    evaluation = {"fraud": {"gain": -0.009, WORSE_SHARE: 0.95}, "click": {"gain": 0.2, WORSE_SHARE: 0.0}}

    with pytest.raises(BadBundle, match=r"`fraud` should be .* 95% .*gain -0\.0090.*`--anyway` exports it"):
        check_base_rate(evaluation)
    assert len(explain_if_worse(evaluation)) == 1


def test_a_model_worse_than_its_base_rate_is_exported_only_anyway(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = make_network()
    evaluation = {"fraud": {"gain": -0.009, WORSE_SHARE: 0.95}}
    metadata = make_metadata(network, parent=None, created_ms=10**12, evaluation=evaluation, positions={})
    write_checkpoint(tmp_path, Checkpoint(metadata=metadata, weights=network.state_dict()))
    export = ["--latest", "--bundles", str(tmp_path)]

    statuses = [export_main(export)]
    current = current_version(tmp_path)
    statuses.append(export_main([*export, "--anyway"]))

    assert statuses == [1, 0]
    assert current is None
    assert current_version(tmp_path) == metadata.version
    assert capsys.readouterr().err.count("`fraud` should be predicted better than by its base rate") == 2


def test_fit_says_that_a_model_is_worse_than_its_base_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    rows, rng = 1_000, np.random.default_rng(seed)
    years = rng.uniform(18, 80, rows)
    is_latest = np.arange(rows) >= 900  # what was learned is wrong from here on
    label = ((years > 50) ^ is_latest).astype(float)
    table = {"years": years, "ts_ms": np.arange(rows) + 1, "label.rich": label}
    pq.write_table(pa.table(table), tmp_path / "table.parquet")
    (tmp_path / "features.toml").write_text(
        '[[features]]\nname = "years"\ngroup = "user"\nkind = "number"\nsource = "column.years"\n'
    )
    (tmp_path / "shop.toml").write_text(
        f'features = "{tmp_path / "features.toml"}"\nbundles = "{tmp_path / "bundles"}"\n'
        '[[tasks]]\nname = "rich"\nkind = "binary"\ngroups = ["user"]\ngraph = "decide"\n'
        "[training]\nbatch = 64\nepochs = 4\n"
    )
    monkeypatch.setenv("SHOPSTREAM_CONFIG", str(tmp_path / "shop.toml"))

    statuses = [training_main(["fit", OPTION, str(tmp_path / "table.parquet")]), export_main(["--latest"])]

    messages = capsys.readouterr().err
    assert statuses == [0, 1]
    assert "refuses this checkpoint without `--anyway`" in messages
    assert messages.count("`rich` should be predicted better than by its base rate") == 2
