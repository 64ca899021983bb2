"""Which addresses are called: every spelling of those that are not."""

from ipaddress import ip_network

import pytest
from prometheus_client import REGISTRY as PROMETHEUS

from shared.errors import Refused
from shared.outbound.policy import AddressRefused, OutboundPolicy

DEFAULT = OutboundPolicy()


def policy(allow: str = "", deny: str = "") -> OutboundPolicy:
    def networks(text: str) -> tuple[object, ...]:
        return tuple(ip_network(one) for one in text.split())

    return OutboundPolicy(networks(allow), networks(deny))  # type: ignore[arg-type]


def refusals(reason: str) -> float:
    return PROMETHEUS.get_sample_value("zdm_outbound_refused_total", {"reason": reason}) or 0


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1", "loopback"),
        ("127.255.255.254", "loopback"),
        ("::1", "loopback"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("169.254.0.1", "link_local"),
        ("169.254.169.254", "cloud_metadata"),
        ("100.100.100.200", "cloud_metadata"),
        ("168.63.129.16", "cloud_metadata"),
        ("fd00:ec2::254", "cloud_metadata"),
        ("fe80::1", "link_local"),
        ("fe80::1%eth0", "link_local"),
        ("febf::1%3", "link_local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("::ffff:127.0.0.1", "loopback"),  # mapped
        ("::ffff:a9fe:a9fe", "cloud_metadata"),
        ("::127.0.0.1", "loopback"),  # compatible
        ("::ffff:0:127.0.0.1", "loopback"),  # translated
        ("2002:7f00:1::", "loopback"),  # 6to4
        ("2002:a9fe:a9fe::1", "cloud_metadata"),
        ("2001:0:7f00:1::", "loopback"),  # Teredo, server
        ("2001:0:4136:e378:8000:63bf:80ff:fffe", "loopback"),  # Teredo, client
        ("64:ff9b::7f00:1", "loopback"),  # NAT64
        ("64:ff9b::169.254.169.254", "cloud_metadata"),
        ("64:ff9b:1::127.0.0.1", "loopback"),  # NAT64 of the site
    ],
)
def test_an_address_of_a_refused_kind_is_refused_for_its_reason_and_counted(address: str, reason: str) -> None:
    before = refusals(reason)
    with pytest.raises(AddressRefused) as caught:
        DEFAULT.check(address)
    assert caught.value.reason == reason
    assert refusals(reason) == before + 1


@pytest.mark.parametrize(
    "address",
    [
        "192.0.2.1",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "fd00::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "128.0.0.1",
        "169.253.255.255",
    ],
)
def test_public_and_private_addresses_are_called(address: str) -> None:
    DEFAULT.check(address)


def test_what_is_allowed_is_called_and_nothing_beside_it() -> None:
    allowing = policy(allow="127.0.0.2/32 ::1/128")
    allowing.check("127.0.0.2")
    allowing.check("::1")
    allowing.check("::ffff:127.0.0.2")
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "::", "169.254.169.254"):
        with pytest.raises(AddressRefused):
            allowing.check(address)


@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "2002:a01:203::", "64:ff9b::10.1.2.3"])
def test_deny_beats_allow_in_every_form(address: str) -> None:
    both = policy(allow="10.0.0.0/8", deny="10.1.0.0/16")
    both.check("10.2.0.0")
    with pytest.raises(AddressRefused, match="denied"):
        both.check(address)


def test_an_allowed_ipv6_network_does_not_let_the_refused_ipv4_addresses_in_it_through() -> None:
    with pytest.raises(AddressRefused):
        policy(allow="2002::/16").check("2002:7f00:1::")


LOOPBACK_SPELLINGS = [
    "http://127.0.0.1/",
    "HTTPS://127.0.0.1",
    "http://127.0.0.1:8080/hook?x=1#y",
    "http://127.1/",
    "http://127.0.1",
    "http://2130706433/",
    "http://0x7f000001/",
    "http://0X7F.0.0.0X1/",
    "http://0x7f.1/",
    "http://017700000001/",
    "http://0177.0.0.01/",
    "http://127.0.0.1./",
    "http://127.1.../",
    "http://\uff11\uff12\uff17.\uff10.\uff10.\uff11/",
    "http://\u2460\u2461\u2466.0.0.1/",
    "http://127\u30020\u30020\u30021/",
    "http://127\uff0e0\uff0e0\uff0e1/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]:80/",
    "http://[::FFFF:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::127.0.0.1]/",
    "http://[2002:7F00:0001::]/",
    "http://[64:ff9b::7f00:1]/",
    "http://127.0.0.1#@192.0.2.1/",
    "http://127.0.0.1?@192.0.2.1/",
]


@pytest.mark.parametrize("url", LOOPBACK_SPELLINGS)
def test_every_spelling_of_this_machine_is_refused_naming_the_field(url: str) -> None:
    with pytest.raises(AddressRefused) as caught:
        DEFAULT.check_url(url, "x.url")
    assert (caught.value.reason, caught.value.field, caught.value.code) == ("loopback", "x.url", "address_refused")
    policy(allow="127.0.0.0/8 ::1/128").check_url(url, "x.url")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://0/", "unspecified"),
        ("http://0.0.0.0/", "unspecified"),
        ("http://[::]/", "unspecified"),
        ("http://2852039166/", "cloud_metadata"),
        ("http://0xA9FEA9FE/latest/meta-data", "cloud_metadata"),
        ("http://[fe80::1%25eth0]/", "link_local"),
        ("http://[fe80::1%eth0]/", "link_local"),
    ],
)
def test_other_refused_addresses_are_known_by_their_spelling_too(url: str, reason: str) -> None:
    with pytest.raises(AddressRefused) as caught:
        DEFAULT.check_url(url, "url")
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hook",
        "//192.0.2.1/",
        "ftp://192.0.2.1/",
        "file:///etc/passwd",
        "gopher://192.0.2.1/",
        "javascript:alert(1)",
        "unix:///run/x.sock",
        "http://",
        "http:///x",
        "http:192.0.2.1",
        "http:/192.0.2.1",
        "http:\\\\192.0.2.1/",
        "http://192.0.2.1\\@127.0.0.1/",
        "http://good\\@127.0.0.1/",
        "http://good@127.0.0.1/",
        "http://good:secret@192.0.2.1/",
        "http://@192.0.2.1/",
        "http://:@192.0.2.1/",
        "http://a&@b#@c/",
        "http://127.0.0.1\n/",
        "http://192.0.2.1/a\r\nX: y",
        "http://192.0.\t2.1/",
        " http://192.0.2.1/",
        "http://192.0.2.1/\x00",
        "http://a b/",
        "http://%31%32%37.0.0.1/",
        "http://127.0.0.1%00.example.org/",
        "http://192.0.2.1:0/",
        "http://192.0.2.1:65536/",
        "http://192.0.2.1:-1/",
        "http://192.0.2.1:80:80/",
        "http://192.0.2.1:x/",
        "http://[::1",
        "http://[127.0.0.1]/",
        "http://[::1]x/",
    ],
)
def test_what_can_never_be_called_is_refused_naming_the_field(url: str) -> None:
    with pytest.raises(Refused) as caught:
        DEFAULT.check_url(url, "x.url")
    assert caught.value.field == "x.url"


@pytest.mark.parametrize(
    "url",
    [
        "http://192.0.2.1",
        "https://example.org:8443/hook?a=b%20c#d",
        "http://receiver_1:8080/zdm/data",
        "https://bücher.example/",
        "http://[2001:db8::1]:80/",
        "http://example.org./",
        # A name that leads to a refused address is known only when it is looked up.
        "http://localhost/",
        "http://example.org/@127.0.0.1",
    ],
)
def test_urls_that_may_be_called_pass(url: str) -> None:
    DEFAULT.check_url(url, "url")
