"""Listing attacks is free of heavy imports."""

import subprocess
import sys

import attacks


def test_listing_does_not_import_torch():
    code = "import sys, attacks; list(attacks.registry.entries()); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_entry_loads_under_its_own_name():
    for entry in attacks.registry.entries():
        if entry.target.startswith("attacks."):
            assert entry.load().name == entry.name
            assert set(entry.facts) >= {"norms", "access", "budget"}
