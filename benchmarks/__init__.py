"""The engine against its peers, side by side in one run: ``python -m benchmarks``."""

import os

# Before torch is loaded: threads that spin while they wait would be counted as work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
