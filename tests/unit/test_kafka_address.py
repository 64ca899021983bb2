"""What an address of Kafka may say, and where its keys lie."""

import pytest

from shared.log.kafka.address import parse
from shared.log.kafka.appending import partition_of
from shared.settings import WrongSetting


def test_hosts_have_ports() -> None:
    assert parse("kafka://one").servers == ("one:9092",)
    assert parse("kafka://one:1,two.example.org:2,[::1]:3/").servers == ("one:1", "two.example.org:2", "[::1]:3")


def test_without_more_nothing_is_encrypted() -> None:
    assert parse("kafka://one").options == {"security_protocol": "PLAINTEXT"}


def test_tls_and_credentials_go_to_the_driver() -> None:
    options = parse("kafka://us%40er:s%3Acr%2Fe:t@one:9093?tls=true&sasl=SCRAM-SHA-512").options
    assert options.pop("ssl_context").check_hostname
    assert options == {
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "us@er",
        "sasl_plain_password": "s:cr/e:t",
    }
    assert parse("kafka://a:b@one").options["security_protocol"] == "SASL_PLAINTEXT"
    assert parse("kafka://one?tls=true").options["security_protocol"] == "SSL"


@pytest.mark.parametrize(
    "rest",
    [
        "@",
        "@one:port",
        "@one:0",
        "@one:65536",
        "@one,,two",
        "@one/topic",
        "@one#part",
        "@o ne",
        "@one?tls=yes",
        "@one?ssl=true",
        "@one?sasl=GSSAPI",
        "@one?tls=true&ca=/no/such/file",
    ],
)
def test_what_makes_no_sense_stops_the_start_and_the_secret_stays_one(rest: str) -> None:
    with pytest.raises(WrongSetting) as wrong:
        parse(f"kafka://user:hushhush{rest}")
    assert str(wrong.value).startswith("ZDM_LOG: in an address of Kafka, ")
    assert "hush" not in str(wrong.value)


# From the tests of Kafka's own clients.
@pytest.mark.parametrize(
    ("key", "hashed"),
    [
        ("21", -973932308),
        ("foobar", -790332482),
        ("a-little-bit-long-string", -985981536),
        ("a-little-bit-longer-string", -1486304829),
    ],
)
def test_keys_lie_where_the_other_clients_of_kafka_look_for_them(key: str, hashed: int) -> None:
    assert [partition_of(key, count) for count in (1, 6, 100)] == [(hashed & 0x7FFFFFFF) % n for n in (1, 6, 100)]
