"""Internet addresses: one spelling for each, and the entity that an address belongs to."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from socket import AF_INET, inet_pton
from typing import Final

CACHED: Final = 65_536  # addresses recur
TEXT_MAX: Final = 512  # of a list of addresses; longer text is not read
SEPARATOR: Final = re.compile(r"\s*,\s*|\s+")
MASK: Final = 2**32 - 1
# The prefixes of 96 bits before an IPv4 address: compatible, mapped, translated (RFC 7915), and that of NAT64.
EMBEDDING: Final = frozenset(int(IPv6Address(prefix)) for prefix in ("::", "::ffff:0:0", "::ffff:0:0:0", "64:ff9b::"))
PREFIX_BITS: Final = 64  # of an IPv6 address: a subscriber has all addresses of such a network

Address = IPv4Address | IPv6Address


class AddressReader:
    """Reads the address of a user; what lies in one of the private networks is none."""

    def __init__(self, private_networks: Iterable[str]) -> None:
        networks = [ip_network(network) for network in private_networks]
        self._private = {version: merge_ranges([n for n in networks if n.version == version]) for version in (4, 6)}
        self.read = lru_cache(maxsize=CACHED)(self._read)

    def _read(self, text: str) -> str | None:
        """The first public address of a list, without port and zone; None where there is none.

        An IPv4 address that is written as IPv6 is read as IPv4.
        """
        if (packed := pack_ipv4(text)) is not None:
            return None if self._is_private(4, int.from_bytes(packed, "big")) else text
        for part in SEPARATOR.split(text[:TEXT_MAX].strip()):
            address = parse_address(part)
            if address is not None and not self._is_private(address.version, int(address)):
                return str(address)
        return None

    def _is_private(self, version: int, number: int) -> bool:
        firsts, lasts = self._private[version]
        position = bisect_right(firsts, number) - 1
        return position >= 0 and number <= lasts[position]


@lru_cache(maxsize=16)
def make_address_reader(private_networks: tuple[str, ...]) -> AddressReader:
    """The reader of these settings; all kinds of events share it and its cache."""
    return AddressReader(private_networks)


def merge_ranges(networks: Sequence[object]) -> tuple[list[int], list[int]]:
    """The first and the last address of each network as numbers, ascending and without overlaps."""
    firsts, lasts = list[int](), list[int]()
    ranges = sorted((int(n.network_address), int(n.broadcast_address)) for n in networks)  # type: ignore[attr-defined]
    for first, last in ranges:
        if lasts and first <= lasts[-1]:
            lasts[-1] = max(lasts[-1], last)
        else:
            firsts.append(first)
            lasts.append(last)
    return firsts, lasts


def pack_ipv4(text: str) -> bytes | None:
    """The four bytes of an IPv4 address in its one plain form, as most are; a tenth of the time of `ip_address`."""
    try:
        return inet_pton(AF_INET, text)
    except (OSError, ValueError):
        return None


def parse_address(text: str) -> Address | None:
    """The address of `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]:80`, `fe80::1%eth0`, `for="..."`."""
    elements = text.strip().lower().split(";")  # of a header `Forwarded`, in any order
    host = next((element for element in elements if element.lstrip().startswith("for=")), elements[0])
    host = host.strip().removeprefix("for=").strip('" ')
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return find_embedded(address) or address if isinstance(address, IPv6Address) else address


def find_embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that is written as IPv6, or that a translator gave an address of IPv6."""
    number = int(address)
    is_embedded = number & ~MASK in EMBEDDING and address not in (IPv6Address("::"), IPv6Address("::1"))
    return IPv4Address(number & MASK) if is_embedded else None


def to_address_entity(address: str) -> str:
    """The id of the entity that an address belongs to: itself, or its /64 network for IPv6."""
    return address if ":" not in address else find_network(address)


@lru_cache(maxsize=CACHED)
def find_network(address: str) -> str:
    return str(ip_network((address, PREFIX_BITS), strict=False))
