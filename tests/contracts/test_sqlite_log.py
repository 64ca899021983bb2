"""The SQLite log keeps the promises of its port, and some of its own."""

from pathlib import Path

import pytest

from tests.contracts.log_promises import LogPromises


class TestSqliteLog(LogPromises):
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        return f"sqlite:{tmp_path / 'log'}"

    @pytest.fixture
    def other_address(self, tmp_path: Path) -> str:
        return f"sqlite:{tmp_path / 'another'}"
