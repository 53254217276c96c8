"""Settings: environment variables `STRATA_*` (and `REDIS_URL`), read once at the entry point and passed on."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import AliasChoices, Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from strata.components import components_folder
from strata.errors import InvalidInput


class Settings(BaseSettings):
    """The settings of every process of Strata, with their defaults."""

    model_config = SettingsConfigDict(env_prefix="STRATA_", extra="ignore", populate_by_name=True)

    data_dir: Path = Field(default=Path(".strata"), description="where the embedded server and the store live")
    redis_url: str | None = Field(
        default=None,
        validation_alias=AliasChoices("REDIS_URL", "STRATA_REDIS_URL", "redis_url"),
        description="Redis 7 or Valkey 8 and later; none: an embedded Valkey is started",
    )
    store: str | None = Field(default=None, description="URI of the store; none: data_dir/store")
    shard_roots: list[str] = Field(
        default_factory=lambda: [str(Path.cwd())], description="shards outside these roots are refused"
    )
    profiles_dir: Path = Field(
        default=components_folder() / "models" / "profiles", description="folder of profile TOML files"
    )
    profile: str = Field(default="demo", description="the profile of requests that name none")
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    api_key: str | None = Field(default=None, description="required to bind to anything but loopback")
    max_body_bytes: int = Field(default=20 * 2**20, description="largest request body")
    max_pixels: int = Field(default=100_000_000, description="largest image, width × height")
    private_urls: bool = Field(default=False, description="let image_url reach private and loopback addresses")
    lease_seconds: float = Field(
        default=15.0, gt=0, description="seconds without a heartbeat until a chunk is reclaimed"
    )
    high_water: int = Field(default=2000, ge=1, description="length of a stream, in chunks, at which the feeder pauses")
    threads: int = Field(default=1, ge=1, description="CPU threads of a worker's models")

    @property
    def store_uri(self) -> str:
        """The store's URI, with its default filled in."""
        return self.store or str(self.data_dir.resolve() / "store")


def load_settings() -> Settings:
    """Read the settings from the environment. Raises InvalidInput with the first variable whose value is invalid."""
    try:
        return Settings()
    except ValidationError as error:
        # name only the variable and the rule: pydantic's full message quotes the value, which may be a secret
        first = error.errors()[0]
        raise InvalidInput(f"{_variable('_'.join(str(part) for part in first['loc']))}: {first['msg']}") from error
    except SettingsError as error:
        # the value of a list is not JSON
        found = re.search(r'field "(\w+)"', str(error))
        name = _variable(found[1]) if found else "a setting"
        raise InvalidInput(f'{name}: the value is not a JSON list such as ["/data", "s3://bucket"]') from error


def _variable(field: str) -> str:
    """The environment variable of a field."""
    return "REDIS_URL" if field.upper() == "REDIS_URL" else f"STRATA_{field.upper()}"
