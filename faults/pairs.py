"""Two runs on one data folder, started together."""

from pathlib import Path

from faults.project import Ended, Project
from faults.table import Row


def pairs(folder: Path, times: int) -> Row:
    """Start two, wait for both, and look at what they left."""
    project = Project.make(folder / "project")
    problems: list[str] = []
    for number in range(1, times + 1):
        project.override("training", seed=number)  # something to do, for one of them
        both = [project.start() for _ in range(2)]
        ended = [Ended.of(process) for process in both]
        said = "; ".join(f"{one.code} {one.message[:200]}" for one in ended)
        print(f"pair {number}: {said}", flush=True)
        for one in ended:
            if one.code and not one.is_clear:
                problems.append(f"pair {number}: {one.log[-300:]}")
        if all(one.code for one in ended):
            problems.append(f"pair {number}: both failed")
        else:
            problems += [f"pair {number}: {p}" for p in project.problems(None, versions=number)]
    return Row(
        "two runs on one data folder, started together",
        "one does the work, the other one says why it does not; one new version",
        times,
        problems,
    )
