"""The whole network, from raw features to probabilities; it reads from top to bottom.

    a group's numbers and ids -> its part of the first layer    (N, hidden + factors)   one matrix for each group
    the parts of a task's groups, summed -> x                   (N, hidden + factors)   so an item's part is made once
    x -> shared experts, mixed by a gate of each task           (N, expert)             MMoE, Ma et al. 2018
    one tower for each task -> a logit                          (N,), or (N, classes)
    a calibrator for each task -> a logit whose probability is what happens             see model/calibration.py
    a task that goes through another: P(purchase) = P(click) * P(purchase given click)  ESMM, Ma et al. 2018

The factors hold what two groups say together (a query and a title, a user and an item): the sum over pairs of the
products of their parts, from sums alone as in factorization machines (Rendle 2010), so it splits by group as well. One
expert is the shared-bottom network. Nothing that a row may hold makes it fail: NaN, infinities, absent, unknown and
negative ids all have learned places. Training, the losses and the export to ONNX are elsewhere.
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contract.features import Feature, FeatureSet
from contract.tasks import Task
from model.answers import probabilities
from model.calibration import Calibrator
from model.declared import Shape
from model.statistics import NumberStatistics, Statistics, table_of

Inputs: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]  # group -> numbers (N, n) float32, ids (N, m) int64
FIRST_DEVIATION: Final = 0.1  # of embeddings
STANDARD_MAX: Final = 8.0  # a standardised number says no more beyond this many deviations


class View(NamedTuple):
    """What some tasks of one graph look at alike: the groups they read, without the features they must not see."""

    graph: str
    groups: tuple[str, ...]
    hide: frozenset[str]
    tasks: tuple[Task, ...]


def views(tasks: Sequence[Task]) -> tuple[View, ...]:
    """The distinct views of the tasks, in the order of their first task."""
    shared: dict[tuple[str, frozenset[str], frozenset[str]], list[Task]] = {}
    for task in tasks:
        shared.setdefault((task.graph, frozenset(task.groups), frozenset(task.hide)), []).append(task)
    return tuple(View(graph, of[0].groups, hide, tuple(of)) for (graph, _, hide), of in shared.items())


class Network(nn.Module):
    """All tasks over shared layers, at first with what `statistics` tells of the training part."""

    def __init__(self, *, features: FeatureSet, tasks: Sequence[Task], shape: Shape, statistics: Statistics) -> None:
        super().__init__()
        self.features, self.tasks, self.shape, self.statistics = features, tuple(tasks), shape, statistics
        self.views, self.scale = views(tasks), dict(statistics.scale)
        groups = dict.fromkeys(group for view in self.views for group in view.groups)
        self.table_at = {name: at for at, name in enumerate(statistics.rows)}
        self.tables = nn.ParameterList(torch.zeros(rows, shape.embedding) for rows in statistics.rows.values())
        self.numbers = nn.ModuleDict({group: Numbers(statistics.numbers[group]) for group in groups})
        self.first = nn.ModuleDict({group: self._first_layer(group) for group in groups})
        self.bias = nn.ParameterList(torch.zeros(shape.hidden) for _ in self.views)
        self.experts = nn.Linear(shape.hidden + shape.factors, shape.experts * shape.expert)
        self.gates = nn.ModuleList(nn.Linear(shape.hidden + shape.factors, shape.experts) for _ in self.tasks)
        self.towers = nn.ModuleList(Tower(shape, statistics.start[task.name]) for task in self.tasks)
        self.calibrators = nn.ModuleList(Calibrator(task) for task in self.tasks)

    @torch.no_grad()
    def meet(self, inputs: Inputs) -> None:
        """Begin the rows of these ids at random, since products of zeros never learn; an id never met says nothing."""
        for group, (_, ids) in inputs.items():
            for span in self.features.spans(group):
                table = self.table(span.feature)
                met = torch.unique(rows_of(table, ids[:, span.start : span.start + span.width]))
                table[met] = torch.randn(len(met), table.shape[1]) * FIRST_DEVIATION

    def table(self, feature: Feature) -> Tensor:
        """The embeddings (rows, embedding) of an id feature."""
        table: Tensor = self.tables[self.table_at[table_of(feature)]]
        return table

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """The probability of each task for each of N rows: (N,), or (N, classes); a value for regressions."""
        found: dict[str, Tensor] = {}
        for view in self.views:
            found |= self.answers(view, self.logits(view, self.parts(view, inputs)))
        return found

    def answers(self, view: View, logits: Mapping[str, Tensor], *, sampled: bool = False) -> dict[str, Tensor]:
        """The calibrated probabilities that the view's logits say, in life or among `sampled` rows; see `forward`."""
        found = {task.name: self.calibrator(task)(logits[task.name], sampled=sampled) for task in view.tasks}
        return probabilities(view.tasks, found, self.scale)

    def calibrator(self, task: Task) -> Calibrator:
        """The last layer of a task."""
        found = self.calibrators[self.tasks.index(task)]
        assert isinstance(found, Calibrator)
        return found

    def parts(self, view: View, inputs: Inputs) -> list[Tensor]:
        return [self.part(group, *inputs[group], hide=view.hide) for group in view.groups]

    def part(self, group: str, numbers: Tensor, ids: Tensor, hide: frozenset[str] = frozenset()) -> Tensor:
        """What a group adds to the first layer, (N, hidden + factors), as if the features in `hide` were absent."""
        numbers, ids = self._hidden(group, numbers, ids, hide)
        x = [self.numbers[group](numbers)] if numbers.shape[1] else []  # (N, 2n)
        for span in self.features.spans(group):
            x.append(pooled(self.table(span.feature), ids[:, span.start : span.start + span.width]))  # (N, embedding)
        part: Tensor = self.first[group](torch.cat(x, 1))  # (N, hidden + factors)
        return part

    def logits(self, view: View, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """One logit of each row and task of the view, from the parts of its groups; of classes, (N, classes)."""
        at, hidden = self.views.index(view), self.shape.hidden
        total = torch.stack(list(parts)).sum(0)  # (N, hidden + factors)
        x = F.relu(total[:, :hidden] + self.bias[at])  # (N, hidden)
        alone = torch.stack([part[:, hidden:].square() for part in parts]).sum(0)  # (N, factors)
        pairs = (total[:, hidden:].square() - alone) / 2  # (N, factors)
        x = torch.cat([x, pairs], 1)  # (N, hidden + factors)
        experts = F.relu(self.experts(x)).reshape(-1, self.shape.experts, self.shape.expert)  # (N, experts, expert)
        return {task.name: self._answer(self.tasks.index(task), x, experts) for task in view.tasks}

    def _answer(self, at: int, x: Tensor, experts: Tensor) -> Tensor:
        gate = self.gates[at](x).softmax(1)  # (N, experts)
        mixed = (experts * gate.unsqueeze(2)).sum(1)  # (N, expert)
        logit: Tensor = self.towers[at](mixed)
        return logit

    def _first_layer(self, group: str) -> nn.Linear:
        numbers, ids = len(self.features.numbers(group)), len(self.features.spans(group))
        wide = 2 * numbers + self.shape.embedding * ids
        return nn.Linear(wide, self.shape.hidden + self.shape.factors, bias=False)

    def _hidden(self, group: str, numbers: Tensor, ids: Tensor, hide: frozenset[str]) -> tuple[Tensor, Tensor]:
        if not hide:
            return numbers, ids
        unseen = [feature.name in hide for feature in self.features.numbers(group)]
        absent = [span.feature.name in hide for span in self.features.spans(group) for _ in range(span.width)]
        return numbers.masked_fill(torch.tensor(unseen), torch.nan), ids.masked_fill(torch.tensor(absent), 0)


class Numbers(nn.Module):
    """Numbers (N, n) as what a layer can read, (N, 2n): standardised values, and which of them are unknown.

    Clipped to the bounds of the training part, through a signed logarithm where `logarithmic` says so, standardised. An
    unknown number adds nothing but its own column of the next layer: a learned value of being unknown.
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    deviation: Tensor
    logarithmic: Tensor

    def __init__(self, statistics: Sequence[NumberStatistics]) -> None:
        super().__init__()
        for name in ("low", "high", "mean", "deviation"):
            self.register_buffer(name, torch.tensor([getattr(s, name) for s in statistics], dtype=torch.float32))
        self.register_buffer("logarithmic", torch.tensor([s.logarithmic for s in statistics], dtype=torch.bool))

    def forward(self, numbers: Tensor) -> Tensor:
        unknown = numbers.isnan()  # (N, n)
        x = numbers.maximum(self.low).minimum(self.high)
        x = torch.where(self.logarithmic, x.sign() * (x.abs() + 1).log(), x)
        x = ((x - self.mean) / self.deviation).clamp(-STANDARD_MAX, STANDARD_MAX)
        return torch.cat([x.masked_fill(unknown, 0.0), unknown.to(x.dtype)], 1)  # (N, 2n)


def pooled(table: Tensor, ids: Tensor) -> Tensor:
    """The mean of the rows of those ids (N, width) that are present, row 0 where none is: (N, embedding)."""
    rows = rows_of(table, ids)  # (N, width)
    if ids.shape[1] == 1:
        return F.embedding(rows[:, 0], table)
    present = (ids != 0).to(table.dtype)  # (N, width)
    count = present.sum(1, keepdim=True)  # (N, 1)
    mean = (F.embedding(rows, table) * present.unsqueeze(2)).sum(1) / count.clamp(min=1)  # (N, embedding)
    return torch.where(count > 0, mean, table[0])


def rows_of(table: Tensor, ids: Tensor) -> Tensor:
    """The row of each id: 0 where it is absent, else by its remainder, of whatever sign it is."""
    return torch.where(ids == 0, 0, 1 + ids.remainder(table.shape[0] - 1))


class Tower(nn.Module):
    """The last layers of one task; `start` is its first bias: what is right without knowing anything of a row."""

    def __init__(self, shape: Shape, start: Sequence[float]) -> None:
        super().__init__()
        self.inner = nn.Linear(shape.expert, shape.tower)
        self.outer = nn.Linear(shape.tower, len(start))
        self.outer.bias = nn.Parameter(torch.tensor(start, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.outer(F.relu(self.inner(x)))  # (N, outputs)
        return logits.squeeze(1) if logits.shape[1] == 1 else logits
