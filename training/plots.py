"""Curves as SVG, for the pages of reports: no date and no random name in them, so equal data give equal bytes."""

import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix, precision_recall_curve, roc_curve

from contract.tasks import Task
from training.evaluation import choices
from training.metrics import Array, reliability

POINTS_MAX: Final = 400  # of one curve: more cannot be seen
FITTED_MAX: Final = 6  # plots whose margins are computed: that of many takes longer than all else
CLASSES_MAX: Final = 30  # named at the axes of a confusion matrix
Said = Mapping[str, Array]  # method -> its predictions (N,) or (N, classes)


def curves(task: Task, y: Array, said: Said, classes: Sequence[str]) -> str:
    """The curves that belong to the task's kind, side by side; labels y (N,)."""
    if task.kind == "multiclass":
        return drawn([lambda axes: confusion(axes, y, next(iter(said.values())), classes), calibrated_choice(y, said)])
    if task.kind == "regression":
        return drawn([lambda axes: observed_by_predicted(axes, y, said)])
    return drawn([ranked(roc, y, said), ranked(precision_by_recall, y, said), lambda axes: calibration(axes, y, said)])


def drawn(plots: Sequence[Callable[[Axes], None]], columns: int = 3, height: float = 3.4) -> str:
    """Plots in rows of `columns`, as one SVG element."""
    columns = min(columns, len(plots))
    rows = -(-len(plots) // columns)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "shopstream", "font.size": 8.5}):
        fitted = len(plots) <= FITTED_MAX
        figure = Figure(figsize=(4.1 * columns, height * rows), layout="constrained" if fitted else None)
        if not fitted:
            figure.subplots_adjust(left=0.03, right=0.99, bottom=0.4 / rows / height, top=1 - 0.3 / rows / height)
            figure.subplots_adjust(hspace=0.45, wspace=0.2)
        for at, plot in enumerate(plots):
            axes = figure.add_subplot(rows, columns, at + 1)
            axes.spines[["top", "right"]].set_visible(False)
            plot(axes)
        sink = io.StringIO()
        figure.savefig(sink, format="svg", metadata={"Date": None, "Creator": None})
    svg = sink.getvalue()
    return svg[svg.index("<svg") :]


def ranked(curve: Callable[[Array, Array], tuple[Array, Array, str, str]], y: Array, said: Said) -> Any:
    """A plot of a curve that rests on the order of predictions, a line for each method."""

    def plot(axes: Axes) -> None:
        names = ("", "")
        for method, p in said.items():
            x, height, *names = curve(y > 0.5, p)  # type: ignore[assignment]
            at = np.unique(np.linspace(0, len(x) - 1, POINTS_MAX).astype(int))
            axes.plot(x[at], height[at], label=method, linewidth=1.2)
        axes.set(xlabel=names[0], ylabel=names[1], xlim=(0, 1), ylim=(0, 1.01))
        axes.legend(frameon=False)

    return plot


def roc(y: Array, p: Array) -> tuple[Array, Array, str, str]:
    flagged, found, _ = roc_curve(y, p)
    return flagged, found, "false positives", "true positives (ROC)"


def precision_by_recall(y: Array, p: Array) -> tuple[Array, Array, str, str]:
    precision, recall, _ = precision_recall_curve(y, p)
    return recall, precision, "recall", "precision (PR)"


def calibration(axes: Axes, y: Array, said: Said) -> None:
    """Observed by predicted in the bins of the calibration error; the diagonal says what happens."""
    most = 0.0
    for method, p in said.items():
        predicted, observed, _ = reliability(y, p)
        axes.plot(predicted, observed, marker="o", markersize=3, linewidth=1, label=method)
        most = max(most, float(predicted.max()), float(observed.max()))
    axes.plot([0, most], [0, most], color="0.6", linewidth=0.8, linestyle=":")
    axes.set(xlabel="predicted", ylabel="observed (calibration)")
    axes.legend(frameon=False)


def calibrated_choice(y: Array, said: Said) -> Callable[[Axes], None]:
    """How sure of the chosen class, and how often it was right."""

    def plot(axes: Axes) -> None:
        for method, p in said.items():
            predicted, observed, _ = reliability(*choices(y, p))
            axes.plot(predicted, observed, marker="o", markersize=3, linewidth=1, label=method)
        axes.plot([0, 1], [0, 1], color="0.6", linewidth=0.8, linestyle=":")
        axes.set(xlabel="predicted, of the chosen class", ylabel="right (calibration)")
        axes.legend(frameon=False)

    return plot


def confusion(axes: Axes, y: Array, p: Array, classes: Sequence[str]) -> None:
    """Shares of each true class by what was chosen."""
    counts = confusion_matrix(y, p.argmax(1), labels=np.arange(p.shape[1]))
    axes.imshow(counts / counts.sum(1, keepdims=True).clip(min=1), cmap="Blues", vmin=0, vmax=1)
    if len(classes) <= CLASSES_MAX:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="chosen", ylabel="true")


def observed_by_predicted(axes: Axes, y: Array, said: Said) -> None:
    for method, p in said.items():
        at = np.unique(np.linspace(0, len(p) - 1, POINTS_MAX).astype(int))
        axes.scatter(p[at], y[at], s=4, alpha=0.5, label=method)
    axes.set(xlabel="predicted", ylabel="observed")
    axes.legend(frameon=False)
