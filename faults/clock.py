"""A clock that is moved back between two runs. Needs libfaketime (Debian: faketime)."""

from pathlib import Path

from faults.project import Project
from faults.table import Row
from rpo_pipeline.ingestion.sample_data import write_sample_data

LIBRARIES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/local/lib/faketime/libfaketime.so.1")
BACK = "-40d"  # further than the cache keeps what nobody asked for


def clock(folder: Path) -> Row:
    """Run, add rows, and run again with the clock 40 days back."""
    found = [file for pattern in LIBRARIES for file in Path("/").glob(pattern[1:])]
    if not found:
        return Row("a clock moved back", "", 0, [], "not tried: libfaketime is not installed")
    project = Project.make(folder / "project")
    assert project.run().code == 0
    first = project.policy()
    shards = set(project.folder.rglob("shard-*.parquet"))
    write_sample_data(project.folder / "data/01_raw/feedback.jsonl", 700, seed=0)
    back = {"LD_PRELOAD": str(found[0]), "FAKETIME": BACK, "FAKETIME_DONT_RESET": "1"}
    ended = project.run(**back)
    print(f"clock {BACK}: exit code {ended.code} {ended.message}", flush=True)
    problems = [] if ended.code == 0 else [ended.message or ended.log[-600:]]
    problems += [f"lost: {shard.name}" for shard in shards if not shard.exists()]
    if ended.code == 0:
        problems += ["nothing was trained"] if project.policy() == first else []
        problems += project.problems(None, versions=2)
    return Row(
        f"the clock {BACK[1:-1]} days back between two runs",
        "the second run sees the new rows, trains, registers version 2; no cached row is lost",
        1,
        problems,
    )
