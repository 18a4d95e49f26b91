"""Operations: scheduled runs, lock, notifications, environments, doctor, export."""

from rpo_pipeline.operations.doctor import examine
from rpo_pipeline.operations.environments import Environment, read_environment, read_environments
from rpo_pipeline.operations.export import ExportFormat, export_feedback, read_feedback
from rpo_pipeline.operations.lock import BusyError, only_run, signature_of
from rpo_pipeline.operations.refresh import Refresh
from rpo_pipeline.operations.session import NAMED_BY, ProjectSession
