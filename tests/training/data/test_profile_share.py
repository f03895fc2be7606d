"""The share of rows whose user had a history is measured on the features of user profiles."""

import numpy as np
import pyarrow as pa
import pytest

from contract.features.declaration import Feature, FeatureSet
from contract.tasks import Task
from tests.model.small import TASKS
from tests.training.examples import make_examples
from training.data.profile_share import measure_profile_share
from training.data.tabular import examples_from_table


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_rows_of_users_without_any_count_or_item_have_no_history(share: float) -> None:
    examples = make_examples(400, 3, TASKS)
    block = examples.blocks["user"]
    rows = np.flatnonzero(~np.isnan(block.numbers).all(1) | (block.ids != 0).any(1))
    block.numbers[rows], block.ids[rows] = 0.0, 0
    block.numbers[rows[: round(share * len(rows))], 0] = 1.0

    assert measure_profile_share(examples) == pytest.approx(share, abs=0.01)


def test_a_table_without_profiles_expects_none() -> None:
    features = FeatureSet([Feature("years", "user", "number", "column.years")])
    table = pa.table({"years": [1.0, 2.0], "label.good": [0.0, 1.0]})

    assert (
        measure_profile_share(examples_from_table(table, features, (Task("good", "binary", ("user",), "decide"),)))
        is None
    )
