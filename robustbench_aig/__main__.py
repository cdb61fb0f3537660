"""``python -m robustbench_aig`` is ``robustbench-aig``."""

from robustbench_aig.commands.program import main

main()
