"""Secrets are made once, whoever comes first, and only their owner can read them."""

import os
import subprocess
import sys
from pathlib import Path

from shared.security.keys import ApiKey, hashed, matches, new_token
from shared.security.passwords import Passwords
from shared.security.secrets import load_or_create, replace_file


def test_a_secret_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "one.key"
    made = load_or_create(path, lambda: os.urandom(32))
    assert load_or_create(path, lambda: b"another") == made
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [one.name for one in path.parent.iterdir()] == ["one.key"]


def test_processes_that_start_together_share_one_secret(tmp_path: Path) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from shared.security.secrets import load_or_create\n"
        "sys.stdin.read()\n"
        "print(load_or_create(pathlib.Path(sys.argv[1]), lambda: os.urandom(16)).hex())\n"
    )
    path = tmp_path / "secrets" / "one.key"
    running = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    # They wait for the end of their input, so that they all come at once.
    for one in running:
        assert one.stdin is not None
        one.stdin.close()
        one.stdin = None
    assert len({one.communicate(timeout=30)[0] for one in running} | {path.read_bytes().hex() + "\n"}) == 1


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "kept" / "file"
    replace_file(path, b"old")
    replace_file(path, b"new", mode=0o644)
    assert path.read_bytes() == b"new"
    assert [one.name for one in path.parent.iterdir()] == ["file"]


def test_keys_and_tokens_differ_each_time_and_match_their_hash_alone() -> None:
    first, second = ApiKey.new(), ApiKey.new()
    assert first != second
    assert ApiKey.parse(str(first)) == first
    assert matches(first.secret, hashed(first.secret))
    assert not matches(second.secret, hashed(first.secret))
    assert len({new_token() for _ in range(100)}) == 100


async def test_passwords_verify_against_their_own_hash_alone() -> None:
    passwords = Passwords()
    kept = await passwords.hash("correct")
    assert kept.startswith("$argon2id$")
    assert await passwords.verify("correct", kept)
    assert not await passwords.verify("wrong", kept)
    assert not await passwords.verify("correct", None)
    assert not await passwords.verify("correct", "no hash at all")
