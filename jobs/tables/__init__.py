"""The tables. The migrations make them; a test compares the two. All times are the database's, with time zone."""

from jobs.tables.access import APIKey, IdempotencyKey, Project, StorageUse
from jobs.tables.audit import AuditEvent
from jobs.tables.base import Base, Document
from jobs.tables.garbage import Garbage
from jobs.tables.gpu_time import GPUTime
from jobs.tables.logs import LogLine
from jobs.tables.periodic import PeriodicTask
from jobs.tables.prompts import Dataset, DatasetSplit, JobDataset
from jobs.tables.secret import Secret
from jobs.tables.webhooks import WebhookDelivery, WebhookEndpoint
from jobs.tables.work import (
    Artifact,
    Attempt,
    Checkpoint,
    Event,
    Job,
    Metric,
    Sample,
    Worker,
)

__all__ = [
    "APIKey",
    "Artifact",
    "Attempt",
    "AuditEvent",
    "Base",
    "Checkpoint",
    "Dataset",
    "DatasetSplit",
    "Document",
    "Event",
    "GPUTime",
    "Garbage",
    "IdempotencyKey",
    "Job",
    "JobDataset",
    "LogLine",
    "Metric",
    "PeriodicTask",
    "Project",
    "Sample",
    "Secret",
    "StorageUse",
    "WebhookDelivery",
    "WebhookEndpoint",
    "Worker",
]
