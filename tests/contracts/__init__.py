"""One suite of promises a port, run against each of its adapters, so that none can drift."""

import pytest

# They assert, but are no test files of their own.
pytest.register_assert_rewrite("tests.contracts.log_promises", "tests.contracts.documents_promises")
