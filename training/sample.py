"""The examples that a checkpoint carries, to be learned from again when new ones come."""

from collections.abc import Mapping, Sequence

import numpy as np

from contract.features import FeatureSet
from contract.tasks import Task
from model.checkpoint import About
from training.examples import Examples, from_rows
from training.split import family_of
from training.table import to_parquet


def sample_of(examples: Examples, keep: int, seed: int) -> bytes:
    """At most `keep` examples drawn from these, as Parquet; none: no bytes.

    Of each family as many as of any other, as far as there are: a rare task needs them to be judged, and not forgotten.
    """
    mixed = np.random.default_rng(seed).permutation(len(examples))
    family = family_of(examples)[mixed]
    place = np.zeros(len(mixed), np.int64)
    for one in np.unique(family):
        place[family == one] = np.arange(np.sum(family == one))
    chosen = mixed[np.argsort(place, kind="stable")[:keep]]  # the first of each family, then the second of each, ...
    return to_parquet(examples.take(np.sort(chosen))) if len(chosen) else b""


def meaning(about: About) -> tuple[FeatureSet, Sequence[Task], Mapping[str, tuple[str, ...]]]:
    """What columns and labels mean to a model: its features, tasks and classes."""
    return FeatureSet(about.features), about.tasks, about.statistics.classes


def together(parts: Sequence[Examples], about: About) -> Examples:
    """Examples that mean the same to a model as one set, of each id the newest revision, of equal ones the last."""
    return from_rows([row for part in parts for row in part.to_rows()], *meaning(about))
