"""The commands that need no attack and no defence, and what all commands share; ``cli.py`` puts them together."""
