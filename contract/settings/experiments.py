"""[experiments.NAME]: list settings that a share of users gets instead of those of [lists]."""

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import Field

from contract.settings.section import NonNegative, Positive, Section, Share
from contract.settings.worker import ListSettings

EXPERIMENT_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
EXPERIMENTS_MAX: Final = 5  # each combination of variants ranks its lists in runs of its own


class ListOverrides(Section):
    """The fields of [lists] that can differ by user; what is left out is as for all users."""

    candidates: Annotated[int, Field(gt=0, le=1_000)] | None = None
    length: Positive | None = None
    purchase_value: Annotated[float, Field(ge=0)] | None = None
    explore: Annotated[float, Field(ge=0, le=0.5)] | None = None
    category_max: NonNegative | None = None
    seller_max: NonNegative | None = None

    def values(self) -> dict[str, Any]:
        """The fields that are given."""
        return self.model_dump(exclude_none=True)


class ExperimentSettings(Section):
    """The share of users who get the variant, and its list settings."""

    share: Share = 0.5
    lists: ListOverrides = ListOverrides()

    def override(self, lists: ListSettings) -> ListSettings:
        """The settings of the variant's lists."""
        return lists.model_copy(update=self.lists.values())


def find_experiment_mistakes(experiments: Mapping[str, ExperimentSettings], lists: ListSettings) -> Iterator[str]:
    """Names that are none, variants that change nothing, and fields that two experiments change."""
    if len(experiments) > EXPERIMENTS_MAX:
        yield f"`experiments` should be at most {EXPERIMENTS_MAX} at a time. Found {len(experiments)}."
    owners = dict[str, str]()
    for name, experiment in experiments.items():
        if not EXPERIMENT_NAME.fullmatch(name):
            yield (
                f"`experiments.{name}` should have a name of at most 64 lower-case letters, digits, `-` and `_`. "
                "Found another."
            )
        values = experiment.lists.values()
        if not values:
            yield f"`experiments.{name}.lists` should change a setting of `lists`. Found none."
        for field in values:
            if field in owners:
                yield (
                    f"`experiments.{name}.lists.{field}` should be changed by one experiment. "
                    f"Found it in `experiments.{owners[field]}` too."
                )
            owners.setdefault(field, name)
    yield from find_length_mistakes(experiments, lists)


def find_length_mistakes(experiments: Mapping[str, ExperimentSettings], lists: ListSettings) -> Iterator[str]:
    """Lists that some users would get longer than their candidates: of any combination of variants."""
    lengths = [lists.length, *(e.lists.length for e in experiments.values() if e.lists.length)]
    candidates = [lists.candidates, *(e.lists.candidates for e in experiments.values() if e.lists.candidates)]
    if lists.length <= lists.candidates and max(lengths) > min(candidates):
        yield (
            "A list should be no longer than its candidates in every combination of `experiments`. "
            f"Found {max(lengths)} items of {min(candidates)} candidates."
        )
