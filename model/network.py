"""The whole network, from raw features to probabilities; it reads from top to bottom.

    a group's numbers, ids, vectors -> what layers can read  (N, wide)              cross layers: DCN-v2, Wang et al.
    -> its part of the first layer                           (N, hidden + factors)  one matrix for each group
    the parts of a task's groups, summed -> x                (N, hidden + factors)  so an item's part is made once
    x -> experts, mixed by a gate of each task               (N, expert)            MMoE, Ma et al. 2018; PLE, Tang 2020
    one tower for each task -> a logit                       (N,), or (N, classes)
    a task through another: P(purchase) = P(click) * P(purchase given click)        ESMM, Ma et al. 2018

The factors hold what two groups say together (a query and a title, a user and an item): the sum over pairs of the
products of their parts, from sums alone as in factorization machines (Rendle 2010), so it splits by group as well. For
the same reason cross layers never reach over two groups. With `members` > 1 everything from x on is made once for each
member (N, k, ...), all with the same matrices but scales and biases of their own; members learn alone and vote (TabM,
Gorishniy et al. 2024). Nothing that a row may hold makes it fail: NaN, infinities, absent, unknown and negative ids all
have learned places. Training, the losses and the export to ONNX are elsewhere.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Final, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contract.features.declaration import Feature, FeatureSet
from contract.graphs import GRAPHS
from contract.tasks import Task
from model.calibration import Calibrator
from model.config import ModelConfig, check_sharing
from model.feature_statistics import FeatureStatistics, NumberStatistics, table_name
from model.heads import average_members, compute_probabilities, dependency_chain
from model.vocabulary import Vocabulary

Inputs: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]  # group -> numbers (N, n) float32, ids (N, m) int64
EMBEDDING_DEVIATION: Final = 0.1  # of embeddings
STANDARD_MAX: Final = 8.0  # a standardised number says no more beyond this many deviations


class TaskView(NamedTuple):
    """What some tasks of one graph look at alike: the groups they read, without the features they must not see.

    `alone`: the groups that they read through layers of `owner`'s own.
    """

    graph: str
    groups: tuple[str, ...]
    hide: frozenset[str]
    tasks: tuple[Task, ...]
    alone: frozenset[str] = frozenset()
    owner: str = ""

    @property
    def name(self) -> str:
        """The same in every network that has this view."""
        return module_key(" ".join([self.graph, *sorted(self.groups), *sorted(self.hide), self.owner]))

    def owner_of(self, group: str) -> str:
        """The task whose layers the group is read through; empty: the shared ones."""
        return self.owner if group in self.alone else ""


def build_views(tasks: Sequence[Task], *, single: bool = False) -> tuple[TaskView, ...]:
    """The distinct views of the tasks, in the order of their first task; `single`: tasks read all groups alone."""
    by_name = {task.name: task for task in tasks}
    shared: dict[TaskView, list[Task]] = {}
    for task in tasks:
        alone = frozenset(task.groups if single else task.alone)
        owner = dependency_chain(task, by_name)[-1] if alone else ""  # a task is read with those that it goes through
        view_key = TaskView(task.graph, tuple(sorted(task.groups)), frozenset(task.hide), (), alone, owner)
        shared.setdefault(view_key, []).append(task)
    return tuple(view._replace(groups=members[0].groups, tasks=tuple(members)) for view, members in shared.items())


def module_key(*names: str) -> str:
    """A name for what is kept of a task, table or view among a module's own names, which allow no dots."""
    return "of_" + "/".join(filter(None, names)).replace(".", "·")


class Network(nn.Module):
    """All tasks over shared layers, at first with what `statistics` tells of the training part.

    Raises `BadConfig` for tasks that may not share what the shape has.
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

    @torch.no_grad()
    def init_embeddings(self, inputs: Inputs) -> None:
        """Begin the rows of these ids at random, since products of zeros never learn; an id never met says nothing."""
        for (owner, group), (_, ids) in ((trunk, inputs[trunk[1]]) for trunk in self.trunks if trunk[1] in inputs):
            for span in self.features.spans(group):
                table = self.embedding_table(span.feature, owner)
                met = torch.unique(self.embedding_rows(span.feature, ids[:, span.start : span.start + span.width]))
                table[met] = torch.randn(len(met), table.shape[1]) * EMBEDDING_DEVIATION

    @property
    def trunks(self) -> tuple[tuple[str, str], ...]:
        """Which owners' layers read which groups: (owner, group), the empty owner being all."""
        return tuple(dict.fromkeys((view.owner_of(group), group) for view in self.views for group in view.groups))

    def embedding_table(self, feature: Feature, owner: str = "") -> Tensor:
        """The embeddings (rows, embedding) of an id feature."""
        table: Tensor = self.tables[module_key(owner, table_name(feature))]
        return table

    def table_parameters(self, name: str) -> list[str]:
        """The parameters, by name, whose rows the vocabulary of this name numbers: one for each owner."""
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
        """The calibrated probabilities that the view's logits say, in life or among `sampled` rows; see `forward`."""
        calibrated = {task.name: self.calibrator(task)(logits[task.name], sampled=sampled) for task in view.tasks}
        return compute_probabilities(view.tasks, calibrated, self.scale)

    def calibrator(self, task: Task) -> Calibrator:
        """The last layer of a task."""
        calibrator = self.calibrators[module_key(task.name)]
        assert isinstance(calibrator, Calibrator)
        return calibrator

    def group_parts(self, view: TaskView, inputs: Inputs) -> list[Tensor]:
        """What each group of the view adds to its first layer."""
        return [
            self.group_part(group, *inputs[group], hide=view.hide, owner=view.owner_of(group)) for group in view.groups
        ]

    def group_part(
        self, group: str, numbers: Tensor, ids: Tensor, *, hide: frozenset[str] = frozenset(), owner: str = ""
    ) -> Tensor:
        """What a group adds to the first layer, (N, hidden + factors), as if the features in `hide` were absent."""
        numbers, ids = self._mask_hidden(group, numbers, ids, hide)
        x = [self.groups[module_key(group)](numbers)] if numbers.shape[1] else []  # (N, wide of numbers)
        for span in self.features.spans(group):
            columns = ids[:, span.start : span.start + span.width]  # (N, width)
            x.append(
                mean_pool(self.embedding_table(span.feature, owner), self.embedding_rows(span.feature, columns))
            )  # (N, embedding)
        part: Tensor = self.first[module_key(owner, group)](torch.cat(x, 1))  # (N, hidden + factors)
        return part

    def item_parts(self, numbers: Tensor, ids: Tensor) -> Tensor:
        """The parts of M items for every task that ranks them, side by side: (M, owners * (hidden + factors))."""
        return torch.cat([self.group_part("item", numbers, ids, owner=owner) for owner in self.item_owners], 1)

    def item_part(self, view: TaskView, item_parts: Tensor) -> Tensor:
        """Those of `item_parts` that a view reads: (M, hidden + factors)."""
        width = self.config.hidden + self.config.factors
        start = self.item_owners.index(view.owner_of("item")) * width
        return item_parts[:, start : start + width]

    def logits(self, view: TaskView, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """One logit of each row and task of the view, from the parts of its groups; of classes, (N, classes).

        While learning each member has its own: (N, k), or (N, k, classes).
        """
        return self.head_logits(view, self.represent(view, parts))

    def represent(self, view: TaskView, parts: Sequence[Tensor]) -> Tensor:
        """What the view's tasks share before any expert: (N, hidden + factors), or (N, k, hidden + factors)."""
        x: Tensor = self.bottoms[view.name](parts)
        return x

    def head_logits(self, view: TaskView, x: Tensor) -> dict[str, Tensor]:
        """The logits of the view's tasks from what they share; see `logits`."""
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
    """The number columns (N, n) of a group as what a layer can read: those of numbers, then those of vectors."""

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
    """Numbers (N, n) as what a layer can read: standardised values, which of them are unknown, and bins.

    Clipped to the bounds of the training part, by a signed logarithm where `logarithmic` says so, standardised. How
    far a value fills each of its feature's bins, from 0 to 1, makes the next layer piecewise linear in it (Gorishniy et
    al. 2022). An unknown number adds nothing but its own column of the next layer: a learned value of being unknown.
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
    """Vectors side by side (N, n), standardised and clipped, and which of them are unknown: (N, n + vectors).

    A vector of which one number is not known is unknown as a whole, and adds nothing but its own column.
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
    """The mean of those rows (N, width) of a table that are not row 0, row 0 where none is another: (N, embedding)."""
    if rows.shape[1] == 1:
        return F.embedding(rows[:, 0], table)
    present = (rows != 0).to(table.dtype)  # (N, width)
    count = present.sum(1, keepdim=True)  # (N, 1)
    mean = (F.embedding(rows, table) * present.unsqueeze(2)).sum(1) / count.clamp(min=1)  # (N, embedding)
    return torch.where(count > 0, mean, table[0])


class GroupProjection(nn.Module):
    """A group's part of the first layer, behind cross layers: x0 * (W x + b) + x (DCN-v2, Wang et al. 2021)."""

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
    """The parts of a view's groups, summed; each member looks at the sum with its own signs and bias."""

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

    Without own experts it is MMoE's, with one shared expert the shared bottom's. Between levels a gate of the view has
    all experts for the next level's shared ones.
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
        """From the shared representation and those of the tasks, (N, wide) each, to the next ones, (N, expert) each."""
        shared = (
            [self.run_experts(self.shared, self.shared_count, x)] if self.shared is not None else []
        )  # (N, experts, expert)
        own, outputs = dict[str, list[Tensor]](), dict[str, Tensor]()
        for name in by_task:
            own[name] = (
                [self.run_experts(self.own[module_key(name)], self.own_count, by_task[name])] if self.own else []
            )  # (N, own, expert)
            selected = (
                [experts[..., self.expert_indices[name], :] for experts in shared] if self.expert_indices[name] else []
            )
            if self.expert_indices[name] == tuple(range(self.shared_count)):
                selected = shared  # all of them, which need not be gathered
            combined = (
                torch.cat([*own[name], *selected], -2) if own[name] or not selected else selected[0]
            )  # (N, experts, expert)
            gated = module_key(name) in self.gates
            outputs[name] = (
                mix_experts(self.gates[module_key(name)], by_task[name], combined) if gated else combined[..., 0, :]
            )
        if not self.between:
            return x, outputs
        all_of_view = torch.cat([*shared, *(e for experts in own.values() for e in experts)], -2)
        return mix_experts(self.between[view.name], x, all_of_view), outputs

    def run_experts(self, layer: nn.Module, count: int, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(F.relu(layer(x)))  # (N, experts * expert)
        return y.reshape(*y.shape[:-1], count, self.width)  # -1 in place of the count fails where N is 0


def mix_experts(gate: nn.Module, x: Tensor, experts: Tensor) -> Tensor:
    """Experts (N, experts, expert) as the gate of x mixes them: (N, expert)."""
    share: Tensor = gate(x).softmax(-1)  # (N, experts)
    mixed: Tensor = share.unsqueeze(-2) @ experts
    return mixed.squeeze(-2)


class Tower(nn.Module):
    """The last layers of one task; `start` is its first bias: what is right without knowing anything of a row."""

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
    """A linear layer; `members` share its matrix, with scales of inputs and outputs and biases of their own.

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
    """1 and -1 at random, so that members begin apart."""
    return torch.randint(0, 2, (members, wide)) * 2.0 - 1.0
