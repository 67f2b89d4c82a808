"""Run the benchmarks: ``python benchmarks/run.py [NAME ...] [--repeats N] [--list]``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from _harness import main

if __name__ == "__main__":
    raise SystemExit(main())
