"""The shape of a dataset, and what a new one may hold."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from api.pagination import ListQuery
from egrpo.config import Prompt
from jobs.prompt_references import SplitName
from jobs.spec import MetadataKey, MetadataValue
from jobs.tables import Dataset

MAX_PROMPTS = 10_000
MAX_SPLITS = 16
Name = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)]


class NewDataset(BaseModel):
    """A prompt set to store. A job names one split of it, `train` unless told else."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=16)
    splits: dict[SplitName, Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PROMPTS)]] = Field(
        min_length=1, max_length=MAX_SPLITS, examples=[{"train": ["a red circle"], "test": ["a blue square"]}]
    )


class DatasetBody(BaseModel):
    """A dataset without its prompts."""

    id: str = Field(examples=["ds_06nt0v5c3zq8x1m7w2k4r9d5ty"])
    name: str
    metadata: dict[str, str]
    splits: dict[str, int] = Field(description="how many prompts each split has")
    size_bytes: int = Field(description="of all prompts as UTF-8")
    sha256: str = Field(description="of the prompts by split: equal for equal prompts in equal order")
    created_at: datetime


class DatasetsQuery(ListQuery):
    """Which datasets."""

    name: str | None = Field(default=None, max_length=200, description="exactly this name")


class UploadQuery(BaseModel):
    """What a file of prompts does not say itself."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = Field(default=None, description="of the dataset; required for a file, not for JSON")


class PromptsQuery(ListQuery):
    """Which prompts."""

    split: SplitName = "train"


def body_of(dataset: Dataset) -> DatasetBody:
    """Returns the body of one dataset."""
    same = ("id", "name", "splits", "size_bytes", "sha256", "created_at")
    return DatasetBody(**{name: getattr(dataset, name) for name in same}, metadata=dataset.metadata_)
