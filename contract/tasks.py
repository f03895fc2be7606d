"""Tasks: what the model predicts, as declared in `shop.toml`."""

from typing import Annotated, Final, Literal, TypeAlias

from msgspec import Meta, Struct
from pydantic import Field

# limits stand twice: `Meta` for manifests, `Field` for the settings
Weight: TypeAlias = Annotated[float, Meta(ge=0), Field(ge=0)]
Rate: TypeAlias = Annotated[float, Meta(gt=0, le=1), Field(gt=0, le=1)]
ExpertNumber: TypeAlias = Annotated[int, Meta(ge=0), Field(ge=0)]

TaskKind: TypeAlias = Literal["binary", "graded", "multiclass", "regression"]
LABEL_MAX: Final = 1e18  # of a number to predict; the square of a greater one may be too large for float32


class Task(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One prediction task, and the inputs that it may use.

    `name`: what labels, scores and thresholds call it. `kind`: what its labels are. `groups`: the feature groups that
    it reads. `hide`: features of those groups that it must not see (the category of
    an item when the category is predicted). `through`: the binary task that has to happen first (a purchase goes
    through a click): P(this) = P(through) * P(this given through). `weight`: its priority in training. `graph`: the
    exported graph that answers it. `negative_rate`: the share of negative rows that the examples keep; the others were
    left out at random, for which the graph corrects its probabilities.

    Sharing. `alone`: groups that it reads through embeddings and a first layer of its own (shared only with the task it
    goes through). `experts`: the numbers of the shared experts that it may mix; by default all of them.
    """

    name: str
    kind: TaskKind
    groups: tuple[str, ...]
    graph: Literal["recommend", "decide", "review", "search", "classify"]
    hide: tuple[str, ...] = ()
    through: str | None = None
    weight: Weight = 1.0
    negative_rate: Rate = 1.0
    alone: tuple[str, ...] = ()
    experts: tuple[ExpertNumber, ...] | None = None
