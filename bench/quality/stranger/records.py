"""The records of a stranger's shop, and what its owner writes into the settings after docs/tutorial.md."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

from bench.quality.stranger.orders import CHANNELS, LABEL_DELAY_MS, PAYMENTS, SHIPPINGS, OrderTable

ORDERS, OUTCOMES = "stranger.purchases", "stranger.cases"
ZONE: Final = timezone(timedelta(hours=1))

SETTINGS: Final = f"""
[topics]
orders = "{ORDERS}"
labels = "{OUTCOMES}"

[map.purchases]
topics = "{ORDERS}"
kind = "orders"

[map.purchases.fields]
event_id = "head.reference"
ts_ms = {{ path = "head.received", unit = "iso" }}
user_id = "party.number"
amount = {{ path = "sums.gross", unit = "minor" }}
currency = "sums.unit"
payment_method = "sums.means"
device_id = "machine.print"
account_created_ms = {{ path = "party.member_since", unit = "iso" }}

[map.purchases.fields.lines]
item_id = "goods[].article"
quantity = "goods[].count"
unit_price = {{ path = "goods[].each", unit = "minor" }}

[map.purchases.fields.attributes]
channel = "head.channel"
store = "head.store"
shipping = "dispatch.mode"
new_address = "dispatch.first_time"
domain = "party.mail_host"
visit_s = "machine.visit_seconds"
attempts = "machine.attempts"
voucher = "sums.voucher"

[map.cases]
topics = "{OUTCOMES}"
kind = "labels"

[map.cases.fields]
event_id = "case"
ts_ms = {{ path = "closed", unit = "iso" }}
user_id = "party"
judged_event_id = "reference"
task = {{ constant = "fraud" }}
value = {{ path = "verdict", table = {{ FRAUD = 1, FINE = 0 }} }}

[entities.store]
source = "event.attributes.store"

[entities.domain]
source = "event.attributes.domain"
ignore_case = true
"""
OWN_FEATURES: Final = {  # name: kind and source
    **{name: ("category", f"event.attributes.{name}") for name in ("channel", "store", "shipping", "domain")},
    **{name: ("number", f"event.attributes.{name}") for name in ("new_address", "visit_s", "attempts", "voucher")},
    **{f"{kind}_orders_1d": ("number", f"profile.{kind}.orders.count_1d") for kind in ("store", "domain")},
    **{f"{kind}_frauds": ("number", f"profile.{kind}.fraud.bad") for kind in ("store", "domain")},
}


def describe_features() -> str:
    """The tables that the owner appends to `features.toml`."""
    return "".join(
        f'\n[[features]]\nname = "{name}"\ngroup = "order"\nkind = "{kind}"\nsource = "{source}"\n'
        for name, (kind, source) in OWN_FEATURES.items()
    )


def count_settings() -> int:
    """The number of values that the owner writes into both files."""
    return sum(" = " in line for line in (SETTINGS + describe_features()).splitlines())


def make_order(table: OrderTable, row: int) -> dict[str, Any]:
    fields = {name: column[row].item() for name, column in table.columns.items()}
    each = fields["cents"] // fields["pieces"]
    return {
        "head": {
            "reference": f"P-{row:06}",
            "received": datetime.fromtimestamp(table.ts_ms[row] / 1000, ZONE).isoformat(timespec="milliseconds"),
            "channel": CHANNELS[fields["channel"]],
            "store": f"S{fields['store']:03}",
        },
        "party": {
            "number": f"C{table.customer[row]}",
            "mail_host": f"mail{fields['domain']}.example",
            "member_since": datetime.fromtimestamp(table.since_ms[row] / 1000, UTC).isoformat(timespec="seconds"),
        },
        "machine": {
            "print": f"{table.device[row]:08x}-d",
            "visit_seconds": fields["visit_s"],
            "attempts": fields["attempts"],
        },
        "dispatch": {"mode": SHIPPINGS[fields["shipping"]], "first_time": fields["new_address"]},
        "sums": {
            "gross": fields["cents"],
            "unit": "EUR",
            "means": PAYMENTS[fields["payment"]],
            "voucher": fields["voucher"],
        },
        "goods": [{"article": f"A{fields['cents'] % 997}", "count": fields["pieces"], "each": each}],
    }


def make_outcome(table: OrderTable, row: int) -> dict[str, Any]:
    closed = datetime.fromtimestamp((table.ts_ms[row] + LABEL_DELAY_MS) / 1000, UTC)
    return {
        "case": f"F-{row:06}",
        "closed": closed.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "reference": f"P-{row:06}",
        "party": f"C{table.customer[row]}",
        "verdict": "FRAUD" if table.bad[row] else "FINE",
    }
