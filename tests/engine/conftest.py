"""The engine is tested on the audit's networks."""

from tests.audit.conftest import plain

__all__ = ["plain"]
