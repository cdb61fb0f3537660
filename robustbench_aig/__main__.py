"""``python -m robustbench_aig`` is ``robustbench-aig``."""

import sys
from pathlib import Path

if __name__ == "__main__":
    # Python puts the folder that it runs in first, where a module may be called as one of this suite.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from robustbench_aig.commands.program import main

    main()
