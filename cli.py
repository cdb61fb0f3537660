"""The program: ``python cli.py`` is ``robustbench-aig``."""

from robustbench_aig.commands.program import cli, main

__all__ = ["cli", "main"]

if __name__ == "__main__":
    main()
