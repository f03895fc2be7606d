import pytest

from tests.model.small import CLICK, FRAUD
from training.report.console import format_number, print_evaluation


@pytest.mark.parametrize(
    ("value", "text"), [(0.123456, "0.1235"), (12345.0, "1.234e+04"), (None, "–"), (float("nan"), "–")]
)
def test_numbers_have_four_digits_and_undefined_ones_a_dash(value: float | None, text: str) -> None:
    assert format_number(value) == text


def test_an_evaluation_is_a_table_with_a_dash_for_missing_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation([CLICK, FRAUD], {"click": {"auc": 0.75}, "fraud": {"average_precision": 0.5}}, "Title")

    table = capsys.readouterr().err
    assert all(word in table for word in ("Title", "click", "fraud", "0.75", "0.5", "–"))


def test_an_evaluation_without_tasks_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    print_evaluation([CLICK], {}, "Title")

    assert capsys.readouterr().err == ""
