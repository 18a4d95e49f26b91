"""What the documentation names exists: files, code, parameters, commands, links.

docs/runs.md and docs/decisions/ are history: they may name what is gone.
"""

import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import click
import pytest
from kedro.framework.cli.cli import KedroCLI
from pydantic import BaseModel

from rpo_pipeline.catalog.config_loader import environment_names
from rpo_pipeline.cli import cli
from rpo_pipeline.params import BLOCKS
from rpo_pipeline.pipeline_registry import register_pipelines
from tests.conftest import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "runs.md"),
]
PACKAGE, TESTS = ROOT / "src" / "rpo_pipeline", ROOT / "tests"
ROOMS = {door.parent.name for door in PACKAGE.glob("*/__init__.py")}
AREAS = {"train", "partition", "eval", "gate", "time", "memory"}
"""First parts of the names of metrics."""
MADE = {".json", ".jsonl", ".parquet", ".html", ".md", ".lock"}
"""Endings of files that runs make."""
TOP = {
    *ROOMS,
    *AREAS,
    *(path.name for path in [*ROOT.iterdir(), *TESTS.iterdir()] if path.is_dir()),
}
TEXT = {".py", ".yml", ".yaml", ".j2", ".sh", ".json", ".service", ".timer", ""}
EXCEPTIONS = {
    "mine": "the environment of a reader",
    "conf/mine": "its folder",
    "data/mine": "where its runs write",
    "NAME": "stands for a name",
    "conf/local/credentials.yml": "holds secrets: whoever has some writes it",
    "metadata.rating": "a field of a reader's records",
    "rpo_alpha": "a parameter of other trainers",
    "gate.checks": "a key of summary.json",
    "rpo_pipeline_production": "the DAG that Airflow shows, put together from two names",
    "run.json": "lies beside run.lock, whose ending is changed",
    "paramters_training.yml": "is misspelt on purpose",
}
"""Names that nothing here has, and why a page may say them."""
pytestmark = pytest.mark.filterwarnings("ignore:'BaseCommand' is deprecated:DeprecationWarning")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_names_nothing_that_does_not_exist(page):
    assert wrong_names(page.read_text(), page) == []


@pytest.mark.parametrize("folder", ["src", "conf", "benchmarks", "faults"])
def test_comments_and_messages_name_files_and_modules_that_exist(folder):
    text = sources(folder)
    paths = re.findall(r"(?<![\w/.:{}<>-])[a-z]\w+(?:/[\w*<>]+)+\.(?:py|yml|toml|j2|md)\b", text)
    assert {path for path in paths if not exists(path)} == set()
    modules = re.findall(r"\brpo_pipeline(?:\.[a-z]\w+)+", text)
    assert {module for module in modules if not is_code(module)} == set()


def test_the_rooms_are_drawn_as_they_are():
    """In the order of the layers, each with what it imports."""
    lines = re.findall(r"^\| `(\w+)/` \| .* \|(.*)\|$", read("docs/architecture.md"), re.MULTILINE)
    assert [room for room, _ in lines] == [m for m in re.findall(r"\w+", layers()) if m in ROOMS]
    imports = re.compile(r"^ *(?:from|import) (kedro|mlflow)\b", re.MULTILINE)
    for room, known in lines:
        found = set(imports.findall(sources(f"src/rpo_pipeline/{room}")))
        assert (room, set(known.split())) == (room, found)


def test_the_layers_are_those_that_are_checked():
    assert layers() in " ".join(read("CONTRIBUTING.md").split())


def layers() -> str:
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    return " -> ".join(contracts[0]["layers"])


def test_a_wrong_name_of_each_kind_is_found():
    page = """
    `core/objective.py` `core/losses.py` `conf/base/parameters_rop.yml` `docs/methods.md`
    `tests/core/test_bound.py` `deploy/crons/` `sumary.json` `summary.json`
    `rpo_pipeline.core.rpo.trains` `rpo_pipeline.core.rpo.train` `core.logp` `parition_rows`
    `rpo.taus` `rpo.tau: auto` `policy.lora.rank` `policy.lora.r`
    `make tests` `make test` `kedro runs` `kedro run --pipelines rpo` `kedro run --environment t5`
    `kedro run --env t6` `kedro run --params rpo.taus=1` `python -m rpo_pipeline forgets`
    `rpo-pipeline forgets` `python -m bench`
    `Enginge` in `engine/engine.py` `params/labelers.py` (`LABELLERS`) `core/rpo.py` (`train`)
    [link](docs/methods.md) [anchor](docs/method.md#healthy)
    """
    assert wrong_names(page, ROOT / "README.md") == [
        "core/objective.py",
        "conf/base/parameters_rop.yml",
        "docs/methods.md",
        "tests/core/test_bound.py",
        "deploy/crons/",
        "sumary.json",
        "rpo_pipeline.core.rpo.trains",
        "core.logp",
        "parition_rows",
        "rpo.taus",
        "policy.lora.rank",
        "make tests",
        "kedro runs",
        "kedro run --pipelines rpo",
        "kedro run --environment t5",
        "kedro run --env t6",
        "kedro run --params rpo.taus=1",
        "python -m rpo_pipeline forgets",
        "rpo-pipeline forgets",
        "python -m bench",
        "Enginge in engine/engine.py",
        "params/labelers.py (LABELLERS)",
        "docs/methods.md",
        "docs/method.md#healthy",
    ]


def leads(link: str, page: Path) -> bool:
    """Whether a link of a page leads to something in the project, and to a heading of it."""
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return "://" in link or (target.exists() and (not anchor or anchor in headings(target)))


def headings(page: Path) -> set[str]:
    """Headings of a page as links name them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def wrong_names(text: str, page: Path) -> list[str]:
    """What a page names and nothing has, in the order of the page, links last."""
    blocks = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    spans = [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    lines = [
        line.split(" #")[0].strip().removeprefix("$ ")
        for block in blocks
        for line in block.splitlines()
    ]
    named = [span for span in spans if not exists(span)]
    run = [line for line in lines if COMMAND.match(line) and not exists(line)]
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if not leads(link, page)]
    return [*named, *run, *misplaced(prose), *links]


def misplaced(prose: str) -> Iterator[str]:
    """Names that a page finds in a file, as "`NAME` in `file`" or "`file` (`NAME`)", wrongly."""
    for name, file in re.findall(r"`(\w+)` in `([\w/]+\.py)`", prose):
        if not holds(file, name):
            yield f"{name} in {file}"
    for file, names in re.findall(r"`([\w/]+\.py)` \(([^)]*)\)", prose):
        yield from (
            f"{file} ({name})" for name in re.findall(r"`(\w+)`", names) if not holds(file, name)
        )


def holds(file: str, name: str) -> bool:
    text = "".join(path.read_text() for path in (ROOT / file, PACKAGE / file) if path.is_file())
    return re.search(rf"\b{name}\b", text) is not None


COMMAND = re.compile(r"(?:\.venv/bin/)?(make|kedro|rpo-pipeline|python -m)(?: (.*))?")
FILE = re.compile(r"[\w.*<>/-]+\.(?:py|yml|yaml|toml|j2|md|json|jsonl|parquet|html|lock)")
FOLDER = re.compile(r"[\w.*<>/-]+")
DOTTED = re.compile(r"[a-z]\w*(?:\.\w+)+")
WORD = re.compile(r"[a-z]\w*_\w+|(?:[A-Z][a-z0-9]+){2,}")


def exists(span: str) -> bool:
    """Whether what stands between backticks is here; true of what is no name of ours."""
    if span in EXCEPTIONS:
        return True
    if span.startswith("--params "):
        span = f"kedro run {span}"
    if match := COMMAND.fullmatch(span):
        return is_command(match[1], (match[2] or "").split())
    name = re.sub(r"(: |=|\().*", "", span)
    if FILE.fullmatch(name):
        return is_file(name)
    if DOTTED.fullmatch(name):
        return is_code(f"rpo_pipeline.{name}") or is_code(name) or is_parameter(name)
    if "/" in name and FOLDER.fullmatch(name):
        return is_folder(name)
    return not WORD.fullmatch(name) or is_word(name)


def is_file(name: str) -> bool:
    """A file here, by its path from the root, the package or the tests; or one that a run makes."""
    pattern = re.sub(r"<\w+>", "*", name).replace("conf/mine/", "conf/*/")
    places = [ROOT, PACKAGE, TESTS] if "/" in name else [ROOT, PACKAGE, *(ROOT / "conf").iterdir()]
    if any(any(place.glob(pattern)) for place in places if place.is_dir()):
        return True
    return Path(name).suffix in MADE and "/".join(pattern.split("/")[-2:]) in sources()


def is_folder(name: str) -> bool:
    """A folder or a file without an ending; one that runs make; the name of a metric."""
    first, *_, last = name.split("/")
    if first not in TOP and not name.endswith("/"):
        return True
    if any((place / name).exists() for place in (ROOT, PACKAGE, TESTS)):
        return True
    if name.startswith("conf/"):
        return False
    made = name.removeprefix("data/").strip("/")
    if re.search(rf"/{made}(?![\w.])|(?<!\w){made}/", sources("src", "conf")):
        return True
    return first in AREAS and (last.startswith("<") or is_word(last))


def is_code(name: str) -> bool:
    """A module that can be imported, or what one holds."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        with suppress(ModuleNotFoundError):
            held = import_module(".".join(parts[:length]))
            return all((held := getattr(held, part, None)) is not None for part in parts[length:])
    return False


def is_parameter(name: str) -> bool:
    """A parameter, by the names of its block and of the fields down to it."""
    first, *fields = name.split(".")
    models = [BLOCKS[first]] if first in BLOCKS else []
    for field in fields:
        types = [
            model.model_fields[field].annotation for model in models if field in model.model_fields
        ]
        if not types:
            return False
        models = [model for annotation in types for model in models_in(annotation)]
    return bool(fields)


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)


def is_command(program: str, words: list[str]) -> bool:
    """A target of make, a command of Kedro or of ours, or a module that Python runs."""
    if program == "make":
        return words[0] in re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE)
    if program == "kedro":
        return is_called(KedroCLI(ROOT), words)
    module, *rest = ["rpo_pipeline", *words] if program == "rpo-pipeline" else words
    if module == "rpo_pipeline":
        return is_called(cli, rest)
    return find_spec(module) is not None and all(
        map(is_word, re.findall(r"[a-z]+", " ".join(rest)))
    )


def is_called(group: click.Command, words: list[str]) -> bool:
    """Whether a command and its options are there, and what some of the options name."""
    command = group
    while isinstance(command, click.Group | click.CommandCollection) and words:
        command = command.get_command(click.Context(command), words.pop(0))
    params = getattr(command, "params", ())
    options = {"--help", *(option for param in params for option in param.opts)}
    given = dict(pairwise([*words, ""]))
    return command is not None and all(
        option in options and (option not in NAMED_BY or NAMED_BY[option](value))
        for option, value in given.items()
        if option.startswith("--")
    )


NAMED_BY: dict[str, Callable[[str], bool]] = {
    "--env": lambda env: env in {*environment_names(ROOT / "conf"), *EXCEPTIONS},
    "--pipelines": lambda names: set(names.split(",")) <= {*register_pipelines(), *EXCEPTIONS},
    "--params": lambda pairs: all(is_parameter(pair.split("=")[0]) for pair in pairs.split(",")),
    "--from-nodes": lambda names: {*names.split(",")} <= nodes(),
    "--nodes": lambda names: {*names.split(",")} <= nodes(),
}
"""What the value of an option must be."""


def is_word(name: str) -> bool:
    return re.search(rf"\b{name}\b", sources()) is not None


def read(path: str) -> str:
    return (ROOT / path).read_text()


@cache
def nodes() -> set[str]:
    return {node.name for pipeline in register_pipelines().values() for node in pipeline.nodes}


@cache
def sources(*folders: str) -> str:
    """Code, configuration and what deploys them, as one text."""
    files = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "Dockerfile"]
    for folder in folders or ("src", "conf", "deploy", "tests", "benchmarks", "faults"):
        found = [f for f in (ROOT / folder).rglob("*") if f.is_file() and f.suffix in TEXT]
        files += [f for f in found if not f.parent.name.endswith(".egg-info")]
    return "\n".join(file.read_text() for file in files if file != Path(__file__))
