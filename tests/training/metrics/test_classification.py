import numpy as np
import pytest
from hypothesis import given, settings
from sklearn.metrics import f1_score

from tests.training.metrics.draws import draw_class_rows
from training.metrics.classification import accuracy, macro_f1


@settings(max_examples=40)
@given(draw_class_rows())
def test_metrics_of_classes_compare_labels_with_the_likeliest_class(rows: tuple[np.ndarray, np.ndarray]) -> None:
    y, p = rows

    assert macro_f1(y, p) == pytest.approx(f1_score(y, p.argmax(1), average="macro"))
    assert accuracy(y, p) == pytest.approx((p.argmax(1) == y).mean())
