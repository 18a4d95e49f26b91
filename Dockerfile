# syntax=docker/dockerfile:1
FROM python:3.11-slim-bookworm AS build
# For another package index, such as one with a CPU build of torch.
ARG PIP_EXTRA_INDEX_URL
# Extras of pyproject.toml; `server` where the image is the MLflow server too (deploy/compose.yaml).
ARG EXTRAS=privacy
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /app
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE .telemetry ./
COPY src src
RUN /opt/venv/bin/pip install --constraint constraints.txt --editable ".[$EXTRAS]"

FROM python:3.11-slim-bookworm
RUN useradd --create-home --uid 1000 rpo
WORKDIR /app
COPY --from=build /opt/venv /opt/venv
COPY --from=build --chown=rpo /app /app
COPY --chown=rpo conf conf
COPY --chown=rpo data data
RUN mkdir -p conf/local && chown rpo /app conf/local
USER 1000
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
# Runs, models and the registry: mount volumes on /app/data and /app/mlruns, or set MLFLOW_TRACKING_URI.
CMD ["kedro", "run"]
