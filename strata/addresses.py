"""Addresses and keys that the operator gives: how they are checked, and how they are printed without their secrets.

`redis_address` is the one parser of Redis URLs: the settings check with it, and the queue connects with it. The
settings also try the files of its TLS options with `check_tls_files`.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from strata.errors import InvalidInput

REDIS_PORT, SENTINEL_PORT = 6379, 26379
SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")  # the second s: TLS
_EXAMPLE = "redis://:PASSWORD@HOST:6379/0"
# what may follow the `?` of a Redis URL; those of TLS name files and switches of Python's ssl module
_OPTIONS = {
    "db",
    "client_name",
    "health_check_interval",
    "max_connections",
    "socket_connect_timeout",
    "socket_timeout",
    "sentinel_username",
    "sentinel_password",
}
_NUMBERS = _OPTIONS - {"client_name", "sentinel_username", "sentinel_password"}
_TLS_OPTIONS = {
    "ssl_ca_certs",
    "ssl_ca_path",
    "ssl_cert_reqs",
    "ssl_certfile",
    "ssl_check_hostname",
    "ssl_keyfile",
    "ssl_password",
}
_CERT_REQS = ("none", "optional", "required")
_TLS_FILES = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")
# the service's own addresses begin with these: a prefix that does could not be told from them
_OWN_PATHS = ("v1", "docs", "redoc", "openapi.json", "static", "problems", "healthz", "readyz", "metrics")
_DATA_URL = re.compile(r"[\t\n\f\r ]*data:", re.IGNORECASE)
# a URL in a text: its scheme, user and password, the rest, and its query
_URL = re.compile(r"\b([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#'\"<>]*@)?([^\s?'\"<>]*)(\?[^\s'\"<>]*)?")


class AddressError(InvalidInput, ValueError):
    """An address or key cannot be used. The message contains neither."""


@dataclass(frozen=True)
class RedisAddress:
    """A Redis URL, taken apart.

    hosts: name and port of the server, or of each sentinel; empty for a socket. path: that of the Unix socket, else
    empty. service: the name that the sentinels have for the server, else empty.
    """

    scheme: str
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    service: str = ""
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def tls(self) -> bool:
        """Whether the connection is encrypted."""
        return self.scheme.startswith("rediss")

    @property
    def sentinel(self) -> bool:
        """Whether `hosts` are sentinels, which are asked for the server's address."""
        return self.scheme.endswith("+sentinel")

    def __str__(self) -> str:
        """The URL without user, password and options."""
        if self.scheme == "unix":
            return f"unix://{self.path}"
        hosts = ",".join(f"{f'[{name}]' if ':' in name else name}:{port}" for name, port in self.hosts)
        return "/".join(filter(None, (f"{self.scheme}://{hosts}", self.service, str(self.database))))


def redis_address(url: str) -> RedisAddress:
    """Take a Redis URL apart.

    The forms are `redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE]`, the same with `rediss` for TLS, `unix://PATH`, and
    for sentinels `redis+sentinel://[USER:PASSWORD@]HOST[:PORT][,HOST[:PORT]…]/SERVICE[/DATABASE]`. Options follow a
    `?`, as in `?ssl_ca_certs=FILE`. Raises AddressError, whose message does not quote the URL.
    """
    # find what urlsplit would take for something else: most often a character of a password
    if any(character.isspace() or not character.isprintable() for character in url):
        raise AddressError("the URL contains white space or a control character; write a blank as %20")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in SCHEMES:
        raise AddressError(f"the URL must begin with one of {', '.join(f'{name}://' for name in SCHEMES)}: {_EXAMPLE}")
    scheme = scheme.lower()
    if "#" in rest:
        raise AddressError("the URL contains #, which must be written %23 in a password")
    body, _, query = rest.partition("?")
    before, _, after = body.rpartition("@")
    if "/" in before or re.search(r"[\[\]]", before):
        raise AddressError("in a user or password write / as %2F, [ as %5B, ] as %5D, @ as %40 and ? as %3F")
    username, colon, password = before.partition(":")
    place, _, path = after.partition("/")
    address = RedisAddress(
        scheme,
        username=unquote(username) or None,
        password=unquote(password) if colon else None,
        options=_options(query, scheme),
    )
    if scheme == "unix":
        return _socket(address, place, path)
    return _server(address, place, path)


def _socket(address: RedisAddress, place: str, path: str) -> RedisAddress:
    if place or not path:
        raise AddressError("the URL of a socket needs an absolute path: unix:///run/redis/redis.sock")
    database = int(address.options.get("db", "0"))
    return replace(address, path=f"/{unquote(path)}", database=database)


def _server(address: RedisAddress, place: str, path: str) -> RedisAddress:
    default = SENTINEL_PORT if address.sentinel else REDIS_PORT
    hosts = tuple(_host(text, default) for text in (place.split(",") if address.sentinel else [place]))
    names = [unquote(name) for name in path.split("/")] if path else []
    service = ""
    if address.sentinel:
        if not names or not names[0]:
            raise AddressError("the URL of sentinels needs the service's name: redis+sentinel://HOST:26379/SERVICE/0")
        service, *names = names
    # a trailing / says nothing
    names = [name for name in names if name]
    number = names[0] if names else address.options.get("db", "0")
    if len(names) > 1 or not re.fullmatch(r"[0-9]{1,5}", number):
        raise AddressError(f"after the host only the number of a database may follow, as in {_EXAMPLE}")
    return replace(address, hosts=hosts, service=service, database=int(number))


def _host(text: str, default: int) -> tuple[str, int]:
    """Name and port of one host; an IPv6 address is written in brackets."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\[\]:/]*)(?::([0-9]+))?", text)
    if match is None:
        raise AddressError(f"after the host a port from 1 to 65535 must follow, as in {_EXAMPLE}")
    port = int(match[2] or default)
    if not 0 < port < 65536:
        raise AddressError(f"the port {port} is not from 1 to 65535")
    return unquote(match[1].strip("[]")) or "localhost", port


def _options(query: str, scheme: str) -> dict[str, str]:
    known = _OPTIONS | (_TLS_OPTIONS if scheme.startswith("rediss") else set())
    options = dict(parse_qsl(query, keep_blank_values=True))
    for name, value in options.items():
        if name not in known:
            hint = "; it needs rediss://" if name in _TLS_OPTIONS else f"; there are: {', '.join(sorted(known))}"
            raise AddressError(f"unknown option ?{name[:50]}={hint}")
        if name in _NUMBERS and not re.fullmatch(r"[0-9]{1,5}", value):
            raise AddressError(f"the option ?{name}= must be a whole number")
    if options.get("ssl_cert_reqs", "required") not in _CERT_REQS:
        raise AddressError(f"the option ?ssl_cert_reqs= must be one of {', '.join(_CERT_REQS)}")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise AddressError("the option ?ssl_keyfile= needs ?ssl_certfile=, the certificate of the key")
    return options


def check_tls_files(address: RedisAddress) -> None:
    """Read the files of an address's TLS options, as each new connection does.

    Raises AddressError if one does not exist, cannot be read, or does not have what it should. The message names the
    option, and not its value.
    """
    options = address.options
    for name in _TLS_FILES:
        if name in options:
            _check_readable(name, Path(options[name]))
    # what the files have, and whether the key belongs to the certificate
    context = ssl.create_default_context()
    try:
        if "ssl_ca_certs" in options:
            name = "ssl_ca_certs"
            context.load_verify_locations(cafile=options[name])
        if "ssl_certfile" in options:
            name = "ssl_certfile"
            # without a password Python would ask for one on the terminal
            password = options.get("ssl_password", "")
            context.load_cert_chain(options[name], options.get("ssl_keyfile"), lambda: password)
    except (OSError, ValueError) as error:
        right = "certificates in PEM" if name == "ssl_ca_certs" else "a certificate in PEM with its key"
        reason = getattr(error, "reason", None)
        raise AddressError(f"the file of ?{name}= does not hold {right}{f' ({reason})' if reason else ''}") from None


def _check_readable(name: str, path: Path) -> None:
    try:
        if name == "ssl_ca_path":
            next(path.iterdir(), None)
        else:
            path.open("rb").close()
    except (OSError, ValueError) as error:  # a path with a zero byte is a ValueError
        reason = getattr(error, "strerror", None) or "it is no path"
        raise AddressError(f"the option ?{name}= names what cannot be read: {reason}") from None


def service_url(url: str, name: str) -> str:
    """The address of a Strata service without white space at its ends.

    name: the variable or option, for the message. Raises AddressError if it is not `http://HOST` or `https://HOST`.
    """
    cleaned = url.strip()
    try:
        parts = urlsplit(cleaned)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and cleaned.isprintable()
    except ValueError:  # brackets that do not match, or a port that is no number
        usable = False
    if not usable or " " in cleaned:
        raise AddressError(f"{name}: the address must have the form http://HOST:PORT")
    return cleaned


def without_secrets(text: str) -> str:
    """The text in which each URL has neither user and password nor a query, which may be a signature or a token."""
    return _URL.sub(lambda found: f"{found[1]}{found[2]}{'?…' if found[3] else ''}", text)


def clean_key(key: str, name: str) -> str:
    """A key without white space at its ends, as an editor or `$(cat FILE)` may leave it.

    name: what the key is, for the message. Raises AddressError if the key cannot be sent in a header.
    """
    cleaned = key.strip()
    if any(character.isspace() or not character.isprintable() for character in cleaned):
        raise AddressError(f"{name} contains white space or a control character")
    return cleaned


def is_data_url(text: str) -> bool:
    """Whether a text is a `data:` URL (RFC 2397), which holds what it names; whatever follows the scheme."""
    return _DATA_URL.match(text) is not None


def path_prefix(text: str) -> str:
    """The path below which a proxy serves, as `/strata`, without a slash at its end; empty for the root.

    Raises AddressError.
    """
    prefix = text.strip().rstrip("/")
    if prefix and (len(prefix) > 200 or not _PREFIX.fullmatch(prefix)):
        raise AddressError(f"{text[:100]!r} is not a path; right is /strata")
    if prefix.split("/")[1:2] and prefix.split("/")[1] in _OWN_PATHS:
        raise AddressError(f"{text[:100]!r} begins as addresses of the service do; right is /strata")
    return prefix
