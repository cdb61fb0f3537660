"""``python -m robustbench_aig`` is ``robustbench-aig``."""

from cli import main

main()
