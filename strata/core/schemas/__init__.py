"""The models of the REST API's requests and responses, shared by the service and the client: a module a resource."""

from __future__ import annotations

from strata.core.schemas.batches import BatchInput, BatchPreview, BatchRequest, Budget, Priority, UnreadShard
from strata.core.schemas.estimates import (
    MAX_SAMPLE,
    SAMPLE,
    Estimate,
    EstimateRequest,
    Figure,
    GroupEstimate,
    ReasonEstimate,
)
from strata.core.schemas.fields import AltText, ProfileName, Text
from strata.core.schemas.images import CaptionBody, ImageLinks
from strata.core.schemas.jobs import (
    ChosenRows,
    FailureRow,
    GroupProgress,
    JobKind,
    JobPage,
    JobSample,
    JobStatus,
    JobUsage,
    JobView,
    RequestCounts,
    ShardCounts,
    Waiting,
)
from strata.core.schemas.problems import Problem, ProblemEntry
from strata.core.schemas.search import Facets, FacetValue, SearchHit, SearchPage
from strata.core.schemas.uploads import MAX_UPLOADS, UploadsBody, UploadsView, UploadView
from strata.core.schemas.webhooks import DeliveryAttempt, DeliveryPage, DeliveryState, DeliveryView, WebhookTarget
from strata.core.schemas.workers import Backlog, GroupBacklog, WorkerList, WorkerView

__all__ = [
    "MAX_SAMPLE",
    "MAX_UPLOADS",
    "SAMPLE",
    "AltText",
    "Backlog",
    "BatchInput",
    "BatchPreview",
    "BatchRequest",
    "Budget",
    "CaptionBody",
    "ChosenRows",
    "DeliveryAttempt",
    "DeliveryPage",
    "DeliveryState",
    "DeliveryView",
    "Estimate",
    "EstimateRequest",
    "FacetValue",
    "Facets",
    "FailureRow",
    "Figure",
    "GroupBacklog",
    "GroupEstimate",
    "GroupProgress",
    "ImageLinks",
    "JobKind",
    "JobPage",
    "JobSample",
    "JobStatus",
    "JobUsage",
    "JobView",
    "Priority",
    "Problem",
    "ProblemEntry",
    "ProfileName",
    "ReasonEstimate",
    "RequestCounts",
    "SearchHit",
    "SearchPage",
    "ShardCounts",
    "Text",
    "UnreadShard",
    "UploadView",
    "UploadsBody",
    "UploadsView",
    "Waiting",
    "WebhookTarget",
    "WorkerList",
    "WorkerView",
]
