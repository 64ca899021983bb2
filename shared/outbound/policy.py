"""Which addresses this installation may call on behalf of its users.

Refused unless allowed: this machine itself, link-local addresses, and where clouds keep their metadata; in every
spelling and in every form in which IPv6 embeds IPv4. Private networks are allowed: receivers on premises live there.
"""

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from shared.errors import Refused
from shared.settings import IPNetwork

_SCHEMES = ("http", "https")
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")

_REFUSED: tuple[tuple[IPNetwork, str], ...] = tuple(
    (ip_network(network), reason)
    for network, reason in (
        ("100.100.100.200/32", "cloud_metadata"),
        ("168.63.129.16/32", "cloud_metadata"),
        ("169.254.169.254/32", "cloud_metadata"),
        ("192.0.0.192/32", "cloud_metadata"),
        ("fd00:ec2::254/128", "cloud_metadata"),
        ("fd20:ce::254/128", "cloud_metadata"),
        ("127.0.0.0/8", "loopback"),
        ("::1/128", "loopback"),
        ("0.0.0.0/8", "unspecified"),
        ("::/128", "unspecified"),
        ("169.254.0.0/16", "link_local"),
        ("fe80::/10", "link_local"),
        ("224.0.0.0/4", "multicast"),
        ("ff00::/8", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)


class AddressRefused(Refused):
    """The address is one that this installation does not call; `reason` is a fixed word."""

    code = "address_refused"

    def __init__(self, message: str, reason: str, *, field: str | None = None) -> None:
        super().__init__(message, field=field)
        self.reason = reason


class OutboundPolicy:
    """`deny` beats `allow`, which beats the defaults."""

    def __init__(self, allow: tuple[IPNetwork, ...] = (), deny: tuple[IPNetwork, ...] = ()) -> None:
        self._allow = allow
        self._deny = deny

    def check(self, address: str) -> None:
        """Raise `AddressRefused` for an IP address that may not be called."""
        parsed = ip_address(address.split("%", 1)[0])
        for one in (parsed, *_embedded(parsed)):
            if (reason := self._refusal(one)) is not None:
                raise AddressRefused(f"{address}: addresses of this kind are not called ({reason})", reason)

    def check_url(self, url: str, field: str) -> None:
        """Raise `Refused`, naming `field`, for a URL that can never be called; names are checked when connecting."""
        parts = _split(url, field)
        literal = _literal(parts.hostname or "")
        if literal is None:
            return
        try:
            self.check(literal)
        except AddressRefused as refusal:
            raise AddressRefused(f"{field}: {refusal.message}", refusal.reason, field=field) from None

    def _refusal(self, address: IPv4Address | IPv6Address) -> str | None:
        if _within(address, self._deny):
            return "denied"
        if _within(address, self._allow):
            return None
        return next((reason for network, reason in _REFUSED if _is_in(address, network)), None)


def _split(url: str, field: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        port_is_valid = parts.port is None or parts.port > 0
    except ValueError as error:
        raise Refused(f"{field}: {error}", field=field) from error
    if parts.scheme not in _SCHEMES or not parts.hostname or not port_is_valid:
        raise Refused(f"{field}: must be an http or https URL with a host", field=field)
    if parts.username is not None or parts.password is not None:
        raise Refused(f"{field}: a URL with a user name in it is not called", field=field)
    return parts


def _literal(host: str) -> str | None:
    """The IP address that `host` spells, also in the forms that resolvers take for one: 0x7f.1, 2130706433, 127.1."""
    host = host.rstrip(".").split("%", 1)[0]
    try:
        return str(ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError, ValueError):
        return None


def _embedded(address: IPv4Address | IPv6Address) -> Iterator[IPv4Address]:
    """IPv4 addresses that an IPv6 one leads to."""
    if isinstance(address, IPv4Address):
        return
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo
    if address in _NAT64 or address in _COMPATIBLE:
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _within(address: IPv4Address | IPv6Address, networks: tuple[IPNetwork, ...]) -> bool:
    return any(_is_in(address, network) for network in networks)


def _is_in(address: IPv4Address | IPv6Address, network: IPv4Network | IPv6Network) -> bool:
    return address.version == network.version and address in network
