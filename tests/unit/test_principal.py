"""Who is asking, as the gateway tells the other services."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import jwt
import pytest

from shared.errors import Unauthorized
from shared.security.principal import LIFETIME_S, Kind, Principal, PrincipalSigner

SECRET = bytes(range(32))
SESSION = Principal(Kind.SESSION, "acc-1", None, "session-1")
KEY = Principal(Kind.API_KEY, "acc-1", "wks-1", "key-1")
NOW = 1_714_636_800_000


class Hand:
    """A clock that shows what it is set to."""

    def __init__(self, ms: int = NOW) -> None:
        self.at = ms

    def ms(self) -> int:
        return self.at

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.at / 1000, UTC)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def signer(clock: Hand) -> PrincipalSigner:
    return PrincipalSigner(SECRET, clock)


def is_refused(signer: PrincipalSigner, token: str) -> bool:
    try:
        signer.verify(token)
    except Unauthorized:
        return True
    return False


def claims(**changes: Any) -> dict[str, Any]:
    """As the gateway makes them, but for `changes`; None leaves one out."""
    whole = {"iss": "zdm-gateway", "exp": NOW // 1000 + 60, "kind": "session", "account": "acc-1"}
    whole |= {"workspace": None, "credential": "session-1", **changes}
    return {name: value for name, value in whole.items() if value is not None or name == "workspace"}


@pytest.mark.parametrize("principal", [SESSION, KEY, Principal.nobody(), Principal(Kind.SESSION, "acc-é😀")])
def test_what_is_signed_is_verified(signer: PrincipalSigner, principal: Principal) -> None:
    assert signer.verify(signer.sign(principal)) == principal


def test_a_token_of_another_process_with_the_same_secret_is_believed(signer: PrincipalSigner) -> None:
    assert PrincipalSigner(SECRET, Hand()).verify(signer.sign(KEY)) == KEY
    assert signer.verify(jwt.encode(claims(), SECRET, algorithm="HS256")) == SESSION


def test_it_is_believed_for_its_lifetime_by_the_clock_and_no_longer(signer: PrincipalSigner, clock: Hand) -> None:
    token = signer.sign(SESSION)
    clock.at += LIFETIME_S * 1000 - 1
    assert signer.verify(token) == SESSION
    clock.at += 1
    assert is_refused(signer, token)


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "someone"},
        {"iss": None},
        {"exp": None},
        {"exp": "never"},
        {"exp": [1]},
        {"exp": NOW // 1000},
        {"exp": 0},
        {"kind": "root"},
        {"kind": []},
        {"kind": None},
        {"account": None},
        {"credential": None},
    ],
)
def test_tokens_that_the_gateway_would_not_make_are_refused(signer: PrincipalSigner, changes: dict[str, Any]) -> None:
    assert is_refused(signer, jwt.encode(claims(**changes), SECRET, algorithm="HS256"))


def test_tokens_signed_otherwise_are_refused(signer: PrincipalSigner) -> None:
    assert is_refused(signer, jwt.encode(claims(), bytes(32), algorithm="HS256"))
    assert is_refused(signer, jwt.encode(claims(), SECRET * 2, algorithm="HS512"))
    assert is_refused(signer, jwt.encode(claims(), "", algorithm="none"))
    for algorithm in ("none", "None", "NONE", "HS512", "RS256"):
        _, body, signature = signer.sign(SESSION).split(".")
        header = encoded({"alg": algorithm, "typ": "JWT"})
        assert is_refused(signer, f"{header}.{body}.{signature}")
        assert is_refused(signer, f"{header}.{body}.")


def test_a_token_that_was_tampered_with_is_refused(signer: PrincipalSigner) -> None:
    header, _, signature = signer.sign(KEY).split(".")
    other = encoded(claims(account="acc-2"))
    assert is_refused(signer, f"{header}.{other}.{signature}")
    token = signer.sign(KEY)
    for place in range(0, len(token), 7):
        spoilt = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
        assert is_refused(signer, spoilt), place


@pytest.mark.parametrize("token", ["", ".", "..", "a.b.c", "é", "\0", "x" * 10_000, "e30.e30.", "bnVsbA.bnVsbA.AA"])
def test_what_is_no_token_is_refused(signer: PrincipalSigner, token: str) -> None:
    assert is_refused(signer, token)


def test_the_refusal_tells_nothing_of_the_secret(signer: PrincipalSigner) -> None:
    with pytest.raises(Unauthorized) as caught:
        signer.verify("a.b.c")
    assert SECRET.hex() not in repr(caught.value)
    assert caught.value.message == "The principal's token is not valid"


@pytest.mark.parametrize(
    ("principal", "account", "workspace", "owns"),
    [
        (SESSION, "acc-1", "wks-1", True),
        (SESSION, "acc-1", "wks-2", True),
        (SESSION, "acc-2", "wks-1", False),
        (KEY, "acc-1", "wks-1", True),
        (KEY, "acc-1", "wks-2", False),
        (KEY, "acc-2", "wks-1", False),
        (Principal(Kind.API_KEY, "acc-1", ""), "acc-1", "wks-1", False),
        (Principal.nobody(), "", "", False),
        (Principal(Kind.NOBODY, "acc-1"), "acc-1", "wks-1", False),
    ],
)
def test_the_tenant_rule(principal: Principal, account: str, workspace: str, owns: bool) -> None:
    assert principal.owns(account, workspace) is owns


def encoded(part: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
