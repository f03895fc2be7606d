"""[model]: the shape of the network, as the settings declare it and checkpoints keep it."""

from typing import Annotated, Literal

from pydantic import Field

from contract.settings.section import Section

Size = Annotated[int, Field(ge=1, le=65_536)]
SizeOrNone = Annotated[int, Field(ge=0, le=65_536)]


class ModelConfig(Section):
    """What is shared and how wide each layer is; `model/network.py` implements it.

    `architecture`: `single` shares only the features; `shared_bottom` has one expert for all tasks; `mmoe` mixes
    `experts` shared experts by a gate for each task; `ple` adds `own` experts for each task, over `levels`.
    `factors`: width of the products of groups, 0 for none. `cross`: cross layers within each group, of rank
    `cross_rank` (0: full). `bins` for each number, 0 for none. `members`: small networks that share their weights;
    their answers are averaged. `dropout` during training. `rows`: maximum of every embedding table.
    """

    architecture: Literal["single", "shared_bottom", "mmoe", "ple"] = "mmoe"

    embedding: Size = 16
    hidden: Size = 64
    factors: SizeOrNone = 16
    experts: Size = 4
    expert: Size = 64
    tower: Size = 32
    rows: Annotated[int, Field(ge=64, le=2**26)] = 16_384
    own: Size = 1
    levels: Annotated[int, Field(ge=1, le=8)] = 1
    cross: Annotated[int, Field(ge=0, le=8)] = 0
    cross_rank: SizeOrNone = 0
    bins: Annotated[int, Field(ge=0, le=256)] = 0
    members: Annotated[int, Field(ge=1, le=64)] = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def shared_experts(self) -> int:
        """Experts that more than one task may mix."""
        return {"single": 0, "shared_bottom": 1}.get(self.architecture, self.experts)

    @property
    def own_experts(self) -> int:
        """Experts of each task alone."""
        return {"single": 1, "ple": self.own}.get(self.architecture, 0)

    @property
    def cgc_levels(self) -> int:
        return self.levels if self.architecture == "ple" else 1
