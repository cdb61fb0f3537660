"""The list of attacks is free of heavy imports, and says of each what its class says."""

import subprocess
import sys

import pytest

import attacks

OWN = [entry for entry in attacks.registry.entries() if not entry.family and not entry.origin]


def test_listing_does_not_import_torch():
    code = "import sys, attacks; list(attacks.registry.entries()); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_families_are_listed():
    assert {entry.family for entry in attacks.registry.entries()} >= {"torchattacks", "foolbox"}


@pytest.mark.parametrize("entry", OWN, ids=lambda entry: entry.name)
def test_an_attack_says_of_itself_what_the_list_says(entry):
    made = attacks.make(entry.name)
    assert made.name == entry.name
    assert made.label == entry.name
    assert made.settings()["name"] == entry.name
    assert {fact: getattr(made, fact) for fact in entry.facts} == entry.facts
    assert made.needs_gradient == (entry.facts["access"] == "white-box")


@pytest.mark.parametrize(
    ("specification", "purpose"),
    [
        ("pgd", "class"),
        ("identity", "nothing"),
        ("gates:open", "compute"),
        ("gates:joint", "class"),
        ("gates:through", "gates"),
        ("gates:route", "gates"),
        ("gates:ce", "compute"),
        ("gates:ce:aim=misclassify", "class"),
        ("gates:ce:aim=flip", "gates"),
        ("gates:universal:aim=through", "gates"),
        ("torchattacks:PGD", "class"),
        ("noise", "class"),
        ("torchattacks:GN", "class"),
        ("torchattacks:VANILA", "nothing"),
    ],
)
def test_purposes(specification, purpose):
    assert attacks.make(specification).aims_at == purpose
