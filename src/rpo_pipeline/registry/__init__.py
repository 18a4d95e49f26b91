"""MLflow runs, and the model registry."""

import os

# MLflow's own seven retries would hold up a run for minutes, more than once; it would print the
# server's address with the password in it; and it would report to its makers what it is used for.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
