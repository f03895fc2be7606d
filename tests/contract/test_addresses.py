"""Addresses: those in their plain form are read in a shorter way, which gives the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contract.events.addresses import AddressReader
from contract.settings.intake import IntakeSettings

READER = AddressReader(IntakeSettings().private_networks)


@given(address=st.ip_addresses(v=4).map(str))
def test_a_plain_address_is_read_as_one_with_a_port(address: str) -> None:
    assert READER.read(address) == READER.read(f"{address}:443")


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "01.2.3.4", "1.2.3.4\0", "1.2.3.256", "\ud800", "١.2.3.4", "1.2.3.4.5", "0x1.2.3.4"]
)
def test_what_is_no_address_is_none(text: str) -> None:
    assert READER.read(text) is None


@given(text=st.from_regex(r"[ 0-9a-fx.:%,]{1,20}", fullmatch=True))
def test_whatever_is_read_is_read_as_itself(text: str) -> None:
    address = READER.read(text)
    assert address is None or READER.read(address) == address
