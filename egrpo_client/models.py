# Made from the OpenAPI document: python -m contract write
"""The shapes of what is sent and received: JSON objects as they are, with types.

An answer may have fields that are not here: a newer service says more.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class APIKeyBody(TypedDict):
    """A key as it is shown after it was issued: without the key."""

    id: str
    project_id: str
    name: str
    # the key's first characters
    hint: str
    scopes: list[str]
    created_at: str
    # to the minute
    last_used_at: str | None
    expires_at: str | None
    revoked_at: str | None


# What a user may ask of a job.
Action = Literal["cancel", "pause", "resume", "retry"]


class AdapterBody(TypedDict):
    """What a job has made, with what it was made from."""

    # also that of its checkpoint
    id: str
    job_id: str
    # the job's
    name: str
    # the job's
    metadata: dict[str, str]
    base_model: str
    step: int
    eval_reward: float | None
    spec_digest: str
    # empty if the job trained the whole model
    formats: list[Literal["diffusers", "peft", "comfyui"]]
    size_bytes: int
    files: list[AdapterFileBody]
    pinned_at: str | None
    created_at: str


class AdapterFileBody(TypedDict):
    """One file of an adapter."""

    path: str
    # the format that needs it; null for the model card
    format: Literal["diffusers", "peft", "comfyui"] | None
    sha256: str
    size_bytes: int
    # path of the file on this API
    url: str


class ArtifactBody(TypedDict):
    """A file beside the adapter."""

    name: str
    content_type: str
    size_bytes: int
    sha256: str
    # path of the file on this API
    url: str
    created_at: str


class AttemptBody(TypedDict):
    """One try of one worker."""

    id: str
    # 1, 2, 3, … within the job
    number: int
    worker: str
    # of the worker's pool
    gpu_type: str
    # that the job has there
    num_gpus: int
    # of the checkpoint that it went on from; null if it began anew
    resumed_from_step: int | None
    last_step: int | None
    # of the trainer, negative for a signal
    exit_code: int | None
    # the status that the job took at its end; null while it runs
    outcome: str | None
    reason: StatusReasonBody | None
    started_at: str
    finished_at: str | None


class AuditEventBody(TypedDict):
    """One thing that a key did."""

    id: str
    project_id: str
    # who: the API key
    key_id: str
    # from where; a proxy's, if the server does not trust it
    address: str
    # the `operationId`
    action: str
    # of the request, without its query
    path: str
    # what was made, changed or read
    target_id: str | None
    # SHA-256 of its row before; null: there was none, or it is not kept
    digest_before: str | None
    digest_after: str | None
    request_id: str
    created_at: str


class CheckpointBody(TypedDict):
    """A committed checkpoint: a `state` to resume from, or the exported `adapter`."""

    id: str
    step: int
    kind: Literal["state", "adapter"]
    # formats of an adapter, separated by commas: diffusers, peft, comfyui
    format: str | None
    eval_reward: float | None
    spec_digest: str
    size_bytes: int
    files: list[FileBody]
    # since when its owner keeps it from retention and deletion
    pinned_at: str | None
    # when it goes because its job has ended; null if it does not
    expires_at: str | None
    created_at: str


class CheckpointMade(TypedDict):
    """A checkpoint that was committed: a state to go on from, or the adapter."""

    job_id: str
    checkpoint_id: str
    kind: Literal["state", "adapter"]
    step: int
    eval_reward: float | None


class CheckpointMessage(TypedDict):
    """A job has committed a checkpoint."""

    # when it happened; `webhook-timestamp` is when it was sent
    timestamp: str
    type: Literal["checkpoint.created"]
    data: CheckpointMade


class CheckpointSpec(TypedDict):
    """How often the state is committed, and which of the committed states stay."""

    every_steps: NotRequired[int]
    keep_last: NotRequired[int]
    keep_best: NotRequired[int]


class ComputeBody(TypedDict):
    """Floating-point operations of the job, a multiplication and an addition being two."""

    # one image once through the network, without gradients
    flops_per_pass: float
    # an optimizer step with its share of the rollout, over all GPUs
    flops_per_update: RangeBody
    # in all
    flops: RangeBody
    assumptions: list[str]


class CostBody(TypedDict):
    """What the job will take: by what an earlier one took, else by its operations and a GPU's published speed."""

    # measured: by what an earlier job took; estimated: from the base model's published architecture
    basis: Literal["measured", "estimated"]
    seconds_per_update: float
    seconds: float
    gpu_hours: float
    # what the assumptions leave open; null for a measured cost
    gpu_hours_range: RangeBody | None
    # the type that the estimate is for; null for a measured cost
    gpu_type: str | None
    # the job that was measured; empty for an estimate
    measured_on: str
    assumptions: list[str]


class CountBody(TypedDict):
    """How many; a method that draws its steps anew for every update takes more at one time than at another."""

    fewest: int
    most: int


class DanceGRPOMethod(TypedDict):
    """DanceGRPO, arXiv 2505.07818: every step is stochastic, one advantage for the whole trajectory.

    A random `trained_fraction` of the steps is trained, drawn anew for every update.
    """

    type: Literal["dance_grpo"]
    sampling_steps: NotRequired[int]
    shift: NotRequired[float | None]
    kernel: NotRequired[Literal["flow_sde", "cps"]]
    eta: NotRequired[float]
    group_size: NotRequired[int]
    guidance_scale: NotRequired[float]
    trained_fraction: NotRequired[float]
    dispersion_limit: NotRequired[float]


class DatasetBody(TypedDict):
    """A dataset without its prompts."""

    id: str
    name: str
    metadata: dict[str, str]
    # how many prompts each split has
    splits: dict[str, int]
    # of all prompts as UTF-8
    size_bytes: int
    # of the prompts by split: equal for equal prompts in equal order
    sha256: str
    created_at: str


class DiversityRewardSpec(TypedDict):
    """Pictures that differ from the others of their group, compared as averages over grid x grid cells."""

    type: Literal["diversity"]
    weight: NotRequired[float]
    grid: NotRequired[int]


class EGRPOMethod(TypedDict):
    """E-GRPO, arXiv 2601.00423: consecutive low-entropy steps are merged into one stochastic step.

    `merging`: `adaptive` merges until the entropy reaches `entropy_threshold`, `fixed` merges `fixed_length`
    steps, `none` merges nothing.
    """

    type: NotRequired[Literal["egrpo"]]
    sampling_steps: NotRequired[int]
    shift: NotRequired[float | None]
    kernel: NotRequired[Literal["flow_sde", "cps"]]
    eta: NotRequired[float]
    group_size: NotRequired[int]
    guidance_scale: NotRequired[float]
    active_steps: NotRequired[float | list[int]]
    active_steps_per_update: NotRequired[int | None]
    entropy_threshold: NotRequired[float]
    merging: NotRequired[Literal["adaptive", "fixed", "none"]]
    fixed_length: NotRequired[int | None]
    dispersion_limit: NotRequired[float]


class EvaluationSpec(TypedDict):
    """Fixed prompts and seeds, drawn by the plain ODE.

    `prompts` as a number sets that many of the spec's prompts aside: they are not trained on. It never takes more
    than half of them; a single prompt is both trained on and evaluated. `sampling_steps` None: the method's.
    """

    every_steps: NotRequired[int]
    prompts: NotRequired[int | PromptSource]
    images_per_prompt: NotRequired[int]
    seed: NotRequired[int]
    sampling_steps: NotRequired[int | None]


class EvaluationsBody(TypedDict):
    """Latents that pass the network in rollouts; two passes of classifier-free guidance count as one."""

    per_prompt: CountBody
    per_rollout: CountBody
    in_all: CountBody


class EventBody(TypedDict):
    """One event; `seq` counts 1, 2, 3, … within the job."""

    seq: int
    type: str
    data: dict[str, Any]
    created_at: str


class EventList(TypedDict):
    """Events in order. `next_cursor` is the `after` of the next request, also when there are no more for now."""

    data: list[EventBody]
    has_more: bool
    next_cursor: str
    # of the job when this was read
    job_status: str
    # the job when this was read: who follows it needs no second request
    job: JobSummary


class ExportSpec(TypedDict):
    """Formats of the exported adapter; docs/adapters.md says what loads which."""

    formats: NotRequired[list[Literal["diffusers", "peft", "comfyui"]]]


class FileBody(TypedDict):
    """One file of the manifest."""

    path: str
    sha256: str
    size_bytes: int
    # path of the file on this API
    url: str


class FlowGRPOFastMethod(TypedDict):
    """Flow-GRPO-Fast: the window's place is drawn for every update from the first `window_range` of the schedule.

    Source: arXiv 2505.05470 and its repository; the group branches off one deterministic path.
    """

    type: Literal["flow_grpo_fast"]
    sampling_steps: NotRequired[int]
    shift: NotRequired[float | None]
    kernel: NotRequired[Literal["flow_sde", "cps"]]
    eta: NotRequired[float]
    group_size: NotRequired[int]
    guidance_scale: NotRequired[float]
    window_size: NotRequired[int]
    window_range: NotRequired[float]
    dispersion_limit: NotRequired[float]


class FlowGRPOMethod(TypedDict):
    """Flow-GRPO, arXiv 2505.05470: every step is stochastic and trained; members share nothing but the prompt.

    The paper's KL term is `training.kl_weight`.
    """

    type: Literal["flow_grpo"]
    sampling_steps: NotRequired[int]
    shift: NotRequired[float | None]
    kernel: NotRequired[Literal["flow_sde", "cps"]]
    eta: NotRequired[float]
    group_size: NotRequired[int]
    guidance_scale: NotRequired[float]
    dispersion_limit: NotRequired[float]


class G2RPOMethod(TypedDict):
    """G2RPO, arXiv 2510.01982: single stochastic steps, tails at several granularities, the mean of their
    advantages.

    A tail of granularity k takes every k-th time of the schedule and always ends at t = 0.
    """

    type: Literal["g2rpo"]
    sampling_steps: NotRequired[int]
    shift: NotRequired[float | None]
    kernel: NotRequired[Literal["flow_sde", "cps"]]
    eta: NotRequired[float]
    group_size: NotRequired[int]
    guidance_scale: NotRequired[float]
    active_steps: NotRequired[float | list[int]]
    active_steps_per_update: NotRequired[int | None]
    granularities: NotRequired[list[int]]
    dispersion_limit: NotRequired[float]


class Health(TypedDict):
    """The process lives."""

    status: NotRequired[Literal["ok"]]


class HubModel(TypedDict):
    """A base model by repository and full commit, so that a run can be repeated."""

    repo: str
    revision: str


class IssuedAPIKeyBody(TypedDict):
    """A key as it is shown once."""

    id: str
    project_id: str
    name: str
    # the key's first characters
    hint: str
    scopes: list[str]
    created_at: str
    # to the minute
    last_used_at: str | None
    expires_at: str | None
    revoked_at: str | None
    # shown this once; null when the answer is replayed, for it is not stored
    key: str | None


class IssuedWebhookEndpointBody(TypedDict):
    """An endpoint as it is shown with a new secret."""

    id: str
    url: str
    events: list[str]
    description: str
    enabled: bool
    disabled_at: str | None
    # `user`; `failing`: for too long; `gone`: it answered 410
    disabled_reason: str | None
    # the first failure after the last success
    failing_since: str | None
    # it answered 429 or 503 with `Retry-After`: nothing is sent before
    held_until: str | None
    created_at: str
    # verifies signatures; shown this once, null when the answer is replayed, for it is not stored
    secret: str | None


class JobBody(TypedDict):
    """A job, whole: the spec shows every default filled in."""

    id: str
    name: str
    metadata: dict[str, str]
    base_model: str
    status: Status
    # an open set: new ones may come
    phase: str | None
    status_reason: StatusReasonBody | None
    allowed_actions: list[Action]
    attempt: int
    version: int
    progress: ProgressBody
    # those that hold now; what was submitted is in the spec
    limits: Limits
    # used by the attempts that have ended
    gpu_seconds: float
    # where a queued job stands, and why it waits
    queue: QueuePlace | None
    spec_digest: str
    created_at: str
    started_at: str | None
    finished_at: str | None
    updated_at: str
    spec: dict[str, Any]
    # files beside the adapter that are there so far
    artifacts: list[ArtifactBody]


class JobChanges(TypedDict):
    """What may be changed about a job that exists; what is left out stays."""

    name: NotRequired[str]
    # takes the place of all that is there
    metadata: NotRequired[dict[str, str]]
    # takes the place of the limits that are there
    limits: NotRequired[Limits]


class JobMessage(TypedDict):
    """A job has taken another status."""

    # when it happened; `webhook-timestamp` is when it was sent
    timestamp: str
    type: Literal[
        "job.queued",
        "job.running",
        "job.pausing",
        "job.paused",
        "job.cancelling",
        "job.succeeded",
        "job.failed",
        "job.cancelled",
    ]
    data: JobState


class JobSpec(TypedDict):
    """One job, whole: what is trained, and how the service treats it."""

    name: NotRequired[str]
    base_model: str | HubModel
    reward: RewardSpec
    prompts: PromptSource
    method: NotRequired[
        EGRPOMethod | G2RPOMethod | DanceGRPOMethod | FlowGRPOMethod | FlowGRPOFastMethod | MixGRPOMethod
    ]
    training: NotRequired[TrainingSpec]
    evaluation: NotRequired[EvaluationSpec]
    checkpoint: NotRequired[CheckpointSpec]
    export: NotRequired[ExportSpec]
    trackers: NotRequired[list[Literal["tensorboard", "wandb", "mlflow"]]]
    height: NotRequired[int | None]
    width: NotRequired[int | None]
    metadata: NotRequired[dict[str, str]]
    priority: NotRequired[Literal["low", "normal", "high"]]
    resources: NotRequired[Resources]
    limits: NotRequired[Limits]
    # secrets of the project, by id, for variables of the trainer's environment
    secrets: NotRequired[dict[str, str]]


class JobState(TypedDict):
    """Where a job stands; ask for the rest by its id."""

    job_id: str
    status: str
    status_reason: StatusReasonBody | None
    attempt: int
    version: int


class JobSummary(TypedDict):
    """A job without its spec."""

    id: str
    name: str
    metadata: dict[str, str]
    base_model: str
    status: Status
    # an open set: new ones may come
    phase: str | None
    status_reason: StatusReasonBody | None
    allowed_actions: list[Action]
    attempt: int
    version: int
    progress: ProgressBody
    # those that hold now; what was submitted is in the spec
    limits: Limits
    # used by the attempts that have ended
    gpu_seconds: float
    # where a queued job stands, and why it waits
    queue: QueuePlace | None
    spec_digest: str
    created_at: str
    started_at: str | None
    finished_at: str | None
    updated_at: str


class JpegRewardSpec(TypedDict):
    """Pictures that are small, or large, as a JPEG of that quality."""

    type: Literal["compressibility", "incompressibility"]
    weight: NotRequired[float]
    quality: NotRequired[int]


class Limits(TypedDict):
    """Budgets, and what happens when one is used up."""

    max_gpu_hours: NotRequired[float | None]
    deadline_at: NotRequired[str | None]
    on_limit: NotRequired[Literal["pause"]]


class APIKeyBodyList(TypedDict):
    """A page of APIKeyBody."""

    data: list[APIKeyBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class AdapterBodyList(TypedDict):
    """A page of AdapterBody."""

    data: list[AdapterBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class ArtifactBodyList(TypedDict):
    """A page of ArtifactBody."""

    data: list[ArtifactBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class AttemptBodyList(TypedDict):
    """A page of AttemptBody."""

    data: list[AttemptBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class AuditEventBodyList(TypedDict):
    """A page of AuditEventBody."""

    data: list[AuditEventBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class CheckpointBodyList(TypedDict):
    """A page of CheckpointBody."""

    data: list[CheckpointBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class DatasetBodyList(TypedDict):
    """A page of DatasetBody."""

    data: list[DatasetBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class JobSummaryList(TypedDict):
    """A page of JobSummary."""

    data: list[JobSummary]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class MetricBodyList(TypedDict):
    """A page of MetricBody."""

    data: list[MetricBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class ModelBodyList(TypedDict):
    """A page of ModelBody."""

    data: list[ModelBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class ProjectSummaryList(TypedDict):
    """A page of ProjectSummary."""

    data: list[ProjectSummary]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class RewardBodyList(TypedDict):
    """A page of RewardBody."""

    data: list[RewardBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class SampleBodyList(TypedDict):
    """A page of SampleBody."""

    data: list[SampleBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class SecretBodyList(TypedDict):
    """A page of SecretBody."""

    data: list[SecretBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class UsageBodyList(TypedDict):
    """A page of UsageBody."""

    data: list[UsageBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class WebhookDeliveryBodyList(TypedDict):
    """A page of WebhookDeliveryBody."""

    data: list[WebhookDeliveryBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class WebhookEndpointBodyList(TypedDict):
    """A page of WebhookEndpointBody."""

    data: list[WebhookEndpointBody]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class StrList(TypedDict):
    """A page of Str."""

    data: list[str]
    has_more: bool
    # give it back as `cursor` for the next page
    next_cursor: str | None


class LoRASpec(TypedDict):
    """The trained adapter. `targets`: a named set of `egrpo.lora`, a list of module names, or None: the model's own."""

    rank: NotRequired[int]
    alpha: NotRequired[float]
    targets: NotRequired[Literal["attention", "attention_mlp", "all"] | list[str] | None]


class LogLineBody(TypedDict):
    """One line."""

    # counts within the job; the first ones are missing when there were too many
    number: int
    attempt: int
    # `output`: what the trainer's processes print; `trainer`: what it reports; `supervisor`: its worker
    source: Literal["output", "trainer", "supervisor"]
    level: Literal["debug", "info", "warning", "error"]
    message: str
    # when it was written, up to a second or so after it was said
    created_at: str


class LogLines(TypedDict):
    """Lines in order. `next_cursor` is the `cursor` of the next request, also when there are no more for now."""

    data: list[LogLineBody]
    has_more: bool
    next_cursor: str
    # of the job when this was read; after an end, all is written that ever will
    job_status: Status


class MemoryBody(TypedDict):
    """What the trainer will hold at its peak: by what an earlier job held, else by the trainer's formulas."""

    # measured: by what an earlier job took; estimated: from the base model's published architecture
    basis: Literal["measured", "estimated"]
    # of one process: on a GPU what is allocated there, on a CPU what is resident
    peak_bytes: int
    # of it, what is there all the time; null for a measured peak
    held_bytes: int | None
    # what decides the peak: encoding, rollout, decoding or update; null for a measured peak
    phase: str | None
    # the type that the estimate is for, or `cpu`; null for a measured peak
    gpu_type: str | None
    # the job that was measured; empty for an estimate
    measured_on: str
    assumptions: list[str]


class MetricBody(TypedDict):
    """One number of one step."""

    step: int
    name: str
    value: float
    created_at: str


class MixGRPOMethod(TypedDict):
    """MixGRPO, arXiv 2507.21802: the window slides from noise to image, `window_stride` steps at a time.

    It moves every `updates_per_window` optimizer steps and starts again when it has reached the end.
    """

    type: Literal["mix_grpo"]
    sampling_steps: NotRequired[int]
    shift: NotRequired[float | None]
    kernel: NotRequired[Literal["flow_sde", "cps"]]
    eta: NotRequired[float]
    group_size: NotRequired[int]
    guidance_scale: NotRequired[float]
    window_size: NotRequired[int]
    window_stride: NotRequired[int]
    updates_per_window: NotRequired[int]
    dispersion_limit: NotRequired[float]


class ModelBody(TypedDict):
    """A base model that jobs may name."""

    id: str
    family: str
    # on the Hub; null for a model that is part of the service
    repo: str | None
    # the commit of `repo` that is trained, 40 hexadecimal digits
    revision: str | None
    gated: bool
    width: int
    height: int
    guidance: Literal["embedded", "classifier_free", "none"]
    guidance_scale: float
    eval_steps: int
    default_lora_targets: str
    licence: str
    description: str


class NewAPIKey(TypedDict):
    """What a new key is for, what it may do, and when its time ends."""

    name: str
    scopes: list[
        Literal[
            "*",
            "admin",
            "adapters:read",
            "adapters:write",
            "audit:read",
            "catalogue:read",
            "datasets:read",
            "datasets:write",
            "jobs:read",
            "jobs:write",
            "keys:read",
            "keys:write",
            "projects:read",
            "secrets:read",
            "secrets:write",
            "usage:read",
            "webhooks:read",
            "webhooks:write",
        ]
    ]
    # at most ten years ahead; without it the key is valid until it is revoked
    expires_at: NotRequired[str | None]


class NewDataset(TypedDict):
    """A prompt set to store. A job names one split of it, `train` unless told else."""

    name: str
    metadata: NotRequired[dict[str, str]]
    splits: dict[str, Any]


class NewProject(TypedDict):
    """A project to make."""

    name: str
    limits: NotRequired[ProjectLimits]


class NewSecret(TypedDict):
    """A secret to be kept."""

    name: str
    # never shown again
    value: str


class NewValue(TypedDict):
    """What takes the place of a secret's value."""

    # never shown again
    value: str


class NewWebhookEndpoint(TypedDict):
    """Who is to be told, and of what."""

    # https, port 443 or 8443, a public host name
    url: str
    # `*`: all of them, those of later versions too
    events: NotRequired[
        list[
            Literal[
                "*",
                "checkpoint.created",
                "job.queued",
                "job.running",
                "job.pausing",
                "job.paused",
                "job.cancelling",
                "job.succeeded",
                "job.failed",
                "job.cancelled",
            ]
        ]
    ]
    description: NotRequired[str]


class PingData(TypedDict):
    """To whom it was sent."""

    endpoint_id: str


class PingMessage(TypedDict):
    """Somebody tries the endpoint out."""

    # when it happened; `webhook-timestamp` is when it was sent
    timestamp: str
    type: Literal["webhook.ping"]
    data: PingData


class PlanBody(TypedDict):
    """The schedule, and which of its steps are stochastic."""

    method: str
    kernel: str
    eta: float
    sigmas: list[float]
    # the active steps
    steps: list[StepBody]


class Problem(TypedDict):
    """An error (RFC 9457). Programs look at `code` and `retryable`, people at `detail`."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: str
    request_id: str
    # whether the same request may succeed later
    retryable: bool
    errors: NotRequired[list[ProblemError] | None]


class ProblemError(TypedDict):
    """One problem of a request."""

    # JSON pointer (RFC 6901) into the body
    pointer: NotRequired[str | None]
    # the query, path or header parameter instead
    parameter: NotRequired[str | None]
    code: str
    detail: str
    # what would have been allowed
    allowed: NotRequired[Any]


class ProgressBody(TypedDict):
    """How far the training is."""

    step: int
    total_steps: int
    steps_per_second: NotRequired[float | None]
    eta_seconds: NotRequired[float | None]


class ProjectBody(TypedDict):
    """A project, and what it uses."""

    id: str
    name: str
    limits: ProjectLimits
    version: int
    created_at: str
    use: ProjectUse


class ProjectChanges(TypedDict):
    """What may be changed about a project; what is left out stays, and null takes a limit away."""

    name: NotRequired[str]
    limits: NotRequired[ProjectLimits]


class ProjectLimits(TypedDict):
    """What a project may use; null does not bind. Jobs above the first two wait; storage refuses what is asked for."""

    max_concurrent_jobs: NotRequired[int | None]
    # in a calendar month, UTC
    max_gpu_hours: NotRequired[float | None]
    # of files and datasets
    max_storage_bytes: NotRequired[int | None]


class ProjectSummary(TypedDict):
    """A project in a list."""

    id: str
    name: str
    limits: ProjectLimits
    version: int
    created_at: str


class ProjectUse(TypedDict):
    """What a project uses now."""

    running_jobs: int
    # in this calendar month, UTC, running attempts included
    gpu_hours: float
    # as measured in the last minute
    storage_bytes: int


# Prompts, written out or by dataset.
PromptSource = dict[str, Any]


class QueuePlace(TypedDict):
    """Where a queued job stands among those that wait for the same, and in how many seconds its turn may come."""

    position: int
    reason: QueueReason
    eta_seconds: float | None


class QueueReason(TypedDict):
    """Why a queued job waits."""

    code: str
    message: str


class RangeBody(TypedDict):
    """From the least to the most that it may be."""

    least: float
    most: float


class Readiness(TypedDict):
    """What the API needs: it answers without broker and store, with less; without the database it cannot."""

    status: Literal["ready", "degraded"]
    down: list[str]
    checks: dict[str, Literal["up", "down"]]


class Resources(TypedDict):
    """What the job runs on: GPUs, each with a process of its own. A worker without GPUs runs it on its CPU."""

    gpus: NotRequired[int]
    gpu_type: NotRequired[str | None]


class RewardBody(TypedDict):
    """A reward that jobs may name, and the range of its scores."""

    type: str
    description: str
    range: list[Any]
    # what it must have to run, in words
    needs: list[str]
    # JSON Schema of what a component has beside its `type`
    parameters: dict[str, Any]


class RewardSpec(TypedDict):
    """What is optimised, and what is measured beside it and never optimised (`held_out`).

    `combine`: `gdpo` normalises every component within its group before they are summed by weight, so that no
    component counts more for having larger scores; `weighted_sum` sums the scores and normalises the sum.
    """

    components: list[ShapesRewardSpec | JpegRewardSpec | DiversityRewardSpec]
    combine: NotRequired[Literal["gdpo", "weighted_sum"]]
    held_out: NotRequired[list[ShapesRewardSpec | JpegRewardSpec | DiversityRewardSpec]]


class SampleBody(TypedDict):
    """An image that the trainer drew, and what it was worth."""

    id: str
    step: int
    # `evaluation`: the fixed grid; `best`, `worst`: the extremes
    kind: str
    prompt: str
    # among the prompts of the evaluation, the same at every step; null for older samples
    prompt_index: int | None
    seed: int
    rewards: dict[str, float]
    passed: bool | None
    size_bytes: int
    sha256: str
    # path of the image on this API
    image_url: str
    created_at: str


class SecretBody(TypedDict):
    """A secret without its value."""

    id: str
    name: str
    created_at: str
    replaced_at: str | None
    # when it was last given to a trainer
    last_used_at: str | None


class ShapesRewardSpec(TypedDict):
    """The verifiable shapes reward."""

    type: Literal["shapes"]
    weight: NotRequired[float]


# The closed set of job statuses.
Status = Literal["queued", "running", "pausing", "paused", "cancelling", "succeeded", "failed", "cancelled"]


class StatusReasonBody(TypedDict):
    """Why the status is what it is."""

    code: str
    message: str
    retryable: bool
    actor: Literal["user", "system", "quota"]


class StepBody(TypedDict):
    """One stochastic step of the plan, from time `sigmas[start]` to `sigmas[end]`."""

    start: int
    end: int
    length: int
    # whether it takes the place of several steps of the schedule
    merged: bool
    std: float
    entropy: float
    dispersion: float


class TrainingSpec(TypedDict):
    """Optimiser, its schedule, and the numbers of the objective. `steps` counts optimizer steps.

    `mode`: `lora` trains an adapter, `full` the transformer itself. The default learning rate goes with it: 2e-4
    for an adapter, the paper's 2e-6 for a full fine-tune. `lr_schedule` has the names of diffusers' schedules;
    `lr_step_rules` goes with `piecewise_constant` ("1:100,0.1:200,0.01": times 1 for 100 steps, 0.1 up to step
    200, 0.01 after), `lr_cycles` with `cosine_with_restarts`, `lr_power` with `polynomial`.

    `sharding`: with `fsdp2` and several processes each holds its share of the weights, gradients and moments of a
    full fine-tune (`egrpo.sharding`); it never changes the result.

    `advantage_std_floor`: a group's deviations are divided by max(std, floor), so that groups which hardly differ
    do not have their noise amplified. An optimizer step learns from `images_per_update` images; given in place of
    `prompts_per_update`, it must be a multiple of the images that the method draws for a prompt. A rollout has
    `minibatches_per_rollout` times as many prompts, and `updates_per_rollout` passes are made over it, each of
    that many optimizer steps. `micro_batch_size` bounds how many images pass the network at once (None: by the
    model's size); it never changes the result. `gradient_checkpointing` computes activations twice instead of
    keeping them (`auto`: for models above 1e9 parameters).

    `startup_checks` says what happens when the memory estimate is above what the device has, or the first rollout
    shows that the run could not learn (`egrpo.selfcheck`).

    `surrogate` is what bounds an update (`egrpo.objective`): `ppo_clip` clips the ratio at `clip_range`,
    `grpo_guard` clips a ratio that is normalised over timesteps (with a smaller range, 2e-6 say), `flow_dppo`
    stops what leads beyond `divergence_limit`, the KL divergence per latent dimension (None: 1e-5). On the first
    update after a rollout all ratios are 1, and of the three only `grpo_guard` differs, by its weights of the
    timesteps. `timestep_rescale` `flash` gives all timesteps gradients of one size.
    """

    steps: NotRequired[int]
    prompts_per_update: NotRequired[int]
    images_per_update: NotRequired[int | None]
    mode: NotRequired[Literal["lora", "full"]]
    optimizer: NotRequired[Literal["adamw", "adamw_8bit"]]
    sharding: NotRequired[Literal["none", "fsdp2"]]
    learning_rate: NotRequired[float]
    warmup_steps: NotRequired[int]
    lr_step_rules: NotRequired[str | None]
    lr_cycles: NotRequired[int]
    lr_power: NotRequired[float]
    lr_schedule: NotRequired[
        Literal[
            "constant",
            "constant_with_warmup",
            "linear",
            "cosine",
            "cosine_with_restarts",
            "polynomial",
            "piecewise_constant",
        ]
    ]
    lora: NotRequired[LoRASpec | None]
    seed: NotRequired[int]
    surrogate: NotRequired[Literal["ppo_clip", "grpo_guard", "flow_dppo"]]
    clip_range: NotRequired[float]
    divergence_limit: NotRequired[float | None]
    timestep_rescale: NotRequired[Literal["none", "flash"]]
    max_grad_norm: NotRequired[float]
    weight_decay: NotRequired[float]
    adam_beta1: NotRequired[float]
    adam_beta2: NotRequired[float]
    advantage_clip: NotRequired[float]
    advantage_std_floor: NotRequired[float]
    ema_decay: NotRequired[float | None]
    kl_weight: NotRequired[float]
    updates_per_rollout: NotRequired[int]
    minibatches_per_rollout: NotRequired[int]
    precision: NotRequired[Literal["auto", "float32", "bfloat16", "float16"]]
    micro_batch_size: NotRequired[int | None]
    gradient_checkpointing: NotRequired[Literal["auto", True, False]]
    startup_checks: NotRequired[Literal["stop", "warn"]]


class UsageBody(TypedDict):
    """GPU time of one day and one type."""

    # UTC
    day: str
    # `cpu` for workers without GPUs
    gpu_type: str
    gpu_seconds: float


class ValidationBody(TypedDict):
    """A job that was not queued: its spec with every default, its plan, and what it will take."""

    spec: dict[str, Any]
    spec_digest: str
    work: WorkBody
    plan: PlanBody | None
    network_evaluations: EvaluationsBody | None
    compute: ComputeBody | None
    cost: CostBody | None
    memory: MemoryBody | None
    # why a member above is null
    unknown: dict[str, str]
    warnings: list[WarningBody]


class WarningBody(TypedDict):
    """Something that is allowed and seldom meant."""

    code: str
    detail: str
    pointer: str


class WebhookDeliveryBody(TypedDict):
    """A message to an endpoint, and what became of it."""

    # the message's `webhook-id`
    id: str
    type: str
    data: dict[str, Any]
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    last_attempt_at: str | None
    next_attempt_at: str | None
    # of the last attempt; null if there was no answer
    response_status: int | None
    # why there was no answer
    error: str | None
    delivered_at: str | None
    created_at: str


class WebhookEndpointBody(TypedDict):
    """An endpoint without its secret."""

    id: str
    url: str
    events: list[str]
    description: str
    enabled: bool
    disabled_at: str | None
    # `user`; `failing`: for too long; `gone`: it answered 410
    disabled_reason: str | None
    # the first failure after the last success
    failing_since: str | None
    # it answered 429 or 503 with `Retry-After`: nothing is sent before
    held_until: str | None
    created_at: str


class WebhookEndpointChanges(TypedDict):
    """What may be changed about an endpoint; what is left out stays."""

    # https, port 443 or 8443, a public host name
    url: NotRequired[str]
    # `*`: all of them, those of later versions too
    events: NotRequired[
        list[
            Literal[
                "*",
                "checkpoint.created",
                "job.queued",
                "job.running",
                "job.pausing",
                "job.paused",
                "job.cancelling",
                "job.succeeded",
                "job.failed",
                "job.cancelled",
            ]
        ]
    ]
    description: NotRequired[str]
    # true also ends a disabling for failures, and `held_until`
    enabled: NotRequired[bool]


class WorkBody(TypedDict):
    """How much the job does."""

    # optimizer steps
    updates: int
    rollouts: int
    prompts_per_rollout: int
    images_per_update: int
    train_prompts: int
    evaluation_prompts: int
