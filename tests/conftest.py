"""What all tests share: readable failures of the shipped suites."""

import pytest

pytest.register_assert_rewrite("bartizan_connector.testing")
