"""Run the project as a user installs it: from a wheel, and by the steps of the Dockerfile.

    python deploy/install_check.py [wheel] [image]

Both start from a copy of the tracked files alone, in fresh environments without any extra or group
that they do not ask for themselves, and end with a run of ``conf/smoke`` and its registered model.
Docker is not needed: the steps of the Dockerfile are read from it and done in a folder that stands
for the root of the image. Its base image is left out, for which the Python that runs this stands,
and its user; but where this is root, the run at the end has that user's id.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODEL = "rpo-policy-smoke"
PRIVATE = ("PYTHONPATH", "VIRTUAL_ENV", "KEDRO_ENV", "MLFLOW_TRACKING_URI", "RPO_DATA", "RPO_CACHE")
IMAGE_USER = 1000
VERSIONS = f"""
from mlflow import MlflowClient
found = MlflowClient("sqlite:///mlflow.db").search_model_versions("name = '{MODEL}'")
assert len(found) == 1, found
print("registered:", found[0].name, found[0].version)
"""


def main(parts: list[str]) -> None:
    """Make the checks that are asked for; all of them by default."""
    checks = {"wheel": check_wheel, "image": check_image}
    with tempfile.TemporaryDirectory(prefix="install-check-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # also for the user of the image
        copy_tracked(folder / "source")
        for part in parts or checks:
            started = time.monotonic()
            checks[part](folder / "source", folder / part)
            print(f"== {part}: right, {time.monotonic() - started:.0f} s", flush=True)


def copy_tracked(target: Path) -> None:
    """Copy what is under version control, as it stands now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)


def check_wheel(source: Path, folder: Path) -> None:
    """Build the wheel, install it alone, and run it in a folder that holds no source."""
    environment = outside_environment()
    folder.mkdir()
    wheels, binaries = folder / "wheels", folder / "venv/bin"
    run([sys.executable, "-m", "venv", folder / "venv"], folder, environment)
    pip = [binaries / "python", "-m", "pip", "--quiet"]
    run([*pip, "wheel", "--no-deps", "--wheel-dir", wheels, source], folder, environment)
    (wheel,) = wheels.glob("*.whl")
    constraints = source / "constraints.txt"
    run([*pip, "install", "--no-compile", "--constraint", constraints, wheel], folder, environment)
    project = make_project(source, folder / "project")
    nowhere = folder / "nowhere"
    nowhere.mkdir()
    said = run([binaries / "rpo-pipeline"], nowhere, environment, succeeds=False)
    expect("run this in the folder of a project" in said and "Traceback" not in said, said)
    run([*pip, "check"], project, environment)
    said = run([binaries / "kedro", "registry", "list"], project, environment)
    expect("data_ingestion" in said, said)
    run([binaries / "kedro", "run", "--env", "smoke"], project, environment)
    run([binaries / "python", "-c", VERSIONS], project, environment)
    said = run([binaries / "rpo-pipeline", "doctor", "--env", "smoke"], project, environment)
    expect("judge      extra, not installed" in said, said)
    # A source tree beside the packages that it needs, and nobody installed the project itself.
    run([*pip, "uninstall", "--yes", "rpo-pipeline"], folder, environment)
    part = ["--env", "smoke", "--pipelines", "data_ingestion"]
    run([binaries / "kedro", "run", *part], source, environment)
    run([binaries / "python", "-m", "rpo_pipeline", "doctor"], source, from_source(source))


def from_source(source: Path) -> dict[str, str]:
    """Variables of a process that finds the package in a source tree."""
    return outside_environment() | {"PYTHONPATH": str(source / "src")}


def make_project(source: Path, folder: Path) -> Path:
    """What a user of the wheel has: configuration, a log, and where Kedro finds the package."""
    shutil.copytree(source / "conf", folder / "conf")
    (folder / "data/01_raw").mkdir(parents=True)
    shutil.copy(source / "data/01_raw/feedback.jsonl", folder / "data/01_raw")
    stated = tomllib.loads((source / "pyproject.toml").read_text())["tool"]["kedro"]
    lines = [f'{key} = "{value}"' for key, value in (stated | {"source_dir": "."}).items()]
    (folder / "pyproject.toml").write_text("\n".join(["[tool.kedro]", *lines]) + "\n")
    return folder


def check_image(source: Path, folder: Path) -> None:
    """Do what the Dockerfile says, and run its command on ``conf/smoke``."""
    image = Image(folder, source)
    for instruction, text in read_dockerfile(source / "Dockerfile"):
        print(f"-- {instruction} {text}", flush=True)
        image.do(instruction, text)
    commands: list[list[str | Path]] = [
        [*image.command, "--env", "smoke"],
        ["python", "-c", VERSIONS],
        ["python", "-m", "pip", "check"],
    ]
    for command in commands:
        run(command, image.path(image.workdir), image.environment(), user=image.user)


class Image:
    """What a Dockerfile makes; a folder stands for its root, and earlier stages lie beside it.

    Args:
        folder: Of all stages.
        context: Folder of the Dockerfile.
    """

    def __init__(self, folder: Path, context: Path) -> None:
        self.root = folder / "root"
        self._folder, self._context = folder, context
        self._stages: list[str] = []

    def do(self, instruction: str, text: str) -> None:
        """Do one instruction."""
        match instruction:
            case "FROM":
                self._begin(text.partition(" AS ")[2] or str(len(self._stages)))
            case "ARG" if "=" not in text:
                pass  # unset unless somebody sets it
            case "ARG" | "ENV":
                self._variables |= dict(part.split("=", 1) for part in shlex.split(text))
            case "WORKDIR":
                self.workdir = text
                self.path(text).mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = int(text) if can_become_another() else None
                print("   " + ("" if self.user else "left out: it could not run this Python here"))
            case "COPY":
                self._copy(shlex.split(text))
            case "RUN":
                # The user and what he owns exist in an image alone; COPY sees to his files.
                parts = [p for p in text.split(" && ") if not re.match("useradd|chown", p)]
                for part in parts:
                    shell: list[str | Path] = ["/bin/sh", "-c", self._inside(part)]
                    run(shell, self.path(self.workdir), self.environment())
            case "CMD":
                self.command: list[str | Path] = json.loads(text)
            case _:
                raise SystemExit(f"{instruction}: install_check.py does not know it yet")

    def path(self, inside: str) -> Path:
        """Place of a path of the image."""
        return self.root / inside.lstrip("/")

    def environment(self) -> dict[str, str]:
        """Variables of a process in the image."""
        outside = outside_environment()
        path = f"{self.path('usr/local/bin')}:{outside['PATH']}"
        own = {k: self._inside(v.replace("$PATH", path)) for k, v in self._variables.items()}
        return outside | {"PATH": path, "HOME": str(self.root)} | own

    def _begin(self, name: str) -> None:
        """Begin a stage at the same place, so that what it takes over finds its own paths again."""
        if self._stages:
            self.root.rename(self._folder / self._stages[-1])
        self._stages.append(name)
        self._variables: dict[str, str] = {}
        self.workdir, self.user = "/", None
        self.path("usr/local/bin").mkdir(parents=True)
        self.path("usr/local/bin/python").symlink_to(sys.executable)

    def _copy(self, arguments: list[str]) -> None:
        """Copy from the context, less what .dockerignore leaves out, or from an earlier stage."""
        options = dict(a[2:].split("=", 1) for a in arguments if a.startswith("--"))
        *sources, target = [a for a in arguments if not a.startswith("--")]
        place = self.path(str(Path(self.workdir, target)))
        if target.endswith("/"):
            place.mkdir(parents=True, exist_ok=True)
        for source in sources:
            stage = self._folder / options["from"] if "from" in options else self._context
            found = stage / source.lstrip("/")
            ignored = set() if "from" in options else ignored_files(self._context)
            files = [found] if found.is_file() else sorted(found.rglob("*"))
            files = [f for f in files if f not in ignored and (f.is_symlink() or f.is_file())]
            if not files:
                raise SystemExit(f"COPY {source}: nothing of it is there (.dockerignore)")
            for file in files:
                within = file.relative_to(found) if file != found else Path(file.name)
                copied = place / within if file != found or place.is_dir() else place
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(file, copied, follow_symlinks=False)
        if "chown" in options and can_become_another():
            for path in (place, *place.rglob("*")):
                os.lchown(path, IMAGE_USER, IMAGE_USER)

    def _inside(self, command: str) -> str:
        """A command whose absolute paths lie in this root."""
        return re.sub(r"(?<![\w./-])/(?=(?:app|opt)\b)", f"{self.root}/", command)


def read_dockerfile(file: Path) -> Iterator[tuple[str, str]]:
    """Instructions with their text, comments left out and continued lines joined."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            instruction, _, text = line.strip().partition(" ")
            yield instruction.upper(), text.strip()


def ignored_files(context: Path) -> set[Path]:
    """Files that .dockerignore keeps out of the context: the last pattern that matches counts."""
    ignored: set[Path] = set()
    for line in (context / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            matched = context.glob(line.removeprefix("!"))
            files = {file for path in matched for file in (path, *path.rglob("*"))}
            ignored = ignored - files if line.startswith("!") else ignored | files
    return ignored


def can_become_another() -> bool:
    """Whether this is root, and another user may run this Python."""
    folders = Path(sys.executable).resolve().parents
    return os.getuid() == 0 and all(folder.stat().st_mode & 0o001 for folder in folders)


def outside_environment() -> dict[str, str]:
    """This process's variables without those that would lend an installation what it lacks."""
    kept = {name: value for name, value in os.environ.items() if name not in PRIVATE}
    here = str(Path(sys.executable).parent)
    paths = [path for path in kept["PATH"].split(os.pathsep) if not path.startswith(str(ROOT))]
    return kept | {
        "PATH": os.pathsep.join([here, *paths]),
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
    }


def run(
    command: list[str | Path],
    folder: Path,
    environment: dict[str, str],
    *,
    succeeds: bool = True,
    user: int | None = None,
) -> str:
    """Run a command, show it, and insist on how it ends; returns what it said."""
    print("$", shlex.join(map(str, command))[:200], flush=True)
    who = {} if user is None else {"user": user, "group": user, "extra_groups": []}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **who,
    )
    expect((done.returncode == 0) == succeeds, done.stdout[-6000:])
    return done.stdout


def expect(right: bool, said: str) -> None:
    """Stop unless it is so."""
    if not right:
        raise SystemExit(f"{said}\n== the installed project does not run as it must")


if __name__ == "__main__":
    main(sys.argv[1:])
