"""Lists of users in experiments: each user's with the settings of their arms, which the list and its row carry.

Only used while there is an experiment: without one the worker asks `ListBuilder` itself.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from contract.experiment import VARIANT, Arm, assign_arm
from contract.profiles.store import FoldedBatch
from contract.settings.experiments import ExperimentSettings
from contract.settings.worker import ListSettings
from worker.recommend.list_builder import ListBuilder, ListRequest
from worker.records.answers import Answer
from worker.retrieval.histories import BatchHistories

Arms = tuple[Arm, ...]  # one of each experiment, in their order
BuildBuilder = Callable[[ListSettings], ListBuilder]


class ListVariants:
    """Builds lists like `ListBuilder`, with a builder for each combination of arms that a user has.

    Assignment is by the id that owns the list. `trial_arm`: the arm of all users of these models, by the version of the
    bundle on trial.
    """

    def __init__(
        self,
        *,
        experiments: Mapping[str, ExperimentSettings],
        lists: ListSettings,
        trial_arm: Mapping[str, Arm],
        build: BuildBuilder,
    ) -> None:
        self._experiments: Final = experiments
        self._lists, self._trial_arm, self._build = lists, trial_arm, build
        self._builders = dict[Arms, ListBuilder]()

    def build(
        self, requests: Sequence[ListRequest], memory: FoldedBatch, now_ms: int, histories: BatchHistories | None = None
    ) -> list[Answer]:
        """A list for each request for which there is any candidate, those of one combination after the other."""
        by_arms = defaultdict[Arms, list[ListRequest]](list)
        for request in requests:
            by_arms[self._assign(request.event.user_id)].append(request)
        return [
            mark_answer(answer, self._name(arms))
            for arms, group in by_arms.items()
            for answer in self._find_builder(arms).build(group, memory, now_ms, histories)
        ]

    def _assign(self, user_id: str) -> Arms:
        return tuple(assign_arm(name, experiment.share, user_id) for name, experiment in self._experiments.items())

    def _name(self, arms: Arms) -> dict[str, str]:
        return {**self._trial_arm, **dict(zip(self._experiments, arms, strict=True))}

    def _find_builder(self, arms: Arms) -> ListBuilder:
        if arms not in self._builders:
            lists = self._lists
            for experiment, arm in zip(self._experiments.values(), arms, strict=True):
                if arm == VARIANT:
                    lists = experiment.override(lists)
            self._builders[arms] = self._build(lists)
        return self._builders[arms]


def mark_answer(answer: Answer, experiments: dict[str, str]) -> Answer:
    """The list and its row with the arms of the user."""
    return answer.replace(
        scored=replace(answer.scored, experiments=experiments),
        message=replace(answer.message, experiments=experiments),
    )
