"""[intake]: how the values of records are read where they are not in the form that docs/events.md names."""

from functools import cached_property
from ipaddress import ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from contract.events.times import ANY_ZONE, TIME_UNITS, is_time_unit
from contract.settings.section import Section

KindName = Literal["clicks", "impressions", "orders", "reviews", "searches", "products", "labels", "erasures"]
MoneyUnit = Literal["units", "minor"]


def check_network(network: str) -> str:
    try:
        ip_network(network)
    except ValueError as error:
        raise ValueError(f"should be a network such as 10.0.0.0/8: {error}") from error
    return network


def check_time_unit(unit: str) -> str:
    if not is_time_unit(unit):
        raise ValueError(f"should be one of {', '.join((*TIME_UNITS, ANY_ZONE))}")
    return unit


TimeUnit = Annotated[str, AfterValidator(check_time_unit)]
Network = Annotated[str, AfterValidator(check_network)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class IntakeSettings(Section):
    """What is taken as absent, and in which units times and money are given.

    `placeholders`: texts that stand for no id, whatever their case and the spaces around them. `private_networks`:
    addresses in them are those of proxies and machines, not of users. `times`: the unit of times by kind of record;
    `iso` is ISO 8601, UTC if it names no zone, and the name of a zone is ISO 8601 in that zone. `doubtful_times`: what
    to do with a time that looks like another unit than declared. `money`: by kind, whether amounts are in the
    currency's own unit or its minor one (cents). `rates`: what a unit of each currency is worth in the shop's; without
    any, amounts stay as they are.
    """

    placeholders: tuple[str, ...] = (
        "",
        "-",
        "--",
        "?",
        "{}",
        "[]",
        '""',
        "''",
        "0",
        "-1",
        "null",
        "(null)",
        "nil",
        "none",
        "(none)",
        "undefined",
        "nan",
        "n/a",
        "#n/a",
        "na",
        "\\n",  # what databases write of a null into files
        "<null>",
        "<nil>",
        "<none>",
        "unset",
        "not set",
        "not_set",
        "(not set)",
        "unknown",
        "guest",
        "anonymous",
        "anon",
        "anonymous user",
        "anonymous-user",
        "anonymous_user",
        "guest user",
        "guest-user",
        "guest_user",
        "deleted",
        "false",
        "true",
        '"null"',
        "[object object]",
        "(unknown)",
        "(undefined)",
        "[null]",
        "\0",
        "\u200b",  # characters without a glyph
        "\ufeff",
        "00000000-0000-0000-0000-000000000000",
        "urn:uuid:00000000-0000-0000-0000-000000000000",
        "{00000000-0000-0000-0000-000000000000}",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "{ffffffff-ffff-ffff-ffff-ffffffffffff}",
        "00",
        "000",
        "0000",
        "00000000",
        "000000000000",
        "000000000000000",  # the number of a telephone without one
        "0000000000000000",
        "00000000000000000000000000000000",
        "00:00:00:00:00:00",  # addresses of a network card that systems give instead of the true one
        "00-00-00-00-00-00",
        "02:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "9774d56d682e549c",  # what one release of Android gave to every device
    )
    private_networks: tuple[Network, ...] = (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "224.0.0.0/3",
        "::/127",
        "fc00::/7",
        "fe80::/10",
        "ff00::/8",
    )
    times: dict[KindName, TimeUnit] = Field(default={})
    doubtful_times: Literal["accept", "refuse"] = "accept"
    money: dict[KindName, MoneyUnit] = Field(default={})
    rates: dict[str, Rate] = Field(default={})

    @cached_property
    def folded_placeholders(self) -> frozenset[str]:
        """The placeholders as ids are compared with them."""
        return frozenset(text.strip().lower() for text in self.placeholders)

    def time_unit(self, kind: str) -> str:
        """The declared unit of the times of a kind."""
        return {str(name): unit for name, unit in self.times.items()}.get(kind, "ms")

    def is_minor(self, kind: str) -> bool:
        """Whether amounts of a kind are in their currency's minor unit."""
        return {str(name): unit for name, unit in self.money.items()}.get(kind) == "minor"
