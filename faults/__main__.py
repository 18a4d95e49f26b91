"""Run the experiments and print the table of docs/reliability.md.

python -m faults                       # all of them
python -m faults kills --times 10      # one of them
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faults.clock import clock
from faults.disk import disk
from faults.hub import hub
from faults.kills import kills
from faults.pairs import pairs
from faults.table import HEADER, Row
from faults.workers import workers

KILLS, PAIRS = 30, 20


def main() -> None:
    """Dispatch."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="experiments; all of them if none is named")
    parser.add_argument("--times", type=int, help="how often the random ones are repeated")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    experiments: dict[str, Callable[[Path], Row | list[Row]]] = {
        "kills": partial(kills, times=arguments.times or KILLS, seed=arguments.seed),
        "disk": disk,
        "workers": workers,
        "hub": hub,
        "clock": clock,
        "pairs": partial(pairs, times=arguments.times or PAIRS),
    }
    unknown = set(arguments.names) - set(experiments)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: known are {', '.join(experiments)}")
    print(HEADER)
    for name in arguments.names or experiments:
        with tempfile.TemporaryDirectory(prefix=f"faults-{name}-") as folder:
            made = experiments[name](Path(folder))
        for row in made if isinstance(made, list) else [made]:
            print(row, flush=True)


if __name__ == "__main__":
    main()
