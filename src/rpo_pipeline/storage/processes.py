"""Runs work in several processes, which end together with the process that started them."""

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
# Entry of a killed process in the launcher's final list.
KILLED = re.compile(r"\brank +: (?P<rank>\d+).*\n +exitcode +: -(?P<signal>\d+)")
SECONDS_TO_END = 10
CHECK_SECONDS = 1.0
# Variables of an outer launch, which the processes of our launches must not inherit.
LAUNCH_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def start_ticks(pid: int) -> int | None:
    """Read the start of a process since boot, which does not depend on the clock."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return None


def is_running(pid: int, ticks: int | None) -> bool:
    """Tell whether a process of this host still runs.

    Args:
        pid: Id of the process, which may be reused after its end.
        ticks: Start of the process, by which a later one with its id is recognised; null if
            unknown.

    Returns:
        Whether it runs.
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

    Args:
        module: Module that does its work inside ``worker_process``.
        job_file: Description of the work; an error is written beside it.
        num_processes: Number of processes.
        accelerate_config: Configuration of ``accelerate launch``; null for
            ``torch.distributed.run``.
        error: Type of the error, raised with the reason or the end of the output, if a process
            fails.
    """
    reason = job_file.with_name(ERROR_FILE)
    reason.unlink(missing_ok=True)
    launcher = _launcher(num_processes, accelerate_config)
    code, output = _follow([*launcher, "-m", module, str(job_file)])
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
    found = {signal.Signals(int(one["signal"])): one["rank"] for one in KILLED.finditer(output)}
    if not found:
        return None
    # The launcher ends the remaining processes by SIGTERM.
    cause = next((one for one in found if one is not signal.SIGTERM), signal.SIGTERM)
    return (
        f"{cause.name} ended process {found[cause]}, as the system does when memory runs out. What "
        "was stored until then is kept, and the same run goes on from there"
    )


@contextmanager
def worker_process(job_file: Path) -> Iterator[bool]:
    """Set up one process of a launch.

    Args:
        job_file: Job file of the launch.

    Yields:
        Whether this is the first process, which writes results that are needed once.
    """
    if PARENT in os.environ:
        _die_with(int(os.environ[PARENT]))
    is_first = os.environ.get("RANK", "0") == "0"
    logging.basicConfig(
        level=logging.INFO if is_first else logging.ERROR, format="%(name)s: %(message)s"
    )
    try:
        yield is_first
    except RpoError as err:
        job_file.with_name(ERROR_FILE).write_text(str(err))
        raise


def _launcher(num_processes: int, accelerate_config: str | None) -> list[str]:
    number = str(num_processes)
    if accelerate_config is None:
        module = "torch.distributed.run"
        return [sys.executable, "-m", module, "--standalone", "--nproc_per_node", number]
    module = "accelerate.commands.launch"
    config = ["--config_file", accelerate_config, "--num_processes", number]
    return [sys.executable, "-m", module, *config]


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


def _die_with(parent: int) -> None:
    """Kill this process as soon as another one has ended for any reason."""

    def watch() -> None:
        while True:
            time.sleep(CHECK_SECONDS)
            try:
                os.kill(parent, 0)
            except ProcessLookupError:
                os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True, name="watch the parent").start()
