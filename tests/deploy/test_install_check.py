"""What `make install-check` makes of a Dockerfile: its steps as they are written."""

import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from tests.conftest import ROOT

spec = spec_from_file_location("install_check", ROOT / "deploy/install_check.py")
install_check = module_from_spec(spec)
spec.loader.exec_module(install_check)

DOCKERFILE = """\
# syntax=docker/dockerfile:1
FROM somewhere AS build
ARG EXTRAS=one,two
WORKDIR /app
COPY kept.txt code ./
RUN python -c "import sys; print(sys.executable)" > python && \\
    echo "$EXTRAS" > /app/extras
FROM somewhere
WORKDIR /app
COPY --from=build /app /app
COPY conf conf
RUN useradd rpo && pwd > where
ENV PATH=/opt/bin:$PATH NAME=value
CMD ["kedro", "run"]
"""
IGNORE = "# all but\n*\n!kept.txt\n!code\n!conf\nconf/local\n**/__pycache__\n"


@pytest.fixture
def context(tmp_path):
    folder = tmp_path / "context"
    for name in ("kept.txt", "code/a.py", "code/__pycache__/a.pyc", "conf/local/key", "conf/b.yml"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".dockerignore").write_text(IGNORE)
    (folder / "Dockerfile").write_text(DOCKERFILE)
    return folder


def build(context):
    image = install_check.Image(context.parent / "image", context)
    for instruction, text in install_check.read_dockerfile(context / "Dockerfile"):
        image.do(instruction, text)
    return image


def test_an_image_holds_what_its_steps_make(context):
    image = build(context)
    files = {p.relative_to(image.path("/app")).as_posix() for p in image.path("/app").rglob("*.*")}
    assert files == {"kept.txt", "a.py", "conf/b.yml"}
    assert image.path("/app/extras").read_text() == "one,two\n"
    assert image.path("/app/where").read_text() == f"{image.path('/app')}\n"
    assert image.path("/app/python").read_text().strip() == str(image.path("usr/local/bin/python"))
    environment = image.environment()
    assert environment["PATH"].startswith(f"{image.path('/opt/bin')}:")
    assert environment["NAME"] == "value"
    assert image.command == ["kedro", "run"]


@pytest.mark.parametrize(
    "changed",
    [
        DOCKERFILE.replace("pwd > where", "false"),
        DOCKERFILE.replace("COPY conf conf", "COPY conf/local conf"),
        DOCKERFILE.replace("WORKDIR /app", "VOLUME /app"),
    ],
)
def test_a_step_that_would_fail_in_docker_fails(context, changed):
    (context / "Dockerfile").write_text(changed)
    with pytest.raises(SystemExit):
        build(context)


def test_what_is_installed_is_not_helped_by_what_surrounds_it(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    monkeypatch.setenv("PATH", f"{ROOT}/.venv/bin:/usr/bin")
    environment = install_check.outside_environment()
    assert "PYTHONPATH" not in environment
    assert f"{ROOT}/.venv/bin" not in environment["PATH"].split(":")[1:]
    assert sys.executable.startswith(environment["PATH"].split(":")[0])
