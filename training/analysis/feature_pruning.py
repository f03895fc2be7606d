"""Drops features that say nothing from a file of features: always missing, constant, or equal to another one.

The text of the file stays as it is otherwise, comments included. Features that rules, tasks or kept ratios name stay,
and so does the last feature of a group, which tasks read.
"""

import re
import tomllib
from collections.abc import Collection, Sequence
from typing import Final

from contract.features.declaration import Feature, FeatureSet
from contract.settings.reading import Settings
from training.analysis.data_profile import ColumnSummary

TABLE: Final = re.compile(r"(?m)^(?=\[\[features\]\])")


def says_nothing(column: ColumnSummary) -> bool:
    """Whether no row of the data differs from another by this feature, or by this one beyond another."""
    if not column.rows:
        return False  # the data have no such event: they do not show what it says
    return column.missing == 1 or (column.distinct == 1 and column.missing == 0) or column.same_as is not None


def select_features(features: FeatureSet, columns: Sequence[ColumnSummary], settings: Settings) -> list[str]:
    """The names of the features to drop, in their order."""
    needed = {rule.feature for rule in settings.rules} | {name for task in settings.tasks for name in task.hide}
    droppable = {column.name for column in columns if says_nothing(column)} - needed
    for feature in reversed(features.features):  # a ratio comes after its operands
        if feature.name not in droppable:
            droppable -= set(list_operands(feature))
    for group in dict.fromkeys(feature.group for feature in features.features):
        members = [feature.name for feature in features.features if feature.group == group]
        if droppable.issuperset(members):
            droppable.discard(members[0])
    return [feature.name for feature in features.features if feature.name in droppable]


def list_operands(feature: Feature) -> list[str]:
    """The two features of a ratio; none for another feature."""
    is_ratio = feature.source.startswith("ratio ")
    return feature.source.removeprefix("ratio ").split(" / ") if is_ratio else []


def drop_tables(text: str, names: Collection[str]) -> str:
    """The text of a features file without the tables of these features; comments between tables stay."""
    head, *tables = TABLE.split(text)
    kept = [table if read_name(table) not in names else keep_comments(table) for table in tables]
    return head + "".join(kept)


def read_name(table: str) -> str:
    return str(tomllib.loads(table)["features"][0]["name"])


def keep_comments(table: str) -> str:
    """The comments after a table, which are about the next one."""
    return "".join(line for line in table.splitlines(keepends=True) if line.startswith("#"))
