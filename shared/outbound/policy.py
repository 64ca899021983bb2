"""Which addresses this installation may call on behalf of its users.

Refused unless allowed: this machine itself, link-local addresses, and where clouds keep their metadata; in every
spelling and in every form in which IPv6 embeds IPv4. Private networks are allowed: receivers on premises live there.
"""

import re
import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from prometheus_client import Counter
from yarl import URL

from shared.errors import Refused
from shared.settings import IPNetwork

_SCHEMES = ("http", "https")
# Parsers disagree on what these mean or drop them silently; no URL needs them.
_AMBIGUOUS = re.compile(r"[\s\x00-\x1f\x7f\\]")
_NAME = re.compile(r"[A-Za-z0-9._-]+")

# Networks whose last 32 bits are an IPv4 address: compatible, translated (SIIT), NAT64 well-known and local.
_EMBEDDING = tuple(IPv6Network(text) for text in ("::/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"))
# Within the compatible ones, yet of a meaning of their own.
_PLAIN = (IPv6Address("::"), IPv6Address("::1"))

_REFUSALS = Counter("zdm_outbound_refused_total", "Addresses that the policy refused to call", ["reason"])

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
                _REFUSALS.labels(reason).inc()
                raise AddressRefused(f"{address}: addresses of this kind are not called ({reason})", reason)

    def check_url(self, url: str, field: str) -> None:
        """Raise `Refused`, naming `field`, for a URL that can never be called; names are checked when connecting."""
        literal = _literal(_host(url, field))
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


def _host(url: str, field: str) -> str:
    """The host as the HTTP client will read it: the client's own parser says, so that no two readings can differ."""
    if _AMBIGUOUS.search(url):
        raise Refused(f"{field}: a URL holds no blanks, control characters or backslashes", field=field)
    try:
        parsed = URL(url)
        names_a_user = "@" in urlsplit(url).netloc
    except ValueError as error:
        raise Refused(f"{field}: {error}", field=field) from error
    host = parsed.raw_host or ""
    if parsed.scheme not in _SCHEMES or parsed.port == 0 or not (":" in host or _NAME.fullmatch(host)):
        raise Refused(f"{field}: must be an http or https URL with a host", field=field)
    if names_a_user:
        raise Refused(f"{field}: a URL with a user name in it is not called", field=field)
    return host


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
    if address not in _PLAIN and _within(address, _EMBEDDING):
        yield IPv4Address(int(address) & 0xFFFFFFFF)


def _within(address: IPv4Address | IPv6Address, networks: tuple[IPNetwork, ...]) -> bool:
    return any(_is_in(address, network) for network in networks)


def _is_in(address: IPv4Address | IPv6Address, network: IPv4Network | IPv6Network) -> bool:
    return address.version == network.version and address in network
