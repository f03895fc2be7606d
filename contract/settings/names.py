"""Names in settings and environment that are not known, each with the nearest one that is."""

from collections.abc import Iterator, Mapping
from typing import Final

from pydantic import BaseModel

from contract.features.sources import describe_nearest

PREFIX: Final = "SHOPSTREAM_"
# Variables that are no settings: the file of settings, data of benches, caches and the seed of development.
OTHER_VARIABLES: Final = ("SHOPSTREAM_CONFIG", "SHOPSTREAM_DATA", "SHOPSTREAM_STEP_FILE", "SHOPSTREAM_CACHE")
DEVELOPMENT_VARIABLES: Final = ("SHOPSTREAM_SEED",)


def find_unknown_variables(root: type[BaseModel], environment: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each variable that begins with `SHOPSTREAM_` and sets nothing.

    Names within a section that exists are left to the validation of that section.
    """
    known = [*list_variables(root), *OTHER_VARIABLES, *DEVELOPMENT_VARIABLES]
    for variable in sorted(environment):
        name = variable.upper()
        if not name.startswith(PREFIX) or name in known:
            continue
        section, separator, _ = name.removeprefix(PREFIX).partition("__")
        if separator and section.lower() in root.model_fields and is_table(root, section.lower()):
            continue
        nearest = describe_nearest(name, known)
        yield f"The variable `{variable}` should be of a setting, SHOPSTREAM_SECTION__NAME. Found none of it{nearest}."


def list_variables(root: type[BaseModel]) -> Iterator[str]:
    """The variable of every setting, and of every section as a whole."""
    for name, field in root.model_fields.items():
        yield f"{PREFIX}{name.upper()}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (f"{PREFIX}{name.upper()}__{setting.upper()}" for setting in field.annotation.model_fields)


def is_table(root: type[BaseModel], name: str) -> bool:
    """Whether a name of the root has names of its own."""
    default = root.model_fields[name].default
    return isinstance(default, BaseModel | dict)
