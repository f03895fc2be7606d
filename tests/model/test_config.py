import pytest
from msgspec.structs import replace

from contract.errors import BadConfig
from contract.settings.reading import read_settings
from model.config import check_sharing, check_tasks
from tests.model.small import CATEGORY, CLICK, FEATURES, FRAUD, PURCHASE, RELEVANCE, TASKS


def test_the_tasks_and_the_network_of_shop_toml_can_be_built() -> None:
    settings, features = read_settings()

    check_tasks(settings.tasks, features)
    check_sharing(settings.tasks, settings.model)

    assert settings.model.experts == 4


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (replace(FRAUD, groups=("user", "item")), "should read what graph decide is given"),
        (replace(FRAUD, groups=()), "should read some group"),
        (replace(FRAUD, graph="review", groups=("user", "review")), "groups that have features"),
        (replace(CATEGORY, hide=("colour",)), "should hide declared features"),
        (replace(RELEVANCE, hide=("price",)), "shares the item's part"),
        (replace(PURCHASE, through="fraud"), "should read what `fraud` reads"),
        (replace(PURCHASE, through="relevance"), "should both be binary"),
        (replace(PURCHASE, through="view"), "should go through a declared task"),
        (replace(PURCHASE, groups=("user", "item")), "should read what `click` reads"),
    ],
)
def test_an_impossible_task_is_refused_with_the_reason(task: object, sentence: str) -> None:
    tasks = [task if task.name == other.name else other for other in TASKS]  # type: ignore[attr-defined]

    with pytest.raises(BadConfig, match=sentence):
        check_tasks(tasks, FEATURES)  # type: ignore[arg-type]


def test_a_cycle_of_tasks_is_refused() -> None:
    with pytest.raises(BadConfig, match="Found a circle"):
        check_tasks([replace(CLICK, through="purchase"), PURCHASE], FEATURES)


def test_all_mistakes_are_reported_at_once() -> None:
    with pytest.raises(BadConfig) as caught:
        check_tasks([replace(FRAUD, groups=()), replace(CATEGORY, hide=("colour",))], FEATURES)

    assert len(caught.value.errors) == 2


def test_at_least_one_task_is_needed() -> None:
    with pytest.raises(BadConfig, match="At least one task"):
        check_tasks([], FEATURES)
