"""The file of list rules, `lists.rules`: what a shop wants on its lists, whatever the model says.

Workers read it again whenever it changes, so it is a file of its own; `worker.rules` watches and applies it.
"""

import hashlib
import math
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, ValidationError, model_validator

from contract.errors import BadConfig
from contract.features.declaration import FeatureSet
from contract.features.sources import describe_nearest
from contract.settings.reading import describe_errors
from contract.settings.section import NonNegative, Positive, Section, refuse_bool

ListKind = Literal["personal", "popular"]
RuleAction = Literal["exclude", "hide", "pin", "boost", "bury", "cap", "diversify"]
FACTOR_MAX: Final = 1_000.0
RULES_MAX: Final = 1_000
DIGEST_DIGITS: Final = 16
FILE_BYTES_MAX: Final = 16 * 1024 * 1024
SELECTORS: Final = ("items", "categories", "brands", "sellers", "price", "stock", "age_days", "features")
# The fields that only some actions have; needed ones have no default.
FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "position": ("pin",),
    "factor": ("boost",),
    "after": ("hide",),
    "days": ("hide",),
    "scope": ("hide",),
    "max": ("cap",),
    "per": ("cap",),
    "strength": ("diversify",),
}
NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "pin": ("items",),
    "boost": ("factor",),
    "hide": ("after", "days"),
    "cap": ("max",),
    "diversify": ("strength",),
}
NEED_SELECTOR: Final = ("exclude", "boost", "bury")


def refuse_empty(value: object) -> object:
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("should be a list with at least one entry")
    return value


def refuse_comma(value: str) -> str:
    if "," in value:
        raise ValueError("should have no comma, which separates names of rules")
    return value


Finite = Annotated[float, BeforeValidator(refuse_bool), Field(allow_inf_nan=False)]
Word = Annotated[str, Field(min_length=1)]
Words = Annotated[tuple[Word, ...], BeforeValidator(refuse_empty)]


class Range(Section):
    """A number from `min` to `max`, both included; one of them may be left out."""

    min: Finite | None = None
    max: Finite | None = None

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min is None and self.max is None:
            raise ValueError("should have a `min`, a `max` or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("should have a `min` that is no more than its `max`")
        return self


class FeatureCondition(Section):
    """The value of a product's feature: a category that `equals` a text, or a number from `min` to `max`."""

    equals: Word | None = None
    min: Finite | None = None
    max: Finite | None = None

    @model_validator(mode="after")
    def _check_form(self) -> Self:
        if (self.equals is None) == (self.min is None and self.max is None):
            raise ValueError("should have `equals` alone, or a `min`, a `max` or both")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError("should have a `min` that is no more than its `max`")
        return self


class ListRule(Section):
    """One rule. It concerns the items that all of its selectors match, on `lists` (none named: on all kinds).

    `starts`, `ends`: when it is in force, by the worker's clock. `position`: of the first of `items`, from 1. `days`:
    of the history of the user. `scope`: the item itself, or all items of its category. `per`: what `max` is for.
    """

    name: Annotated[str, Field(min_length=1, max_length=100), AfterValidator(refuse_comma)]
    action: RuleAction
    lists: Annotated[tuple[ListKind, ...], BeforeValidator(refuse_empty)] | None = None
    starts: AwareDatetime | None = None
    ends: AwareDatetime | None = None
    items: Words | None = None
    categories: Words | None = None
    brands: Words | None = None
    sellers: Words | None = None
    price: Range | None = None
    stock: Range | None = None
    age_days: Range | None = None
    features: Annotated[dict[str, FeatureCondition], Field(min_length=1)] | None = None
    position: Positive | None = None
    factor: Annotated[Finite, Field(ge=1 / FACTOR_MAX, le=FACTOR_MAX)] | None = None
    after: Literal["bought", "seen"] | None = None
    days: Annotated[Finite, Field(ge=0)] | None = None
    scope: Literal["item", "category"] | None = None
    max: NonNegative | None = None
    per: Literal["category", "brand", "seller"] | None = None
    strength: Annotated[Finite, Field(gt=0, le=1)] | None = None

    @property
    def selectors(self) -> list[str]:
        """The selectors that are given."""
        return [name for name in SELECTORS if getattr(self, name) is not None]

    def concerns(self, kind: str) -> bool:
        """Whether the rule is for lists of this kind."""
        return self.lists is None or kind in self.lists

    @property
    def span_ms(self) -> tuple[float, float]:
        """When the rule is in force: from the first time (included) to the second one."""
        starts_ms = -math.inf if self.starts is None else self.starts.timestamp() * 1000
        return starts_ms, math.inf if self.ends is None else self.ends.timestamp() * 1000

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if mistake := next(self._find_mistakes(), None):
            raise ValueError(mistake)
        return self

    def _find_mistakes(self) -> Iterator[str]:
        for field, actions in FIELDS.items():
            if getattr(self, field) is not None and self.action not in actions:
                yield f"should have `{field}` only in a `{'` or `'.join(actions)}`, not in a `{self.action}`"
        for field in NEEDED.get(self.action, ()):
            if getattr(self, field) is None:
                yield f"should have `{field}`, which a `{self.action}` needs"
        selectors = self.selectors
        if self.action in NEED_SELECTOR and not selectors:
            yield f"should say which items it is about, by one of {', '.join(SELECTORS)}"
        if self.action == "pin" and selectors != ["items"]:
            yield "should name what it pins by `items` alone"
        if self.action == "cap" and self.per is None and not selectors:
            yield "should have a `per`, or say which items it is about"
        if self.action == "diversify" and selectors:
            yield "should be about all items of a list"
        if self.starts and self.ends and self.starts >= self.ends:
            yield "should start before it ends"


class ListRuleFile(Section):
    """The whole file. It has `rules` even if there are none: an empty file may be one that is being written."""

    rules: Annotated[tuple[ListRule, ...], Field(max_length=RULES_MAX)]


def read_list_rules(path: Path, features: FeatureSet) -> tuple[ListRule, ...]:
    """The rules of a file in their order; raises `BadConfig` with every error."""
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadConfig([f"`lists.rules` should be a file that can be read. Found: {error}."]) from error
    return parse_list_rules(content, path, features)


def parse_list_rules(content: bytes, path: Path, features: FeatureSet) -> tuple[ListRule, ...]:
    """The rules in the content of a file; raises `BadConfig` with every error."""
    if len(content) > FILE_BYTES_MAX:
        raise BadConfig([f"{path} should have at most {FILE_BYTES_MAX} bytes. Found more."])
    try:
        tables = tomllib.loads(content.decode("utf-8-sig"))  # some editors begin with a byte order mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadConfig([f"{path} should be TOML. Found: {error}"]) from error
    try:
        rules = ListRuleFile.model_validate(tables).rules
    except ValidationError as error:
        raise BadConfig([f"{path}: {sentence}" for sentence in describe_rule_errors(error, tables)]) from error
    if mistakes := [f"{path}: {mistake}" for mistake in find_rule_mistakes(rules, features)]:
        raise BadConfig(mistakes)
    return rules


def describe_rule_errors(error: ValidationError, tables: dict[str, Any]) -> Iterator[str]:
    """Each invalid value as a sentence that names its rule."""
    rules = tables.get("rules")
    for details, sentence in zip(error.errors(), describe_errors(error, ListRuleFile), strict=True):
        number = details["loc"][1] if len(details["loc"]) > 1 else None
        rule = rules[number] if isinstance(number, int) and isinstance(rules, list) else None
        name = rule.get("name") if isinstance(rule, dict) else None
        yield f"rule `{name}`: {sentence}" if isinstance(name, str) else sentence


def find_rule_mistakes(rules: Iterable[ListRule], features: FeatureSet) -> Iterator[str]:
    """Names used twice, and selectors of features that products do not have, or have of another kind."""
    names = set[str]()
    for rule in rules:
        if rule.name in names:
            yield f"rules should have names of their own. Found `{rule.name}` twice."
        names.add(rule.name)
        for feature, wanted in (rule.features or {}).items():
            kind = "number" if wanted.equals is None else "category"
            known = [f.name for f in features.features if f.group == "item" and f.kind == kind]
            if feature not in known:
                nearest = describe_nearest(feature, known)
                yield (
                    f"rule `{rule.name}`: `features.{feature}` should be a declared {kind} of the group item. "
                    f"Found none{nearest}."
                )


def digest_file(path: Path) -> str:
    """A digest of the content by which processes compare what they use; empty for a file that cannot be read."""
    try:
        return digest_content(path.read_bytes())
    except OSError:
        return ""


def digest_content(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGEST_DIGITS]
