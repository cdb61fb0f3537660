"""Attacks of other libraries by name: ``torchattacks:NAME`` and ``foolbox:NAME``; the tables import neither."""
