"""Plots of report pages as SVG, without dates and random names, so equal data give equal bytes."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from contract.arrays import Array
from contract.tasks import Task
from training.metrics.calibration import reliability_bins, to_top_class

POINTS_MAX: Final = 400  # of one curve: more are not visible
CONSTRAINED_MAX: Final = 6  # plots with computed margins: for more of them this takes most of the time
CLASSES_MAX: Final = 30  # beyond it a confusion matrix has no class names
PredictionsByMethod = Mapping[str, Array]  # method -> its predictions (N,) or (N, classes)


def plot_curves(task: Task, y: Array, predictions: PredictionsByMethod, classes: Sequence[str]) -> str:
    """The plots of the task's kind, side by side; labels y (N,)."""
    if task.kind == "multiclass":
        return render_svg(
            [
                lambda axes: plot_confusion(axes, y, next(iter(predictions.values())), classes),
                plot_top_class_calibration(y, predictions),
            ]
        )
    if task.kind == "regression":
        return render_svg([lambda axes: plot_observed(axes, y, predictions)])
    return render_svg(
        [
            plot_ranking_curve(roc_points, y, predictions),
            plot_ranking_curve(precision_recall_points, y, predictions),
            lambda axes: plot_calibration(axes, y, predictions),
        ]
    )


def render_svg(plots: Sequence[Callable[[Axes], None]], columns: int = 3, height: float = 3.4) -> str:
    """Plots in rows of `columns`, as one SVG element."""
    columns = min(columns, len(plots))
    rows = -(-len(plots) // columns)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "shopstream", "font.size": 8.5}):
        is_constrained = len(plots) <= CONSTRAINED_MAX
        figure = Figure(figsize=(4.1 * columns, height * rows), layout="constrained" if is_constrained else None)
        if not is_constrained:
            figure.subplots_adjust(left=0.03, right=0.99, bottom=0.4 / rows / height, top=1 - 0.3 / rows / height)
            figure.subplots_adjust(hspace=0.45, wspace=0.2)
        for index, plot in enumerate(plots):
            axes = figure.add_subplot(rows, columns, index + 1)
            axes.spines[["top", "right"]].set_visible(False)
            plot(axes)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    svg = sink.getvalue()
    return svg[svg.index("<svg") :]


def plot_ranking_curve(
    curve: Callable[[Array, Array], tuple[Array, Array, str, str]], y: Array, predictions: PredictionsByMethod
) -> Any:
    """A plot of a curve of the ranking, with a line for each method."""

    def plot(axes: Axes) -> None:
        x_name, y_name = "", ""
        for method, p in predictions.items():
            x, height, x_name, y_name = curve(y > 0.5, p)
            points = np.unique(np.linspace(0, len(x) - 1, POINTS_MAX).astype(int))
            axes.plot(x[points], height[points], label=method, linewidth=1.2)
        axes.set(xlabel=x_name, ylabel=y_name, xlim=(0, 1), ylim=(0, 1.01))
        axes.legend(frameon=False)

    return plot


def roc_points(y: Array, p: Array) -> tuple[Array, Array, str, str]:
    flagged, recall, _ = roc_curve(y, p)
    return flagged, recall, "false positives", "true positives (ROC)"


def precision_recall_points(y: Array, p: Array) -> tuple[Array, Array, str, str]:
    precision, recall, _ = precision_recall_curve(y, p)
    return recall, precision, "recall", "precision (PR)"


def plot_calibration(axes: Axes, y: Array, predictions: PredictionsByMethod) -> None:
    """Observed against predicted in the bins of the calibration error; the diagonal is perfect calibration."""
    highest = 0.0
    for method, p in predictions.items():
        predicted, observed, _ = reliability_bins(y, p)
        axes.plot(predicted, observed, marker="o", markersize=3, linewidth=1, label=method)
        highest = max(highest, float(predicted.max()), float(observed.max()))
    axes.plot([0, highest], [0, highest], color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlabel="predicted", ylabel="observed (calibration)")
    axes.legend(frameon=False)


def plot_top_class_calibration(y: Array, predictions: PredictionsByMethod) -> Callable[[Axes], None]:
    """How often the predicted class was right, against its probability."""

    def plot(axes: Axes) -> None:
        for method, p in predictions.items():
            predicted, observed, _ = reliability_bins(*to_top_class(y, p))
            axes.plot(predicted, observed, marker="o", markersize=3, linewidth=1, label=method)
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
        axes.set(xlabel="predicted, of the top class", ylabel="right (calibration)")
        axes.legend(frameon=False)

    return plot


def plot_confusion(axes: Axes, y: Array, p: Array, classes: Sequence[str]) -> None:
    """Shares of each true class by predicted class."""
    counts = confusion_matrix(y, p.argmax(1), labels=np.arange(p.shape[1]))
    axes.imshow(counts / counts.sum(1, keepdims=True).clip(min=1), cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= CLASSES_MAX:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true")


def plot_observed(axes: Axes, y: Array, predictions: PredictionsByMethod) -> None:
    for method, p in predictions.items():
        points = np.unique(np.linspace(0, len(p) - 1, POINTS_MAX).astype(int))
        axes.scatter(p[points], y[points], s=4, alpha=0.5, label=method)
    axes.set(xlabel="predicted", ylabel="observed")
    axes.legend(frameon=False)
