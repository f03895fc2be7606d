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

from contract.features import Feature, FeatureSet
from contract.tasks import Task
from model.answers import chain, probabilities, vote
from model.calibration import Calibrator
from model.declared import PAIRED, Shape, check_sharing
from model.statistics import NumberStatistics, Statistics, table_of
from model.vocabulary import Vocabulary

Inputs: TypeAlias = Mapping[str, tuple[Tensor, Tensor]]  # group -> numbers (N, n) float32, ids (N, m) int64
FIRST_DEVIATION: Final = 0.1  # of embeddings
STANDARD_MAX: Final = 8.0  # a standardised number says no more beyond this many deviations


class View(NamedTuple):
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
        return key(" ".join([self.graph, *sorted(self.groups), *sorted(self.hide), self.owner]))

    def owner_of(self, group: str) -> str:
        """The task whose layers the group is read through; empty: the shared ones."""
        return self.owner if group in self.alone else ""


def views(tasks: Sequence[Task], *, single: bool = False) -> tuple[View, ...]:
    """The distinct views of the tasks, in the order of their first task; `single`: tasks read all groups alone."""
    by_name = {task.name: task for task in tasks}
    shared: dict[View, list[Task]] = {}
    for task in tasks:
        alone = frozenset(task.groups if single else task.alone)
        owner = chain(task, by_name)[-1] if alone else ""  # a task is read with those that it goes through
        like = View(task.graph, tuple(sorted(task.groups)), frozenset(task.hide), (), alone, owner)
        shared.setdefault(like, []).append(task)
    return tuple(view._replace(groups=of[0].groups, tasks=tuple(of)) for view, of in shared.items())


def key(*names: str) -> str:
    """A name for what is kept of a task, table or view among a module's own names, which allow no dots."""
    return "of_" + "/".join(filter(None, names)).replace(".", "·")


class Network(nn.Module):
    """All tasks over shared layers, at first with what `statistics` tells of the training part.

    Raises `BadConfig` for tasks that may not share what the shape has.
    """

    def __init__(self, *, features: FeatureSet, tasks: Sequence[Task], shape: Shape, statistics: Statistics) -> None:
        super().__init__()
        check_sharing(tasks, shape)
        self.features, self.tasks, self.shape, self.statistics = features, tuple(tasks), shape, statistics
        self.views, self.scale = views(tasks, single=shape.architecture == "single"), dict(statistics.scale)
        self.item_owners = tuple(
            dict.fromkeys(v.owner_of("item") for v in self.views if v.graph in PAIRED and "item" in v.groups)
        )
        trunks = dict.fromkeys((view.owner_of(group), group) for view in self.views for group in view.groups)
        self.vocabularies = nn.ModuleDict({key(table): Vocabulary(known) for table, known in statistics.known.items()})
        self.tables = nn.ParameterDict(
            {
                key(owner, table): torch.zeros(statistics.known[table].rows, shape.embedding)
                for owner, group in trunks
                for table in dict.fromkeys(table_of(span.feature) for span in features.spans(group))
            }
        )
        groups = {group: Group(features, group, statistics.numbers[group]) for _, group in trunks}
        wide = {name: of.wide + shape.embedding * len(features.spans(name)) for name, of in groups.items()}
        self.groups = nn.ModuleDict({key(name): group for name, group in groups.items()})
        self.first = nn.ModuleDict({key(owner, group): First(shape, wide[group]) for owner, group in trunks})
        self.bottoms = nn.ModuleDict({view.name: Bottom(shape) for view in self.views})
        self.levels = nn.ModuleList(Level(shape, self.tasks, self.views, at) for at in range(shape.cgc_levels))
        self.towers = nn.ModuleDict({key(task.name): Tower(shape, statistics.start[task.name]) for task in self.tasks})
        self.calibrators = nn.ModuleDict({key(task.name): Calibrator(task) for task in self.tasks})

    @torch.no_grad()
    def meet(self, inputs: Inputs) -> None:
        """Begin the rows of these ids at random, since products of zeros never learn; an id never met says nothing."""
        for (owner, group), (_, ids) in ((trunk, inputs[trunk[1]]) for trunk in self.trunks if trunk[1] in inputs):
            for span in self.features.spans(group):
                table = self.table(span.feature, owner)
                met = torch.unique(self.rows(span.feature, ids[:, span.start : span.start + span.width]))
                table[met] = torch.randn(len(met), table.shape[1]) * FIRST_DEVIATION

    @property
    def trunks(self) -> tuple[tuple[str, str], ...]:
        """Which owners' layers read which groups: (owner, group), the empty owner being all."""
        return tuple(dict.fromkeys((view.owner_of(group), group) for view in self.views for group in view.groups))

    def table(self, feature: Feature, owner: str = "") -> Tensor:
        """The embeddings (rows, embedding) of an id feature."""
        table: Tensor = self.tables[key(owner, table_of(feature))]
        return table

    def tables_of(self, name: str) -> list[str]:
        """The parameters, by name, whose rows the vocabulary of this name numbers: one for each owner."""
        owners = dict.fromkeys(owner for owner, _ in self.trunks)
        return [f"tables.{key(owner, name)}" for owner in owners if key(owner, name) in self.tables]

    def rows(self, feature: Feature, ids: Tensor) -> Tensor:
        """The rows of ids in the feature's table."""
        rows: Tensor = self.vocabularies[key(table_of(feature))](ids)
        return rows

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
        found = self.calibrators[key(task.name)]
        assert isinstance(found, Calibrator)
        return found

    def parts(self, view: View, inputs: Inputs) -> list[Tensor]:
        """What each group of the view adds to its first layer."""
        return [self.part(group, *inputs[group], hide=view.hide, owner=view.owner_of(group)) for group in view.groups]

    def part(
        self, group: str, numbers: Tensor, ids: Tensor, *, hide: frozenset[str] = frozenset(), owner: str = ""
    ) -> Tensor:
        """What a group adds to the first layer, (N, hidden + factors), as if the features in `hide` were absent."""
        numbers, ids = self._hidden(group, numbers, ids, hide)
        x = [self.groups[key(group)](numbers)] if numbers.shape[1] else []  # (N, wide of numbers)
        for span in self.features.spans(group):
            few = ids[:, span.start : span.start + span.width]  # (N, width)
            x.append(pooled(self.table(span.feature, owner), self.rows(span.feature, few)))  # (N, embedding)
        part: Tensor = self.first[key(owner, group)](torch.cat(x, 1))  # (N, hidden + factors)
        return part

    def item_parts(self, numbers: Tensor, ids: Tensor) -> Tensor:
        """The parts of M items for every task that ranks them, side by side: (M, owners * (hidden + factors))."""
        return torch.cat([self.part("item", numbers, ids, owner=owner) for owner in self.item_owners], 1)

    def item_part(self, view: View, item_parts: Tensor) -> Tensor:
        """Those of `item_parts` that a view reads: (M, hidden + factors)."""
        wide = self.shape.hidden + self.shape.factors
        at = self.item_owners.index(view.owner_of("item")) * wide
        return item_parts[:, at : at + wide]

    def logits(self, view: View, parts: Sequence[Tensor]) -> dict[str, Tensor]:
        """One logit of each row and task of the view, from the parts of its groups; of classes, (N, classes).

        While learning each member has its own: (N, k), or (N, k, classes).
        """
        return self.heads(view, self.represent(view, parts))

    def represent(self, view: View, parts: Sequence[Tensor]) -> Tensor:
        """What the view's tasks share before any expert: (N, hidden + factors), or (N, k, hidden + factors)."""
        x: Tensor = self.bottoms[view.name](parts)
        return x

    def heads(self, view: View, x: Tensor) -> dict[str, Tensor]:
        """The logits of the view's tasks from what they share; see `logits`."""
        shared, of = x, {task.name: x for task in view.tasks}
        for level in self.levels:
            shared, of = level(view, shared, of)  # (N, expert), and for each task (N, expert)
        found = {task.name: self.towers[key(task.name)](of[task.name]) for task in view.tasks}
        if self.training or self.shape.members == 1:
            return found
        return {task.name: vote(task, found[task.name]) for task in view.tasks}

    def _hidden(self, group: str, numbers: Tensor, ids: Tensor, hide: frozenset[str]) -> tuple[Tensor, Tensor]:
        if not hide:
            return numbers, ids
        unseen = [feature.name in hide for feature in self.features.numbers(group)]
        unseen += [span.feature.name in hide for span in self.features.vectors(group) for _ in range(span.width)]
        absent = [span.feature.name in hide for span in self.features.spans(group) for _ in range(span.width)]
        at = ids.device
        numbers = numbers.masked_fill(torch.tensor(unseen, device=at), torch.nan)
        return numbers, ids.masked_fill(torch.tensor(absent, device=at), 0)


class Group(nn.Module):
    """The number columns (N, n) of a group as what a layer can read: those of numbers, then those of vectors."""

    def __init__(self, features: FeatureSet, group: str, statistics: Sequence[NumberStatistics]) -> None:
        super().__init__()
        self.split = len(features.numbers(group))
        self.numbers = Numbers(statistics[: self.split])
        self.vectors = Vectors(statistics[self.split :], [span.width for span in features.vectors(group)])
        self.wide = self.numbers.wide + self.vectors.wide

    def forward(self, numbers: Tensor) -> Tensor:
        x = [self.numbers(numbers[:, : self.split])] if self.split else []
        if self.vectors.wide:
            x.append(self.vectors(numbers[:, self.split :]))
        return torch.cat(x, 1)  # (N, wide of numbers)


class Numbers(nn.Module):
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
        bins = [(at, *edges) for at, s in enumerate(statistics) for edges in zip(s.bins, s.bins[1:], strict=False)]
        self.register_buffer("column", torch.tensor([at for at, _, _ in bins], dtype=torch.int64))  # (B,)
        self.register_buffer("edge", torch.tensor([low for _, low, _ in bins], dtype=torch.float32))  # (B,)
        self.register_buffer(
            "steep", torch.tensor([1 / (high - low) for _, low, high in bins], dtype=torch.float32)
        )  # (B,)
        self.wide = 2 * len(statistics) + len(bins)

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


class Vectors(nn.Module):
    """Vectors side by side (N, n), standardised and clipped, and which of them are unknown: (N, n + vectors).

    A vector of which one number is not known is unknown as a whole, and adds nothing but its own column.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, statistics: Sequence[NumberStatistics], widths: Sequence[int]) -> None:
        super().__init__()
        self.widths, self.wide = tuple(widths), len(statistics) + len(widths)
        for name in ("mean", "deviation"):
            self.register_buffer(name, torch.tensor([getattr(s, name) for s in statistics], dtype=torch.float32))

    def forward(self, numbers: Tensor) -> Tensor:
        lost = ~(numbers.abs() < torch.inf)  # (N, n)
        unknown, start = list[Tensor](), 0
        for width in self.widths:
            unknown.append(lost[:, start : start + width].to(numbers.dtype).amax(1, keepdim=True))  # (N, 1)
            start += width
        each = torch.cat([flag.expand(-1, width) for flag, width in zip(unknown, self.widths, strict=True)], 1)
        x = ((numbers - self.mean) / self.deviation).clamp(-STANDARD_MAX, STANDARD_MAX)
        return torch.cat([x.masked_fill(each > 0, 0.0), *unknown], 1)


def pooled(table: Tensor, rows: Tensor) -> Tensor:
    """The mean of those rows (N, width) of a table that are not row 0, row 0 where none is another: (N, embedding)."""
    if rows.shape[1] == 1:
        return F.embedding(rows[:, 0], table)
    present = (rows != 0).to(table.dtype)  # (N, width)
    count = present.sum(1, keepdim=True)  # (N, 1)
    mean = (F.embedding(rows, table) * present.unsqueeze(2)).sum(1) / count.clamp(min=1)  # (N, embedding)
    return torch.where(count > 0, mean, table[0])


class First(nn.Module):
    """A group's part of the first layer, behind cross layers: x0 * (W x + b) + x (DCN-v2, Wang et al. 2021)."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__()
        rank = shape.cross_rank
        self.cross = nn.ModuleList(
            nn.Sequential(nn.Linear(width, rank, bias=False), nn.Linear(rank, width))
            if rank
            else nn.Linear(width, width)
            for _ in range(shape.cross)
        )
        self.part = nn.Linear(width, shape.hidden + shape.factors, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        first = x  # (N, wide)
        for cross in self.cross:
            x = first * cross(x) + x  # (N, wide)
        part: Tensor = self.part(x)  # (N, hidden + factors)
        return part


class Bottom(nn.Module):
    """The parts of a view's groups, summed; each member looks at the sum with its own signs and bias."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.hidden, members = shape.hidden, shape.members
        self.bias = nn.Parameter(torch.zeros(shape.hidden) if members == 1 else torch.randn(members, shape.hidden) / 4)
        self.scale = nn.Parameter(signs(members, shape.hidden)) if members > 1 else None
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, parts: Sequence[Tensor]) -> Tensor:
        total = reduce(torch.add, parts)  # (N, hidden + factors)
        alone = reduce(torch.add, [part[:, self.hidden :].square() for part in parts])  # (N, factors)
        pairs = (total[:, self.hidden :].square() - alone) / 2  # (N, factors)
        x = total[:, : self.hidden]  # (N, hidden)
        if self.scale is not None:
            x = x.unsqueeze(1) * self.scale  # (N, k, hidden)
            pairs = pairs.unsqueeze(1).expand(-1, len(self.scale), -1)  # (N, k, factors)
        x = self.dropout(F.relu(x + self.bias))
        return torch.cat([x, pairs], -1)  # (N, hidden + factors), or (N, k, hidden + factors)


class Level(nn.Module):
    """One level of experts: shared ones and each task's own, mixed for each task by its gate (CGC, Tang et al. 2020).

    Without own experts it is MMoE's, with one shared expert the shared bottom's. Between levels a gate of the view has
    all experts for the next level's shared ones.
    """

    def __init__(self, shape: Shape, tasks: Sequence[Task], views: Sequence[View], at: int) -> None:
        super().__init__()
        self.width, self.count, self.each = shape.expert, shape.shared_experts, shape.own_experts
        own = self.each
        wide = shape.hidden + shape.factors if at == 0 else shape.expert
        self.mixed = {task.name: tuple(range(self.count) if task.experts is None else task.experts) for task in tasks}
        self.shared = Layer(wide, self.count * self.width, shape.members) if self.count else None
        names = {task.name: own + len(self.mixed[task.name]) for task in tasks}
        self.own = nn.ModuleDict({key(name): Layer(wide, own * self.width, shape.members) for name in names if own})
        gated = {name: experts for name, experts in names.items() if experts > 1}
        self.gates = nn.ModuleDict({key(name): Layer(wide, experts, shape.members) for name, experts in gated.items()})
        self.between = nn.ModuleDict(
            {view.name: Layer(wide, self.count + own * len(view.tasks), shape.members) for view in views}
            if at + 1 < shape.cgc_levels
            else {}
        )
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, view: View, x: Tensor, of: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """From the shared representation and those of the tasks, (N, wide) each, to the next ones, (N, expert) each."""
        shared = [self.experts(self.shared, self.count, x)] if self.shared is not None else []  # (N, experts, expert)
        own, found = dict[str, list[Tensor]](), dict[str, Tensor]()
        for name in of:
            own[name] = [self.experts(self.own[key(name)], self.each, of[name])] if self.own else []  # (N, own, expert)
            mine = [each[..., self.mixed[name], :] for each in shared] if self.mixed[name] else []
            if self.mixed[name] == tuple(range(self.count)):
                mine = shared  # all of them, which need not be gathered
            together = torch.cat([*own[name], *mine], -2) if own[name] or not mine else mine[0]  # (N, experts, expert)
            gated = key(name) in self.gates
            found[name] = mixture(self.gates[key(name)], of[name], together) if gated else together[..., 0, :]
        if not self.between:
            return x, found
        all_of_view = torch.cat([*shared, *(e for each in own.values() for e in each)], -2)
        return mixture(self.between[view.name], x, all_of_view), found

    def experts(self, layer: nn.Module, count: int, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(F.relu(layer(x)))  # (N, experts * expert)
        return y.reshape(*y.shape[:-1], count, self.width)  # -1 in place of the count fails where N is 0


def mixture(gate: nn.Module, x: Tensor, experts: Tensor) -> Tensor:
    """Experts (N, experts, expert) as the gate of x mixes them: (N, expert)."""
    share: Tensor = gate(x).softmax(-1)  # (N, experts)
    mixed: Tensor = share.unsqueeze(-2) @ experts
    return mixed.squeeze(-2)


class Tower(nn.Module):
    """The last layers of one task; `start` is its first bias: what is right without knowing anything of a row."""

    def __init__(self, shape: Shape, start: Sequence[float]) -> None:
        super().__init__()
        self.inner = Layer(shape.expert, shape.tower, shape.members)
        self.outer = Layer(shape.tower, len(start), shape.members)
        with torch.no_grad():
            self.outer.bias.copy_(torch.tensor(start, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.outer(F.relu(self.inner(x)))  # (N, outputs)
        return logits.squeeze(-1) if logits.shape[-1] == 1 else logits


class Layer(nn.Module):
    """A linear layer; `members` share its matrix, with scales of inputs and outputs and biases of their own.

    (N, k, wide) -> (N, k, out), or with one member (N, wide) -> (N, out). BatchEnsemble, Wen et al. 2020.
    """

    def __init__(self, wide: int, out: int, members: int) -> None:
        super().__init__()
        inner = nn.Linear(wide, out)
        self.weight = inner.weight
        self.bias = nn.Parameter(inner.bias.detach().repeat(members, 1)) if members > 1 else inner.bias
        self.scale_in = nn.Parameter(torch.ones(members, wide)) if members > 1 else None
        self.scale_out = nn.Parameter(torch.ones(members, out)) if members > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.scale_in is None or self.scale_out is None:
            return F.linear(x, self.weight, self.bias)
        return F.linear(x * self.scale_in, self.weight) * self.scale_out + self.bias


def signs(members: int, wide: int) -> Tensor:
    """1 and -1 at random, so that members begin apart."""
    return torch.randint(0, 2, (members, wide)) * 2.0 - 1.0
