"""The whole network, from raw features to probabilities, from top to bottom.

    a group's numbers, ids, vectors -> encoded inputs        (N, wide)              cross layers: DCN-v2, Wang et al.
    -> its part of the first layer                           (N, hidden + factors)  one matrix for each group
    the parts of a task's groups, summed -> x                (N, hidden + factors)  so an item's part is computed once
    x -> experts, mixed by a gate of each task               (N, expert)            MMoE, Ma et al. 2018; PLE, Tang 2020
    one tower for each task -> a logit                       (N,), or (N, classes)
    a task through another: P(purchase) = P(click) * P(purchase given click)        ESMM, Ma et al. 2018

The factors model interactions of two groups (a query and a title, a user and an item): the sum over pairs of the
products of their parts, computed from sums as in factorization machines (Rendle 2010), so that it splits by group. For
the same reason cross layers stay within a group. With `members` > 1 everything from x on exists for each member
(N, k, ...), with the same matrices but scales and biases of its own; members are trained separately and averaged (TabM,
Gorishniy et al. 2024). No input makes the network fail: NaN, infinities, absent, out-of-vocabulary and negative ids all
have learned representations. Training, losses and the export to ONNX are elsewhere.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from typing import Final, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contract.features.declaration import Feature, FeatureSet
from contract.graphs import GRAPHS
from contract.settings.model import ModelConfig
from contract.tasks import Task
from model.calibration import Calibrator
from model.config import check_sharing
from model.feature_statistics import FeatureStatistics, NumberStatistics, table_name
from model.heads import average_members, compute_probabilities, dependency_chain
from model.position_bias import PositionBias, find_biased_tasks
from model.vocabulary import Vocabulary

Inputs: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]  # group -> numbers (N, n) float32, ids (N, m) int64
EMBEDDING_DEVIATION: Final = 0.1  # of initial embeddings
STANDARD_MAX: Final = 8.0  # standardised numbers are clipped to this many deviations


class TaskView(NamedTuple):
    """The inputs that some tasks of one graph share: the groups they read, without the features in `hide`.

    `alone`: the groups that they read through layers of the task `owner`.
    """

    graph: str
    groups: tuple[str, ...]
    hide: frozenset[str]
    tasks: tuple[Task, ...]
    alone: frozenset[str] = frozenset()
    owner: str = ""

    @property
    def name(self) -> str:
        """A name that is the same in every network with this view."""
        return module_key(" ".join([self.graph, *sorted(self.groups), *sorted(self.hide), self.owner]))

    def owner_of(self, group: str) -> str:
        """The task whose layers read the group; empty: the shared layers."""
        return self.owner if group in self.alone else ""


def build_views(tasks: Sequence[Task], *, single: bool = False) -> tuple[TaskView, ...]:
    """The distinct views of the tasks, in the order of their first task; `single`: tasks read all groups alone."""
    by_name = {task.name: task for task in tasks}
    shared: dict[TaskView, list[Task]] = {}
    for task in tasks:
        alone = frozenset(task.groups if single else task.alone)
        owner = (
            dependency_chain(task, by_name)[-1] if alone else ""
        )  # a task shares layers with those that it goes through
        view_key = TaskView(task.graph, tuple(sorted(task.groups)), frozenset(task.hide), (), alone, owner)
        shared.setdefault(view_key, []).append(task)
    return tuple(view._replace(groups=members[0].groups, tasks=tuple(members)) for view, members in shared.items())


def module_key(*names: str) -> str:
    """The name of a submodule or parameter for a task, table or view; module names allow no dots."""
    return "of_" + "/".join(filter(None, names)).replace(".", "·")


class Network(nn.Module):
    """All tasks over shared layers, initialised with the `statistics` of the training part.

    Raises `BadConfig` for tasks whose sharing does not fit `config`.
    """

    def __init__(
        self, *, features: FeatureSet, tasks: Sequence[Task], config: ModelConfig, statistics: FeatureStatistics
    ) -> None:
        super().__init__()
        check_sharing(tasks, config)
        self.features, self.tasks, self.config, self.statistics = features, tuple(tasks), config, statistics
        self.views, self.scale = build_views(tasks, single=config.architecture == "single"), dict(statistics.scale)
        self.item_owners = tuple(
            dict.fromkeys(v.owner_of("item") for v in self.views if GRAPHS[v.graph].is_paired and "item" in v.groups)
        )
        trunks = dict.fromkeys((view.owner_of(group), group) for view in self.views for group in view.groups)
        self.vocabularies = nn.ModuleDict(
            {module_key(table): Vocabulary(known) for table, known in statistics.known.items()}
        )
        self.tables = nn.ParameterDict(
            {
                module_key(owner, table): torch.zeros(statistics.known[table].rows, config.embedding)
                for owner, group in trunks
                for table in dict.fromkeys(table_name(span.feature) for span in features.spans(group))
            }
        )
        groups = {group: GroupEncoder(features, group, statistics.numbers[group]) for _, group in trunks}
        widths = {
            name: encoder.width + config.embedding * len(features.spans(name)) for name, encoder in groups.items()
        }
        self.groups = nn.ModuleDict({module_key(name): group for name, group in groups.items()})
        self.first = nn.ModuleDict(
            {module_key(owner, group): GroupProjection(config, widths[group]) for owner, group in trunks}
        )
        self.bottoms = nn.ModuleDict({view.name: SharedBottom(config) for view in self.views})
        self.levels = nn.ModuleList(
            ExpertLevel(config, self.tasks, self.views, number) for number in range(config.cgc_levels)
        )
        self.towers = nn.ModuleDict(
            {module_key(task.name): Tower(config, statistics.start[task.name]) for task in self.tasks}
        )
        self.calibrators = nn.ModuleDict({module_key(task.name): Calibrator(task) for task in self.tasks})
        # The last parameters, so that the optimizer's state of a checkpoint without them still fits the others.
        self.positions = nn.ModuleDict(
            {module_key(task.name): PositionBias() for task in find_biased_tasks(self.tasks)}
        )

    @torch.no_grad()
    def init_embeddings(self, inputs: Inputs) -> None:
        """Initialise the rows of these ids at random, since products of zeros never train; other rows stay 0."""
        for (owner, group), (_, ids) in ((trunk, inputs[trunk[1]]) for trunk in self.trunks if trunk[1] in inputs):
            for span in self.features.spans(group):
                table = self.embedding_table(span.feature, owner)
                met = torch.unique(self.embedding_rows(span.feature, ids[:, span.start : span.start + span.width]))
                table[met] = torch.randn(len(met), table.shape[1]) * EMBEDDING_DEVIATION

    @property
    def trunks(self) -> tuple[tuple[str, str], ...]:
        """Which owners' layers read which groups: (owner, group); the empty owner: shared layers."""
        return tuple(dict.fromkeys((view.owner_of(group), group) for view in self.views for group in view.groups))

    def embedding_table(self, feature: Feature, owner: str = "") -> Tensor:
        """The embeddings (rows, embedding) of an id feature."""
        table: Tensor = self.tables[module_key(owner, table_name(feature))]
        return table

    def table_parameters(self, name: str) -> list[str]:
        """The names of the parameters whose rows this vocabulary numbers: one for each owner."""
        owners = dict.fromkeys(owner for owner, _ in self.trunks)
        return [f"tables.{module_key(owner, name)}" for owner in owners if module_key(owner, name) in self.tables]

    def embedding_rows(self, feature: Feature, ids: Tensor) -> Tensor:
        """The rows of ids in the feature's table."""
        rows: Tensor = self.vocabularies[module_key(table_name(feature))](ids)
        return rows

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """The probability of each task for each of N rows: (N,), or (N, classes); a value for regressions."""
        predictions: dict[str, Tensor] = {}
        for view in self.views:
            predictions |= self.predict_view(view, self.logits(view, self.group_parts(view, inputs)))
        return predictions

    def predict_view(self, view: TaskView, logits: Mapping[str, Tensor], *, sampled: bool = False) -> dict[str, Tensor]:
        """Calibrated probabilities from the view's logits, for all rows or for `sampled` ones; see `forward`."""
        calibrated = {task.name: self.calibrator(task)(logits[task.name], sampled=sampled) for task in view.tasks}
        return compute_probabilities(view.tasks, calibrated, self.scale)

    def calibrator(self, task: Task) -> Calibrator:
        """The calibrator of a task, its last layer."""
        calibrator = self.calibrators[module_key(task.name)]
        assert isinstance(calibrator, Calibrator)
        return calibrator

    def group_parts(self, view: TaskView, inputs: Inputs) -> list[Tensor]:
        """The part of each group of the view in its first layer."""
        return [
            self.group_part(group, *inputs[group], hide=view.hide, owner=view.owner_of(group)) for group in view.groups
        ]

    def group_part(
        self, group: str, numbers: Tensor, ids: Tensor, *, hide: frozenset[str] = frozenset(), owner: str = ""
    ) -> Tensor:
        """A group's part of the first layer, (N, hidden + factors), as if the features in `hide` were absent."""
        numbers, ids = self._mask_hidden(group, numbers, ids, hide)
        x = [self.groups[module_key(group)](numbers)] if numbers.shape[1] else []  # (N, wide of numbers)
        for span in self.features.spans(group):
            columns = ids[:, span.start : span.start + span.width]  # (N, width)
            table, rows = self.embedding_table(span.feature, owner), self.embedding_rows(span.feature, columns)
            x.append(mean_pool(table, rows))  # (N, embedding)
        part: Tensor = self.first[module_key(owner, group)](torch.cat(x, 1))  # (N, hidden + factors)
        return part

    def item_parts(self, numbers: Tensor, ids: Tensor) -> Tensor:
        """The parts of M items for all tasks that rank them, concatenated: (M, owners * (hidden + factors))."""
        return torch.cat([self.group_part("item", numbers, ids, owner=owner) for owner in self.item_owners], 1)

    def item_part(self, view: TaskView, item_parts: Tensor) -> Tensor:
        """The columns of `item_parts` that a view reads: (M, hidden + factors)."""
        width = self.config.hidden + self.config.factors
        start = self.item_owners.index(view.owner_of("item")) * width
        return item_parts[:, start : start + width]

    def logits(self, view: TaskView, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """The logits of the view's tasks, from the parts of its groups: (N,), or (N, classes).

        In training each member has logits of its own: (N, k), or (N, k, classes).
        """
        return self.head_logits(view, self.represent(view, parts))

    def add_position_bias(self, logits: Mapping[str, Tensor], place: Tensor) -> dict[str, Tensor]:
        """The logits with the bias of the places (N,) of their rows, for losses alone."""
        return {
            task: self.positions[module_key(task)](values, place) if module_key(task) in self.positions else values
            for task, values in logits.items()
        }

    def represent(self, view: TaskView, parts: Sequence[Tensor]) -> Tensor:
        """The representation before the experts: (N, hidden + factors), or (N, k, hidden + factors)."""
        x: Tensor = self.bottoms[view.name](parts)
        return x

    def head_logits(self, view: TaskView, x: Tensor) -> dict[str, Tensor]:
        """The logits of the view's tasks from their representation; see `logits`."""
        shared, by_task = x, {task.name: x for task in view.tasks}
        for level in self.levels:
            shared, by_task = level(view, shared, by_task)  # (N, expert), and for each task (N, expert)
        logits = {task.name: self.towers[module_key(task.name)](by_task[task.name]) for task in view.tasks}
        if self.training or self.config.members == 1:
            return logits
        return {task.name: average_members(task, logits[task.name]) for task in view.tasks}

    def _mask_hidden(self, group: str, numbers: Tensor, ids: Tensor, hide: frozenset[str]) -> tuple[Tensor, Tensor]:
        if not hide:
            return numbers, ids
        unseen = [feature.name in hide for feature in self.features.numbers(group)]
        unseen += [span.feature.name in hide for span in self.features.vectors(group) for _ in range(span.width)]
        absent = [span.feature.name in hide for span in self.features.spans(group) for _ in range(span.width)]
        device = ids.device
        numbers = numbers.masked_fill(torch.tensor(unseen, device=device), torch.nan)
        return numbers, ids.masked_fill(torch.tensor(absent, device=device), 0)


class GroupEncoder(nn.Module):
    """Encodes the number columns (N, n) of a group: those of numbers, then those of vectors."""

    def __init__(self, features: FeatureSet, group: str, statistics: Sequence[NumberStatistics]) -> None:
        super().__init__()
        self.numbers_count = len(features.numbers(group))
        self.numbers = NumberEncoder(statistics[: self.numbers_count])
        self.vectors = VectorEncoder(statistics[self.numbers_count :], [span.width for span in features.vectors(group)])
        self.width = self.numbers.width + self.vectors.width

    def forward(self, numbers: Tensor) -> Tensor:
        x = [self.numbers(numbers[:, : self.numbers_count])] if self.numbers_count else []
        if self.vectors.width:
            x.append(self.vectors(numbers[:, self.numbers_count :]))
        return torch.cat(x, 1)  # (N, wide of numbers)


class NumberEncoder(nn.Module):
    """Encodes numbers (N, n) as standardised values, flags of unknown ones, and bins.

    Values are clipped to the bounds of the training part, passed through a signed logarithm if `logarithmic`, and
    standardised. How far a value fills each of its feature's bins, from 0 to 1, makes the next layer piecewise linear
    in it (Gorishniy et al. 2022). An unknown number contributes only its flag, so a learned value for "unknown".
    """

    low: Tensor
    high: Tensor
    mean: Tensor
    deviation: Tensor
    logarithmic: Tensor
    column: Tensor
    edge: Tensor
    steep: Tensor

    def __init__(self, statistics: Sequence[NumberStatistics]) -> None:
        super().__init__()
        for name in ("low", "high", "mean", "deviation"):
            self.register_buffer(name, torch.tensor([getattr(s, name) for s in statistics], dtype=torch.float32))
        self.register_buffer("logarithmic", torch.tensor([s.logarithmic for s in statistics], dtype=torch.bool))
        bins = [
            (column, *edges) for column, s in enumerate(statistics) for edges in zip(s.bins, s.bins[1:], strict=False)
        ]
        self.register_buffer("column", torch.tensor([column for column, _, _ in bins], dtype=torch.int64))  # (B,)
        self.register_buffer("edge", torch.tensor([low for _, low, _ in bins], dtype=torch.float32))  # (B,)
        self.register_buffer(
            "steep", torch.tensor([1 / (high - low) for _, low, high in bins], dtype=torch.float32)
        )  # (B,)
        self.width = 2 * len(statistics) + len(bins)

    def forward(self, numbers: Tensor) -> Tensor:
        unknown = numbers.isnan()  # (N, n)
        clipped = numbers.maximum(self.low).minimum(self.high)
        x = torch.where(self.logarithmic, clipped.sign() * (clipped.abs() + 1).log(), clipped)
        x = ((x - self.mean) / self.deviation).clamp(-STANDARD_MAX, STANDARD_MAX)
        x = torch.cat([x.masked_fill(unknown, 0.0), unknown.to(x.dtype)], 1)  # (N, 2n)
        if not len(self.column):
            return x
        filled = (clipped.masked_fill(unknown, 0.0)[:, self.column] - self.edge) * self.steep  # (N, B)
        return torch.cat([x, filled.clamp(0, 1).masked_fill(unknown[:, self.column], 0.0)], 1)  # (N, 2n + B)


class VectorEncoder(nn.Module):
    """Encodes concatenated vectors (N, n) as standardised, clipped values and flags of unknown ones: (N, n + vectors).

    A vector with an unknown component is unknown as a whole and contributes only its flag.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, statistics: Sequence[NumberStatistics], widths: Sequence[int]) -> None:
        super().__init__()
        self.widths, self.width = tuple(widths), len(statistics) + len(widths)
        for name in ("mean", "deviation"):
            self.register_buffer(name, torch.tensor([getattr(s, name) for s in statistics], dtype=torch.float32))

    def forward(self, numbers: Tensor) -> Tensor:
        is_unknown = ~(numbers.abs() < torch.inf)  # (N, n)
        unknown, start = list[Tensor](), 0
        for width in self.widths:
            unknown.append(is_unknown[:, start : start + width].to(numbers.dtype).amax(1, keepdim=True))  # (N, 1)
            start += width
        unknown_columns = torch.cat(
            [flag.expand(-1, width) for flag, width in zip(unknown, self.widths, strict=True)], 1
        )
        x = ((numbers - self.mean) / self.deviation).clamp(-STANDARD_MAX, STANDARD_MAX)
        return torch.cat([x.masked_fill(unknown_columns > 0, 0.0), *unknown], 1)


def mean_pool(table: Tensor, rows: Tensor) -> Tensor:
    """The mean of the rows (N, width) of a table other than row 0; row 0 where there are none: (N, embedding)."""
    if rows.shape[1] == 1:
        return F.embedding(rows[:, 0], table)
    present = (rows != 0).to(table.dtype)  # (N, width)
    count = present.sum(1, keepdim=True)  # (N, 1)
    mean = (F.embedding(rows, table) * present.unsqueeze(2)).sum(1) / count.clamp(min=1)  # (N, embedding)
    return torch.where(count > 0, mean, table[0])


class GroupProjection(nn.Module):
    """A group's part of the first layer, after cross layers: x0 * (W x + b) + x (DCN-v2, Wang et al. 2021)."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        rank = config.cross_rank
        self.cross = nn.ModuleList(
            nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
            if rank
            else nn.Linear(width, width)
            for _ in range(config.cross)
        )
        self.part = nn.Linear(width, config.hidden + config.factors, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first = x  # (N, wide)
        for cross in self.cross:
            x = first * cross(x) + x  # (N, wide)
        part: Tensor = self.part(x)  # (N, hidden + factors)
        return part


class SharedBottom(nn.Module):
    """The sum of the parts of a view's groups; each member has its own scale and bias for it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.hidden, members = config.hidden, config.members
        self.bias = nn.Parameter(
            torch.zeros(config.hidden) if members == 1 else torch.randn(members, config.hidden) / 4
        )
        self.scale = nn.Parameter(random_signs(members, config.hidden)) if members > 1 else None
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        total = reduce(torch.add, parts)  # (N, hidden + factors)
        squares = reduce(torch.add, [part[:, self.hidden :].square() for part in parts])  # (N, factors)
        pairs = (total[:, self.hidden :].square() - squares) / 2  # (N, factors)
        x = total[:, : self.hidden]  # (N, hidden)
        if self.scale is not None:
            x = x.unsqueeze(1) * self.scale  # (N, k, hidden)
            pairs = pairs.unsqueeze(1).expand(-1, len(self.scale), -1)  # (N, k, factors)
        x = self.dropout(F.relu(x + self.bias))
        return torch.cat([x, pairs], -1)  # (N, hidden + factors), or (N, k, hidden + factors)


class ExpertLevel(nn.Module):
    """One level of experts: shared ones and each task's own, mixed for each task by its gate (CGC, Tang et al. 2020).

    Without own experts it is MMoE, with a single shared expert a shared bottom. Between levels, a gate of the view
    mixes all experts as the input of the next level's shared ones.
    """

    def __init__(self, config: ModelConfig, tasks: Sequence[Task], views: Sequence[TaskView], number: int) -> None:
        super().__init__()
        self.width, self.shared_count, self.own_count = config.expert, config.shared_experts, config.own_experts
        own = self.own_count
        width = config.hidden + config.factors if number == 0 else config.expert
        self.expert_indices = {
            task.name: tuple(range(self.shared_count) if task.experts is None else task.experts) for task in tasks
        }
        self.shared = (
            EnsembleLinear(width, self.shared_count * self.width, config.members) if self.shared_count else None
        )
        names = {task.name: own + len(self.expert_indices[task.name]) for task in tasks}
        self.own = nn.ModuleDict(
            {module_key(name): EnsembleLinear(width, own * self.width, config.members) for name in names if own}
        )
        gated = {name: experts for name, experts in names.items() if experts > 1}
        self.gates = nn.ModuleDict(
            {module_key(name): EnsembleLinear(width, experts, config.members) for name, experts in gated.items()}
        )
        self.between = nn.ModuleDict(
            {
                view.name: EnsembleLinear(width, self.shared_count + own * len(view.tasks), config.members)
                for view in views
            }
            if number + 1 < config.cgc_levels
            else {}
        )
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, view: TaskView, x: Tensor, by_task: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The next representations, (N, expert) each, from the shared one and those of the tasks, (N, wide) each."""
        shared = list[Tensor]()  # (N, experts, expert)
        if self.shared is not None:
            shared.append(self.run_experts(self.shared, self.shared_count, x))
        own = {
            name: [self.run_experts(self.own[module_key(name)], self.own_count, x_task)] if self.own else []
            for name, x_task in by_task.items()
        }
        outputs = dict[str, Tensor]()
        for names in self.group_tasks(by_task):
            outputs |= self.mix_for_tasks(names, by_task, own[names[0]], shared)
        if not self.between:
            return x, outputs
        all_of_view = torch.cat([*shared, *(e for experts in own.values() for e in experts)], -2)
        return mix_experts([self.between[view.name](x)], all_of_view)[0], outputs

    def group_tasks(self, names: Iterable[str]) -> list[list[str]]:
        """Tasks that mix the same experts together, others alone: one product of matrices costs less than several."""
        groups = dict[tuple[object, ...], list[str]]()
        for name in names:
            is_alone = bool(self.own) or module_key(name) not in self.gates
            groups.setdefault((name,) if is_alone else self.expert_indices[name], []).append(name)
        return list(groups.values())

    def mix_for_tasks(
        self, names: Sequence[str], by_task: Mapping[str, Tensor], own: Sequence[Tensor], shared: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """For each task of a group: own experts and the shared ones it may use, mixed by its gate, (N, expert)."""
        indices = self.expert_indices[names[0]]
        selected = shared
        if indices != tuple(range(self.shared_count)):  # all of them need no gathering
            selected = [experts[..., indices, :] for experts in shared] if indices else []
        combined = torch.cat([*own, *selected], -2) if own or not selected else selected[0]  # (N, experts, expert)
        if module_key(names[0]) not in self.gates:
            return {names[0]: combined[..., 0, :]}
        gates = [self.gates[module_key(name)](by_task[name]) for name in names]
        return dict(zip(names, mix_experts(gates, combined), strict=True))

    def run_experts(self, layer: nn.Module, count: int, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(F.relu(layer(x)))  # (N, experts * expert)
        return y.reshape(*y.shape[:-1], count, self.width)  # -1 in place of the count would fail for N = 0


def mix_experts(gates: Sequence[Tensor], experts: Tensor) -> Sequence[Tensor]:
    """Experts (N, experts, expert) mixed by each of the gates' logits (N, experts): (N, expert) each."""
    shares = [gate.softmax(-1) for gate in gates]
    mixed = torch.stack(shares, -2) @ experts  # (N, gates, expert)
    return mixed.unbind(-2)


class Tower(nn.Module):
    """The last layers of one task; `start`: the initial bias, its base rate."""

    def __init__(self, config: ModelConfig, start: Sequence[float]) -> None:
        super().__init__()
        self.inner = EnsembleLinear(config.expert, config.tower, config.members)
        self.outer = EnsembleLinear(config.tower, len(start), config.members)
        with torch.no_grad():
            self.outer.bias.copy_(torch.tensor(start, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.outer(F.relu(self.inner(x)))  # (N, outputs)
        return logits.squeeze(-1) if logits.shape[-1] == 1 else logits


class EnsembleLinear(nn.Module):
    """A linear layer whose `members` share its matrix and have input scales, output scales and biases of their own.

    (N, k, wide) -> (N, k, out), or with one member (N, wide) -> (N, out). BatchEnsemble, Wen et al. 2020.
    """

    def __init__(self, width: int, out: int, members: int) -> None:
        super().__init__()
        inner = nn.Linear(width, out)
        self.weight = inner.weight
        self.bias = nn.Parameter(inner.bias.detach().repeat(members, 1)) if members > 1 else inner.bias
        self.scale_in = nn.Parameter(torch.ones(members, width)) if members > 1 else None
        self.scale_out = nn.Parameter(torch.ones(members, out)) if members > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.scale_in is None or self.scale_out is None:
            return F.linear(x, self.weight, self.bias)
        return F.linear(x * self.scale_in, self.weight) * self.scale_out + self.bias


def random_signs(members: int, wide: int) -> Tensor:
    """1 and -1 at random, so that members start apart."""
    return torch.randint(0, 2, (members, wide)) * 2.0 - 1.0
