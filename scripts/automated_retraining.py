#!/usr/bin/env python3
"""Retrain once, now: the same flow as `dns-tunnel retrain`, which this calls with the same arguments.

    python scripts/automated_retraining.py [--days 7] [--samples 10000] [--deploy auto|manual]

What to learn from is set in `.env`: RETRAIN_DAYS, RETRAIN_SAMPLES, RETRAIN_MAX_SCORE; your own validation
cases are a CSV file named by VALIDATION_CASES. Exit code: 0 done, 1 failed, 2 bad setting, 3 rejected.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from agents.__main__ import main
except ModuleNotFoundError as error:
    sys.exit(f"cannot import {error.name}: run this with the Python of dns-tunnel, on a host .venv/bin/python")

if __name__ == "__main__":
    sys.exit(main(["retrain", *sys.argv[1:]]))
