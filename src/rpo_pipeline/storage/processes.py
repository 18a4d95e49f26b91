"""Starts of processes and their peak memory; work in several, which end with their starter."""

import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rpo_pipeline.errors import RpoError

logger = logging.getLogger(__name__)

PARENT = "RPO_PARENT_PID"
ERROR_FILE = "error.txt"
TRACEBACK_LINES = 40
# Entry of a failed process in the launcher's final list. A negative code is a signal.
FAILED = re.compile(r"\brank +: (?P<rank>\d+).*\n +exitcode +: (?P<code>-?\d+)")
SECONDS_TO_END = 10
CHECK_SECONDS = 1.0
# Variables of an outer launch, which the processes of our launches must not inherit.
LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# ``ru_maxrss`` cannot be reset, so a node would get the peak of the nodes before it.
PEAK, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
KIBIBYTES_OF_A_MEBIBYTE = 1024


def reset_peak() -> bool:
    """Reset the peak, and tell whether the system can (Linux with a writable ``clear_refs``)."""
    try:
        RESET.write_text(RESET_PEAK)
    except OSError:
        return False
    return True


def peak_mebibytes() -> float:
    """Read the largest resident memory of this process since the reset, in MiB."""
    (line,) = (line for line in PEAK.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / KIBIBYTES_OF_A_MEBIBYTE


def start_ticks(pid: int) -> int | None:
    """Read the start of a process since boot, which does not depend on the clock."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def is_running(pid: int, ticks: int | None) -> bool:
    """Tell whether a process of this host still runs.

    The start, if it is known, tells it from a later process with the same id.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # the process of another user exists
        pass
    return ticks is None or start_ticks(pid) == ticks


def run_workers(
    module: str,
    job_file: Path,
    *,
    num_processes: int,
    accelerate_config: str | None,
    error: type[RpoError],
) -> None:
    """Run ``python -m module job_file`` in several processes, and wait for them.

    The module works inside ``worker_process``. The processes are started by ``accelerate launch``
    with this configuration, or without one by ``torch.distributed.run``. If one of them fails, the
    error is raised with the reason that it wrote beside the job file, or the end of the output.
    """
    reason = job_file.with_name(ERROR_FILE)
    reason.unlink(missing_ok=True)
    if accelerate_config is None:
        launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node"]
    else:
        launcher = ["accelerate.commands.launch", "--config_file", accelerate_config]
        launcher.append("--num_processes")
    workers = [str(num_processes), "-m", module, str(job_file)]
    code, output = _follow([sys.executable, "-m", *launcher, *workers])
    if code:
        said = reason.read_text() if reason.is_file() else _killed(output) or output
        raise error(f"{module} ended with exit code {code}: {said}")


@contextmanager
def outside_a_launch() -> Iterator[None]:
    """Ignore variables of an outer or earlier launch of several processes."""
    left = {name: os.environ.pop(name) for name in LAUNCH_VARIABLES if name in os.environ}
    if left:
        logger.warning(
            "the environment names a launch of several processes (%s), which is not used: the "
            "processes that share a training are those of training.num_processes",
            ", ".join(f"{name}={value}" for name, value in left.items()),
        )
    try:
        yield
    finally:
        os.environ.update(left)


def _killed(output: str) -> str | None:
    """Describe the end of a process by a signal, which the process could not report itself."""
    ranks = {int(one["code"]): one["rank"] for one in FAILED.finditer(output)}
    # A killed process fails the others, and after any failure the launcher ends them by SIGTERM.
    code = min(ranks, key=lambda code: (code == -signal.SIGTERM, code), default=0)
    if code >= 0:
        return None
    return (
        f"{signal.Signals(-code).name} ended process {ranks[code]}, as the system does when memory "
        "runs out. What was stored until then is kept, and the same run goes on from there"
    )


@contextmanager
def worker_process(job_file: Path) -> Iterator[bool]:
    """Set up one process of a launch, and tell whether it is the first.

    The first process writes results that are needed once.
    """
    if PARENT in os.environ:
        die_with(int(os.environ[PARENT]))
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if is_first else logging.ERROR, format="%(name)s: %(message)s"
    )
    try:
        yield is_first
    except RpoError as err:
        job_file.with_name(ERROR_FILE).write_text(str(err))
        raise


def _follow(command: list[str]) -> tuple[int, str]:
    """Run a command, log its output, and return its exit code and last lines."""
    environment = {k: v for k, v in os.environ.items() if k not in LAUNCH_VARIABLES}
    environment[PARENT] = str(os.getpid())
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    logger.info("starting %s", " ".join(command))
    last: deque[str] = deque(maxlen=TRACEBACK_LINES)
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                last.append(line.rstrip())
                logger.info("worker: %s", last[-1])
        finally:
            _end(process)
    return process.returncode, "\n".join(last)


def _end(process: subprocess.Popen[str]) -> None:
    """Wait for a launcher that has closed its output, or stop it after an error."""
    try:
        if sys.exc_info()[0] is None:
            process.wait()
            return
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)


def die_with(parent: int) -> None:
    """Kill this process as soon as another one has ended for any reason."""

    def watch() -> None:
        while True:
            time.sleep(CHECK_SECONDS)
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="watch the parent").start()
