"""What the floods may ask for: towns as in the end-to-end tests."""

from tests.e2e.conftest import cabinet, town

__all__ = ["cabinet", "town"]
