"""Benchmarks are tested on the attacks' victims."""

from tests.attacks.conftest import gated, plain

__all__ = ["gated", "plain"]
