r"""Make the account of the refresh on an MLflow server with accounts, which is no admin.

It may make experiments and models, as every account, and change those that it made; of the
experiment and the models that are there already it becomes a manager. Called again, it changes
nothing but the password.

    MLFLOW_TRACKING_URI=http://mlflow:5000 \
    MLFLOW_TRACKING_USERNAME=admin MLFLOW_TRACKING_PASSWORD=... \
    ACCOUNT_PASSWORD=... python deploy/mlflow/create_account.py refresh rpo_pipeline rpo-policy

The arguments are the name of the account, the experiment and the registered models.
"""

import os
import sys

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.server import get_app_client


def main(account: str, experiment: str, *models: str) -> None:
    """Make the account, and let it manage what is there."""
    address, password = os.environ["MLFLOW_TRACKING_URI"], os.environ["ACCOUNT_PASSWORD"]
    accounts, client = get_app_client("basic-auth", address), MlflowClient(address)
    try:
        accounts.create_user(account, password)
    except MlflowException as err:
        if err.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        accounts.update_user_password(account, password)
    found = client.get_experiment_by_name(experiment)
    if found is not None:
        accounts.grant_user_permission(account, "experiment", found.experiment_id, "MANAGE")
    for model in models:
        if client.search_registered_models(f"name = '{model}'"):
            accounts.grant_user_permission(account, "registered_model", model, "MANAGE")


main(*sys.argv[1:])
