"""Settings: environment variables `STRATA_*` (and `REDIS_URL`), read once at the entry point and passed on.

White space at the ends of a value is ignored, and an empty value counts as not set. Keys and passwords are SecretStr:
neither their repr nor an error shows them.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from strata.addresses import check_tls_files, clean_key, path_prefix, redis_address
from strata.components import components_folder
from strata.core.setting_values import (
    BUCKETS,
    host_of,
    list_of,
    local_folder,
    local_path,
    location,
    moves_of,
    object_of,
)
from strata.egress import EgressRules
from strata.environment import set_by_kubernetes
from strata.errors import InvalidInput, fault_line

# the default roots below the working folder; not that folder itself: a caller may name any file under the roots as a
# list or shard, and working folders hold keys, settings and the store
SHARD_FOLDERS = ("shards", "samples")
# an origin as browsers send it: in lower case, without a path
_ORIGIN = re.compile(r"https?://([a-z0-9_.-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")


class Settings(BaseSettings):
    """The settings of every process of Strata, with their defaults."""

    model_config = SettingsConfigDict(
        env_prefix="STRATA_",
        extra="ignore",
        populate_by_name=True,
        hide_input_in_errors=True,  # a value may be a secret
    )

    data_dir: Path = Field(default=Path(".strata"), description="where the embedded server and the store live")
    redis_url: SecretStr | None = Field(
        default=None,
        validation_alias=AliasChoices("REDIS_URL", "STRATA_REDIS_URL", "redis_url"),
        description="Redis 7 or Valkey 8 and later: redis://, rediss://, unix:// or redis+sentinel://; "
        "none: an embedded Valkey is started",
    )
    store: str | None = Field(default=None, description="folder or URI of the store; none: data_dir/store")
    shard_roots: Annotated[list[str], NoDecode] = Field(
        default_factory=lambda: [str(Path.cwd() / name) for name in SHARD_FOLDERS],
        description="shards outside these folders and buckets are refused: a path, a list separated by `:` or commas, "
        "or a JSON list; none: `shards` and `samples` in the folder that the service is started in",
    )
    moved_roots: Annotated[dict[str, str], NoDecode] = Field(
        default_factory=dict,
        description="where folders and buckets of described images lie now: OLD=NEW, a list of them separated by "
        "commas, or a JSON object",
    )
    profiles_dir: Path = Field(
        default=components_folder() / "models" / "profiles", description="folder of profile TOML files"
    )
    profile: str = Field(default="everyday", description="the profile of requests that name none")
    host: str = Field(default="127.0.0.1", description="name or IP address to listen on")
    port: int = Field(default=8080, ge=0, le=65535, description="port to listen on; 0: a free one")
    api_key: SecretStr | None = Field(
        default=None, description="the operator's key; beyond loopback it is required, or a key of `strata keys create`"
    )
    audit_log: Path | None = Field(
        default=None, description="file of the audit log; none: it goes into the log of the service"
    )
    audit_reads: bool = Field(default=False, description="whether the audit log has requests that only read, too")
    allowed_hosts: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="names by which the service is called, separated by commas, as example.org or *.example.org; * "
        "allows every name. IP addresses, localhost and the host to listen on are always allowed",
    )
    root_path: str = Field(
        default="",
        description="path below which a proxy serves the API and the studio, as /strata, whether it strips it or not; "
        "none: what X-Forwarded-Prefix of a proxy of FORWARDED_ALLOW_IPS says",
    )
    cors_origins: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="origins whose pages may use the service, separated by commas, as https://example.org; none: only "
        "its own pages",
    )
    max_body_bytes: int = Field(default=20 * 2**20, ge=1, le=2**40, description="largest request body")
    max_pixels: int = Field(default=100_000_000, ge=1, le=2**32, description="largest image, width × height")
    keep_metadata: bool = Field(
        default=False,
        description="keep what images say beside their pixels (EXIF with places, comments): in uploads and in answers",
    )
    private_urls: bool = Field(default=False, description="let image_url reach private and loopback addresses")
    url_ports: Annotated[list[int], NoDecode] = Field(
        default=[80, 443], description="ports that image_url may have, separated by commas"
    )
    url_hosts: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="the only hosts that image_url may name, separated by commas, as example.org or *.example.org; "
        "none: every public host",
    )
    webhook_hosts: Annotated[list[str], NoDecode] = Field(
        default=[],
        description="the only hosts that webhooks may be sent to, separated by commas, as example.org or "
        "*.example.org; none: every public host. url_ports and private_urls hold for them too",
    )
    lease_seconds: float = Field(
        default=15.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="seconds without a heartbeat until a chunk is reclaimed",
    )
    hang_seconds: float = Field(
        default=60.0,
        gt=0,
        le=86_400,
        allow_inf_nan=False,
        description="least seconds after which a call of a stage counts as hung; raise it for models that take minutes",
    )
    high_water: int = Field(
        default=2000, ge=1, le=10**7, description="length of a stream, in chunks, at which the feeder pauses"
    )
    queue_images: int = Field(
        default=5000, ge=1, le=10**7, description="single images of all callers that may be unfinished at a time"
    )
    queue_jobs: int = Field(
        default=1000, ge=1, le=10**6, description="jobs of shards of all callers that may be unfinished at a time"
    )
    queue_shards: int = Field(
        default=200_000, ge=1, le=10**8, description="shards of these jobs; a job that is alone may have more"
    )
    caller_share: float = Field(
        default=0.5, gt=0, le=1, allow_inf_nan=False, description="part of these numbers that one caller may use"
    )
    upload_days: float | None = Field(
        default=None,
        gt=0,
        le=36_500,
        allow_inf_nan=False,
        description="days after which an uploaded image is removed, counted from when it was last sent; none: never",
    )
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", description="form of log lines: text, json, or auto: text on a terminal, else json"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level of the lines that are logged"
    )
    metrics: Literal["auto", "open", "key", "off"] = Field(
        default="auto",
        description="who may read /metrics: open: everybody; key: who has an operator's key; off: nobody; auto: who "
        "has an operator's key, and programs of the same machine that do not call through a proxy",
    )
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads of a worker's models")

    @property
    def store_uri(self) -> str:
        """The store's URI, with its default filled in."""
        return self.store or str(self.data_dir.resolve() / "store")

    @property
    def served_hosts(self) -> list[str]:
        """The names by which the service is called, besides localhost and IP addresses."""
        return [*self.allowed_hosts, self.host.lower()]

    @property
    def url_rules(self) -> EgressRules:
        """What `image_url` may reach."""
        return EgressRules(tuple(self.url_ports), tuple(self.url_hosts), self.private_urls)

    @property
    def webhook_rules(self) -> EgressRules:
        """What a webhook may be sent to."""
        return EgressRules(tuple(self.url_ports), tuple(self.webhook_hosts), self.private_urls)

    @model_validator(mode="before")
    @classmethod
    def _without_blanks(cls, values: dict[str, Any]) -> dict[str, Any]:
        """The values without white space at their ends, and without those that are empty."""
        stripped = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        # an empty list of roots may be meant to allow nothing, so it must not become the default; an empty host means
        # every address, and is refused later
        return {name: value for name, value in stripped.items() if value != "" or name in ("shard_roots", "host")}

    @field_validator("root_path", mode="after")
    @classmethod
    def _prefix(cls, value: str) -> str:
        return path_prefix(value)

    @field_validator("redis_url", mode="after")
    @classmethod
    def _redis_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            check_tls_files(redis_address(value.get_secret_value()))
        return value

    @field_validator("api_key", mode="after")
    @classmethod
    def _sendable(cls, value: SecretStr | None) -> SecretStr | None:
        return value and SecretStr(clean_key(value.get_secret_value(), "the key"))

    @field_validator("port", mode="before")
    @classmethod
    def _port_of_kubernetes(cls, value: object) -> object:
        """The default instead of the address that Kubernetes sets for a Service named strata."""
        linked = isinstance(value, str) and set_by_kubernetes("STRATA_PORT", value)
        return cls.model_fields["port"].default if linked else value

    @field_validator("data_dir", "profiles_dir", mode="after")
    @classmethod
    def _folder(cls, value: Path) -> Path:
        return Path(local_folder(str(value)))

    @field_validator("audit_log", mode="after")
    @classmethod
    def _file(cls, value: Path | None) -> Path | None:
        return value and Path(local_path(str(value)))

    @field_validator("store", mode="after")
    @classmethod
    def _store(cls, value: str | None) -> str | None:
        return value and (location(value, BUCKETS) if "://" in value else local_folder(value))

    @field_validator("url_ports", "url_hosts", "webhook_hosts", "allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _separated(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        # a worker is given a JSON list
        if value.startswith("["):
            with suppress(ValueError, RecursionError):
                return json.loads(value)
        return [part.strip() for part in value.split(",") if part.strip()]

    @field_validator("url_ports", mode="after")
    @classmethod
    def _ports(cls, value: list[int]) -> list[int]:
        if not value or not all(0 < port < 65536 for port in value):
            raise ValueError("right are ports from 1 to 65535, such as 80,443")
        return value

    @field_validator("url_hosts", "webhook_hosts", mode="after")
    @classmethod
    def _hosts(cls, value: list[str]) -> list[str]:
        return [host_of(text) for text in value]

    @field_validator("allowed_hosts", mode="after")
    @classmethod
    def _served(cls, value: list[str]) -> list[str]:
        return [text if text == "*" else host_of(text) for text in value]

    @field_validator("cors_origins", mode="after")
    @classmethod
    def _origins(cls, value: list[str]) -> list[str]:
        wrong = [origin for origin in value if not _ORIGIN.fullmatch(origin)]
        if wrong:
            raise ValueError(
                f"{wrong[0][:100]!r} is not an origin; right are https://example.org and http://10.0.0.1:8080"
            )
        return value

    @field_validator("shard_roots", mode="before")
    @classmethod
    def _entries(cls, value: object) -> object:
        return list_of(value) if isinstance(value, str) else value

    @field_validator("moved_roots", mode="before")
    @classmethod
    def _moves(cls, value: object) -> object:
        if isinstance(value, str):
            return object_of(value) if value.startswith("{") else moves_of(value.split(","))
        # the values of an option
        return moves_of(value) if isinstance(value, list) else value

    @field_validator("shard_roots", mode="after")
    @classmethod
    def _roots(cls, value: list[str]) -> list[str]:
        if not value or not all(root.strip() for root in value):
            raise ValueError('it names no folder or bucket; right is /data, /data:/more or ["/data", "s3://bucket"]')
        return [location(root, (*BUCKETS, "http", "https")) for root in value]


def load_settings(**given: object) -> Settings:
    """Read the settings from the environment; `given` values, those of options, replace variables.

    Raises InvalidInput with the first variable whose value is invalid.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        # name only the variable and the rule, because the value may be a secret
        first = error.errors(include_url=False, include_input=False)[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        message = fault_line(first)
        option = f"--{name.replace('_', '-')} or " if given.get(name) is not None else ""
        raise InvalidInput(f"{option}{_variable(name)}: {message}{_example(name)}") from None


def _variable(name: str) -> str:
    """The environment variable of a field or its alias."""
    return "REDIS_URL" if name.upper() == "REDIS_URL" else f"STRATA_{name.upper().removeprefix('STRATA_')}"


def _example(name: str) -> str:
    """The default of a number or switch, as an example of what would be right."""
    field = Settings.model_fields.get(name.lower())
    return f" (default: {json.dumps(field.default)})" if field and isinstance(field.default, int | float) else ""
