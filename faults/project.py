"""A copy of the project that may be broken, and what can be asked of it."""

import hashlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml
from filelock import FileLock, Timeout
from mlflow import MlflowClient

from rpo_pipeline.ingestion.sample_data import write_sample_data
from rpo_pipeline.storage.durable import TEMPORARY

ROOT = Path(__file__).parents[1]
MODEL = "rpo-policy-smoke"
RUN_SECONDS = 900
# What a model of seconds reaches is no matter here; that it is compared and promoted is.
LENIENT = {"metric": "reward_mean", "against": "champion", "direction": "above", "bound": "low"}


@dataclass
class Project:
    """A copy of the project in a folder of its own."""

    folder: Path
    tracking_uri: str = ""
    """Of MLflow; empty: a database in the folder."""

    @classmethod
    def make(cls, folder: Path) -> "Project":
        """Copy configuration and code, and write the sample log."""
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for name in ("conf", "src"):
            shutil.copytree(ROOT / name, folder / name, ignore=ignored)
        for name in ("pyproject.toml", "constraints.txt", ".telemetry"):
            shutil.copy(ROOT / name, folder)
        write_sample_data(folder / "data/01_raw/feedback.jsonl", 600, seed=0)
        project = cls(folder)
        project.override("promotion", gates=[{**LENIENT, "threshold": -9.0}])
        return project

    @property
    def data(self) -> Path:
        """Folder of what its runs write."""
        return self.folder / "data" / "smoke"

    def override(self, block: str, **values: object) -> None:
        """Change parameters."""
        file = self.folder / "conf" / "smoke" / f"parameters_{block}.yml"
        merged = yaml.safe_load(file.read_text()) if file.exists() else {block: {}}
        merged[block] |= values
        file.write_text(yaml.safe_dump(merged))

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start ``kedro run --env smoke``, as a process group of its own."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW")}
        if self.tracking_uri:
            inherited["MLFLOW_TRACKING_URI"] = self.tracking_uri
        return subprocess.Popen(
            [sys.executable, "-m", "kedro", "run", "--env", "smoke", *arguments],
            cwd=self.folder,
            env={**inherited, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **environment: str) -> "Ended":
        """Run to the end."""
        return Ended.of(self.start(*arguments, **environment))

    def policy(self) -> str:
        """Hash of the trained weights."""
        file = self.data / "06_models/policy/model.safetensors"
        return hashlib.sha256(file.read_bytes()).hexdigest()

    def problems(self, policy: str | None, versions: int = 1) -> list[str]:
        """What a run that ended well must not leave: no words, or what is wrong.

        Args:
            policy: Hash of the weights that are expected; null: any.
            versions: Number of registered versions.
        """
        found = []
        if policy and self.policy() != policy:
            found.append("other weights")
        client = MlflowClient(self.tracking_uri or f"sqlite:///{self.folder / 'mlflow.db'}")
        held = client.search_model_versions(f"name = '{MODEL}'")
        aliases = {str(k): str(v) for k, v in client.get_registered_model(MODEL).aliases.items()}
        if len(held) != versions:
            found.append(f"{len(held)} versions")
        if aliases.get("champion") is None or "challenger" in aliases:
            found.append(f"aliases {aliases}")
        left = [p for p in self.data.parent.rglob(".*") if TEMPORARY.fullmatch(p.name)]
        left += list(self.data.rglob("tmp*"))
        found += [f"left behind: {path.relative_to(self.folder)}" for path in left]
        found += [f"locked: {lock.name}" for lock in self.data.rglob("*.lock") if _is_held(lock)]
        experiments = [one.experiment_id for one in client.search_experiments()]
        running = client.search_runs(experiments, "attributes.status = 'RUNNING'")
        return found + [f"MLflow run {run.info.run_id} is RUNNING" for run in running]


@dataclass(frozen=True)
class Ended:
    """How a run ended."""

    code: int
    log: str

    @classmethod
    def of(cls, process: subprocess.Popen[str]) -> "Ended":
        """Wait for a run."""
        _, log = process.communicate(timeout=RUN_SECONDS)
        return cls(process.returncode, log)

    @property
    def message(self) -> str:
        """What it said last: an error for people, if it is one."""
        return self.log.rpartition("\nError: ")[2].strip() if "\nError: " in self.log else ""

    @property
    def is_clear(self) -> bool:
        """Whether it failed with a message and without a traceback."""
        return self.code == 1 and bool(self.message) and "Traceback" not in self.log


def _is_held(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
