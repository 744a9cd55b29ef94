"""Every setting: its type, unit, default, range and meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, StringConstraints, field_validator, model_validator

from server.config.carbon import BudgetSettings, CarbonSettings, CostSettings
from server.config.efficiency import EfficiencySettings
from server.config.energy import EnergySettings, MeterSettings
from server.config.ledger import LedgerSettings
from server.config.section import Name, Settings, base_url

__all__ = [
    "AdapterLimits",
    "AdapterSettings",
    "BudgetSettings",
    "CarbonSettings",
    "Config",
    "ControlSettings",
    "CostSettings",
    "EfficiencySettings",
    "EnergySettings",
    "EngineOptions",
    "EngineSettings",
    "EnvironmentSettings",
    "GatewaySettings",
    "HealthSettings",
    "LedgerSettings",
    "MeterSettings",
    "PolicyName",
    "RestartSettings",
    "RoutingSettings",
    "TelemetrySettings",
    "origin",
]

ModelId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/:@-]*$", max_length=200)]
"""A public model id: hub ids have slashes, some names have colons."""

Device = Annotated[
    str,
    StringConstraints(
        pattern=r"^(auto|cpu(:\d+(-\d+)?(,\d+(-\d+)?)*)?|gpu:\d+(,\d+)*"
        r"|[A-Za-z0-9][A-Za-z0-9._-]*/(cpu|(gpu|package):\d+(,\d+)*))$"
    ),
]
"""Of this machine, or `node/gpu:0`: another one's, as its remote meter names it."""

PolicyName = Literal[
    "first",
    "least_outstanding",
    "round_robin",
    "weighted",
    "power_of_two",
    "prefix_affinity",
    "adapter_affinity",
]
"""The routing policies of server/gateway/routing."""

MAX_LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM accepts for --max-lora-rank."""


class EnvironmentSettings(Settings):
    engine: Path = Field(
        Path(".venv-engine"),
        description="Virtual environment with vLLM; relative to the configuration file, else to the working directory.",
    )
    quant: Path = Field(Path(".venv-quant"), description="Virtual environment with the quantization tools.")


class GatewaySettings(Settings):
    host: str = Field(
        "127.0.0.1", description="Address to listen on. Other than loopback it needs an API key: see docs/keys.md."
    )
    port: int = Field(8080, ge=1, le=65535, description="Port of the OpenAI-compatible API.")
    workers: int = Field(1, ge=1, le=64, description="Worker processes.")
    max_body_bytes: int = Field(8 * 2**20, ge=1024, le=2**30, description="Largest request body; more is a 413.")
    max_header_bytes: int = Field(
        32 * 2**10, ge=1024, le=2**20, description="Longest head of a request, with its path; more is a 431."
    )
    header_timeout_s: float = Field(
        10.0, gt=0, le=600, description="Time for a request's head, from its first byte; then a 408."
    )
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="Names that `Host` may give, without port; empty: the loopback names on a loopback address, "
        "else any.",
    )
    cors_origins: list[str] = Field(
        default_factory=list,
        description="Origins whose pages may call the API from a browser: `https://app.example.org`, or `*`.",
    )
    tls_certificate: Path | None = Field(
        None, description="PEM file with the certificate and its chain: the API speaks TLS. Read anew by a reload."
    )
    tls_key: Path | None = Field(None, description="PEM file with the certificate's private key.")
    max_in_flight: int = Field(
        1024, ge=1, le=100_000, description="Requests sent and not ended, a worker; more wait in the queue."
    )
    max_in_flight_bytes: int = Field(
        256 * 2**20,
        ge=1024,
        le=2**40,
        description="Bodies of the requests in flight, a worker; those in the queue may hold as much again.",
    )
    max_in_flight_per_tenant: int | None = Field(
        None, ge=1, le=100_000, description="Requests in flight of one tenant, a worker; more wait in the queue."
    )
    max_queue: int = Field(256, ge=0, le=100_000, description="Requests that may wait, a worker; more are a 429.")
    queue_timeout_s: float = Field(10.0, gt=0, le=600, description="Longest wait in the queue; then a 429.")
    connect_timeout_s: float = Field(5.0, gt=0, le=120, description="Longest wait for a connection to an engine.")
    first_byte_timeout_s: float = Field(
        120.0, gt=0, le=86_400, description="Longest wait for an engine to begin a streamed answer."
    )
    whole_answer_timeout_s: float = Field(
        600.0, gt=0, le=86_400, description="Longest wait for an answer that is not streamed."
    )
    idle_timeout_s: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="Longest silence of an engine within an answer, or of a client that sends or is sent one.",
    )
    max_connections_per_replica: int = Field(512, ge=1, le=100_000, description="Connections to one replica, a worker.")
    max_record_backlog: int = Field(
        100_000, ge=100, le=10_000_000, description="Records a worker holds while no control plane takes them."
    )
    drain_timeout_s: float = Field(30.0, ge=0, le=3600, description="Time for running requests at shutdown.")

    @model_validator(mode="after")
    def _every_body_can_pass(self) -> Self:
        if self.max_in_flight_bytes < self.max_body_bytes:
            raise ValueError("`max_in_flight_bytes` must not be less than `max_body_bytes`, or that body never passes")
        return self

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("`tls_certificate` and `tls_key` need one another; set both or neither")
        return self

    @property
    def url(self) -> str:
        """Where clients reach the gateway, as far as the gateway knows."""
        return origin(self.host, self.port, tls=self.tls_certificate is not None)


class ControlSettings(Settings):
    host: str = Field(
        "127.0.0.1",
        description="Address of the admin API, /metrics and the live page. Other than loopback it needs an admin key.",
    )
    port: int = Field(8081, ge=1, le=65535, description="Port of the admin API, /metrics and the live page.")
    allowed_hosts: list[str] = Field(
        default_factory=list,
        description="Names that `Host` may give besides `host` and the loopback names, without port.",
    )


class RestartSettings(Settings):
    backoff_s: float = Field(1.0, gt=0, le=600, description="Wait before the first restart; doubles with each.")
    max_backoff_s: float = Field(60.0, gt=0, le=3600, description="Longest wait before a restart.")
    give_up_after: int = Field(5, ge=1, le=1000, description="Failed starts in a row before the engine is given up.")


class AdapterLimits(Settings):
    max_loaded: int = Field(2, ge=1, le=256, description="Adapters that may be loaded at a time (vLLM: --max-loras).")
    max_rank: int = Field(
        16, description=f"Largest rank (vLLM: --max-lora-rank), one of {', '.join(map(str, MAX_LORA_RANKS))}."
    )

    @field_validator("max_rank")
    @classmethod
    def _rank_that_vllm_takes(cls, value: int) -> int:
        if value not in MAX_LORA_RANKS:
            raise ValueError(f"must be one of {', '.join(map(str, MAX_LORA_RANKS))}")
        return value


class EngineOptions(Settings):
    """vLLM's common options, typed; every other key is passed on as `--key-with-dashes value`."""

    model_config = ConfigDict(extra="allow", frozen=True, validate_default=True)

    max_model_len: int | None = Field(None, ge=1, description="Longest prompt plus answer, tokens.")
    max_num_seqs: int | None = Field(None, ge=1, description="Requests in one batch.")
    max_num_batched_tokens: int | None = Field(None, ge=1, description="Tokens in one step.")
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1, description="Share of a GPU's memory to take.")
    kv_cache_gib: float | None = Field(
        None, gt=0, le=4096, description="KV cache on the CPU, GiB (VLLM_CPU_KVCACHE_SPACE); default 1."
    )
    tensor_parallel_size: int | None = Field(None, ge=1, description="GPUs that share each layer.")
    pipeline_parallel_size: int | None = Field(None, ge=1, description="GPUs that share the layers.")
    data_parallel_size: int | None = Field(None, ge=1, description="Copies behind one port.")
    cpu_offload_gb: float | None = Field(None, ge=0, description="Weights kept in the host's memory, GiB a GPU.")
    kv_cache_dtype: str | None = Field(None, description="`auto`, `fp8`, …")
    dtype: str | None = Field(None, description="`auto`, `bfloat16`, `float16`, `float32`.")
    quantization: str | None = Field(None, description="Method, if the checkpoint does not name it.")
    enforce_eager: bool | None = Field(None, description="No graph capture: starts faster, runs slower on a GPU.")
    enable_prefix_caching: bool | None = Field(None, description="Reuse the KV of equal prefixes.")
    enable_chunked_prefill: bool | None = Field(None, description="Mix prefill chunks with decode steps.")
    speculative_config: dict[str, Any] | None = Field(None, description="Speculative decoding, as vLLM's JSON.")
    trust_remote_code: bool | None = Field(None, description="Run code that comes with the checkpoint.")


class EngineSettings(Settings):
    name: Name = Field(description="The replica's name: unique; stands in file names and metrics.")
    model: ModelId = Field(description="The base model's public id.")
    variant: Name | None = Field(None, description="The configuration's name, unique a model; default: the precision.")
    precision: Name | None = Field(None, description="`bf16`, `int4`, …; default: read from the checkpoint.")
    checkpoint: str | None = Field(None, description="Folder (relative to this file), or `hf:org/name`.")
    kind: str = Field(
        "", description="The engine's make: `vllm` or `openai`; default: `openai` with a url, else `vllm`."
    )
    launcher: str = Field("", description="`local` or `external`; default: `external` with a url, else `local`.")
    task: Literal["generate", "embed", "score"] = Field("generate", description="Decides which endpoints it serves.")
    device: Device = Field(
        "auto",
        description="`auto`, `cpu`, `cpu:1-3,5` (cores), `gpu:0` or `gpu:0,1`; with a `url` also `node/gpu:0`, as a "
        "remote meter names it.",
    )
    options: EngineOptions = Field(default_factory=EngineOptions, description="Options of the engine.")
    adapters: AdapterLimits | None = Field(None, description="Present: the engine can load adapters.")
    url: str | None = Field(None, description="An engine that runs already: `http://host:port`, without `/v1`.")
    upstream_model: str | None = Field(None, description="What the engine at `url` calls the model; default: `model`.")
    api_key_env: str | None = Field(None, description="Environment variable with the key for `url`.")
    weight: float = Field(
        1.0, gt=0, le=1000, description="Share of the requests beside other replicas, with the policy `weighted`."
    )
    max_in_flight: int | None = Field(
        None, ge=1, le=100_000, description="Requests at this engine at a time, a worker; more wait in the queue."
    )
    ready_timeout_s: float = Field(600.0, gt=0, le=86_400, description="Longest start.")
    restart: RestartSettings = Field(default_factory=RestartSettings, description="What follows a crash.")

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, data: Any) -> Any:
        if isinstance(data, dict):
            has_url = bool(data.get("url"))
            data = {"kind": "openai" if has_url else "vllm", "launcher": "external" if has_url else "local", **data}
        return data

    @field_validator("url")
    @classmethod
    def _url_of_a_server(cls, value: str | None) -> str | None:
        if value is None:
            return None
        return base_url(value, like="http://host:port or https://host", key_in="key by api_key_env").removesuffix("/v1")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.launcher == "local" and self.checkpoint is None:
            raise ValueError("needs `checkpoint` (an engine to start) or `url` (an engine that runs already)")
        if self.url is not None and self.launcher == "local":
            raise ValueError("has a `url`, so its launcher is `external`; remove one of the two")
        if "/" in self.device and self.launcher != "external":
            raise ValueError("names another node's device, which only an engine with a `url` can be on")
        if self.launcher == "external" and self.url is None:
            raise ValueError("needs a `url`: an external engine runs already")
        if self.url is not None and self.precision is None and self.variant is None:
            raise ValueError("needs `precision`: it cannot be read from an engine that runs elsewhere")
        return self


class AdapterSettings(Settings):
    name: ModelId = Field(description="The adapter's public id; one namespace with the models.")
    model: ModelId = Field(description="The base model it was trained on.")
    path: str = Field(description="Folder with adapter_config.json, relative to this file.")


class RoutingSettings(Settings):
    between_replicas: PolicyName = Field(
        "least_outstanding", description="Policy among replicas of one variant: see docs/routing.md."
    )
    bare_ids: PolicyName = Field(
        "first",
        description="An id without a variant: `first` is its first listed variant, whose replicas share as above; any "
        "other policy picks among the replicas of all its variants.",
    )


class HealthSettings(Settings):
    hung_after_s: float = Field(
        60.0,
        gt=0,
        le=86_400,
        description="An engine at which requests wait this long, while no token comes and its own counters stand "
        "still, is asked for one token; likewise, one of this machine that answers no health check for so long is "
        "started again.",
    )
    probe_timeout_s: float = Field(
        30.0, gt=0, le=3600, description="Time for that one token; an engine that does not yield it is ejected."
    )


class TelemetrySettings(Settings):
    max_adapters: int = Field(50, ge=1, le=10_000, description="Adapter names on metrics; more become `other`.")
    max_tenants: int = Field(100, ge=1, le=10_000, description="Tenant names on metrics; more become `other`.")
    max_series: int = Field(10_000, ge=1000, le=1_000_000, description="Series budget of /metrics.")


class Config(Settings):
    """The whole file."""

    state_dir: Path = Field(
        Path("~/.local/state/wattgate"), description="Sockets, process ids, logs. One running gateway a folder."
    )
    environments: EnvironmentSettings = Field(default_factory=EnvironmentSettings)
    gateway: GatewaySettings = Field(default_factory=GatewaySettings)
    control: ControlSettings = Field(default_factory=ControlSettings)
    routing: RoutingSettings = Field(default_factory=RoutingSettings)
    health: HealthSettings = Field(default_factory=HealthSettings)
    energy: EnergySettings = Field(default_factory=EnergySettings)
    carbon: CarbonSettings = Field(default_factory=CarbonSettings)
    cost: CostSettings = Field(default_factory=CostSettings)
    ledger: LedgerSettings = Field(default_factory=LedgerSettings)
    efficiency: EfficiencySettings = Field(default_factory=EfficiencySettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    engines: list[EngineSettings] = Field(min_length=1, description="The replicas.")
    adapters: list[AdapterSettings] = Field(default_factory=list, description="Loaded at start.")
    budgets: list[BudgetSettings] = Field(default_factory=list, description="What tenants may use.")

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        _refuse_twins("engines", [engine.name for engine in self.engines])
        _refuse_twins("adapters", [adapter.name for adapter in self.adapters])
        return self

    @model_validator(mode="after")
    def _adapters_have_a_model(self) -> Self:
        models = {engine.model for engine in self.engines}
        for adapter in self.adapters:
            if adapter.model not in models:
                raise ValueError(
                    f"adapters: {adapter.name!r} names the model {adapter.model!r}, which no engine serves; "
                    f"served are {', '.join(sorted(models))}"
                )
            if adapter.name in models:
                raise ValueError(f"adapters: {adapter.name!r} is also the id of a model; ids share one namespace")
        return self


def origin(host: str, port: int, *, tls: bool = False) -> str:
    """`http://host:port`, or `https://…`; an IPv6 address in brackets."""
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _refuse_twins(section: str, names: list[str]) -> None:
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ValueError(
                f"{section}: two entries are named {name!r} ({section}[{names.index(name)}] and {section}[{index}])"
            )
