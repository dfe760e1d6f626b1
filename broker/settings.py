"""Everything about the broker that can be configured: one frozen object, read once, in ``main``.

A setting comes from, in this order: an argument (``--port 8443``), the environment (``LENDMESH_BROKER_PORT=8443``), a
TOML file (``port = 8443``), the default below. An unknown name is an error in all three, because it is a typo.
Durations are written with their unit (``10s``, ``1h30m``); each default says why it is what it is.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator

from broker.wire.base import Amount, Duration, Label

PREFIX = "LENDMESH_BROKER_"
FILE_VARIABLE = PREFIX + "FILE"
"""Names the TOML file, where no ``--file`` does."""


Routes = Annotated[dict[Label, Annotated[dict[Label, Amount], Field(max_length=256)]], Field(max_length=256)]
"""From region → to region → µUSD per gigabyte."""


class BadSettings(Exception):
    """The settings make no sense; the text says which, and what would."""


class Settings(BaseModel):
    """What a broker is told before it starts."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    # Where it keeps things
    data_dir: Path = Path("lendmesh-data")
    """Directory of everything the broker keeps: database, keys, certificates, the first admin token. Mode 0700."""
    database_url: SecretStr | None = None
    """PostgreSQL (``postgresql://…``) or SQLite (``sqlite:///…``). Default: ``broker.db`` in the data
    directory, so that nothing needs to be installed. Secret, since it may hold a password."""
    lease_keys_file: Path | None = None
    """The keys that sign leases. Default: ``lease-keys.json`` in the data directory. Replicas must share one file."""

    # Where it listens
    host: str = "127.0.0.1"
    """Address to listen on. Loopback until somebody decides otherwise."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8443
    """TCP port; 0 takes a free one and writes its address to ``url`` in the data directory."""
    names: Annotated[tuple[str, ...], Field(max_length=64)] = ("localhost", "127.0.0.1", "::1")
    """DNS names and addresses under which agents and people reach the broker: they go into its certificate."""
    public_url: str | None = None
    """How others reach it, where that differs from what it listens on (a load balancer): the issuer of leases."""

    # TLS
    tls: Literal["embedded", "files", "off"] = "embedded"
    """``embedded``: own CA in the data directory. ``files``: the two files below. ``off``: only behind a proxy that
    ends TLS on the same host, since every credential is a bearer token."""
    tls_cert_file: Path | None = None
    """PEM: the server's certificate, then its chain up to the CA, which join tokens pin."""
    tls_key_file: Path | None = None
    """PEM: the private key, unencrypted, readable by the broker alone."""

    # Limits of what comes in
    max_body_bytes: Annotated[int, Field(ge=1_024, le=1 << 24)] = 1 << 20
    """Bytes in one body. The largest request of ours has a few kB."""
    max_signed_bytes: Annotated[int, Field(ge=1_024, le=1 << 26)] = 4 << 20
    """Bytes in one advert or report: about 20,000 devices."""
    body_timeout: Duration = 30
    """A body must have arrived within this time: 4 MiB at 1 Mbit/s."""
    idle_timeout: Duration = 75
    """A connection without a request (or with half of its headers) is closed after this; longer than most proxies
    keep theirs (60 s), so that they never send into a closed one."""
    shutdown_grace: Duration = 10
    """How long answers under way may take after SIGTERM; Kubernetes kills after 30 s."""

    # Watching
    watch_heartbeat: Duration = 10
    """A comment on every quiet stream, so that both ends notice a dead connection."""
    watch_patience: Duration = 20
    """A watcher that doesn't read for this long is told so and cut off; it resumes where it was."""

    # The lease's times (design §5; the same on every member, since both agents apply them alone)
    skew: Duration = 5
    """e: a cluster whose clock is off by more gets no new leases. NTP keeps hosts within milliseconds; 5 s is
    what a host without it drifts in a few days."""
    drain: Duration = 30
    """D: how long a lender lets the borrower's pods end; Kubernetes' default grace period."""
    quarantine: Duration = 15
    """Q: after an unclean end, devices rest for this long beyond the last moment anybody may use them."""
    hold_timeout: Duration = 60
    """A lender that doesn't answer for this long loses the lease it was asked to hold."""
    silence: Duration = 45
    """A cluster that says nothing for this long (four heartbeats) is silent: nothing is placed there."""
    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """How often one request is placed at most; all but the first follow a conflict with a lender's own work."""

    # What data costs that is elsewhere
    egress_price: Amount = 90_000
    """US dollars per gigabyte of a request's ``data`` that has to leave its region: what large clouds list for their
    first terabytes to the internet. Counts in caps and budgets; requests that name no data cost nothing more."""
    egress: Routes = {}
    """The same for single ways, from → to: ``{"eu-west": {"us-east": "0.02"}}``, as a table in the file and as JSON
    elsewhere. Within a region it is free, unless said here."""

    # How long it remembers
    keep_answers: Duration = 86_400
    """An Idempotency-Key is remembered for this long: longer than any client keeps repeating itself."""
    keep_events: Duration = 7 * 86_400
    """A watch can resume within this time; whoever was away longer lists again."""

    # What it writes
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is logged; one line per request is ``info``."""
    log_format: Literal["auto", "json", "console"] = "auto"
    """``auto``: for people on a terminal, JSON elsewhere."""

    @model_validator(mode="after")
    def _files_come_in_pairs(self) -> "Settings":
        given = (self.tls_cert_file is not None) + (self.tls_key_file is not None)
        if given != (2 if self.tls == "files" else 0):
            raise ValueError("tls_cert_file and tls_key_file are given together, and only with tls=files")
        return self

    @property
    def database(self) -> str:
        """Where the store is. Secret, like ``database_url``."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.data_dir.absolute() / 'broker.db'}"

    @property
    def lease_keys(self) -> Path:
        """The file of the keys that sign leases."""
        return self.lease_keys_file or self.data_dir / "lease-keys.json"


def read_settings(*, arguments: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """Settings from arguments (None: not given), environment and file; ``BadSettings`` with a sentence."""
    given = {name: value for name, value in arguments.items() if value is not None}
    variables = {
        name.removeprefix(PREFIX).lower(): value
        for name, value in environment.items()
        if name.startswith(PREFIX) and not _is_service_link(name.removeprefix(PREFIX), value)
    }
    file = given.pop("file", None) or variables.pop("file", None)
    variables.pop("file", None)
    values = {**(_from_file(Path(file)) if file else {}), **variables, **given}
    if isinstance(names := values.get("names"), str):
        values["names"] = [name.strip() for name in names.split(",") if name.strip()]
    if isinstance(routes := values.get("egress"), str):
        values["egress"] = _json(routes)
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        raise BadSettings("; ".join(_sentence(problem["loc"], problem["msg"]) for problem in error.errors())) from None


def reference() -> str:
    """All settings as a page for people (Markdown): committed as ``docs/settings.md``."""
    schema = Settings.model_json_schema(mode="serialization")["properties"]
    rows = []
    for name, field in Settings.model_fields.items():
        default = schema[name].get("default")
        shown = ", ".join(default) if isinstance(default, list) else default
        words = " ".join((field.description or "").split()).replace("``", "`").replace("|", "\\|")
        rows.append(f"| `{name}` | {'' if shown is None else f'`{shown}`'} | {words} |")
    return "\n".join([_HEAD.strip(), "", "| setting | default | meaning |", "|---|---|---|", *rows, ""])


_HEAD = """
# The broker's settings

Each can be an argument (`--port 8443`), a variable (`LENDMESH_BROKER_PORT=8443`) or a line in a TOML file
(`port = 8443`; the file is named by `--file` or `LENDMESH_BROKER_FILE`); the first of these that is there counts. An
unknown name is an error. Durations have units (`10s`, `1h30m`). Made by `python -m broker settings`.
"""


def _is_service_link(name: str, value: str) -> bool:
    """What Kubernetes puts into every pod's environment when there is a Service called ``lendmesh-broker``."""
    return (
        name.startswith("SERVICE_")
        or (name.startswith("PORT") and re.match(r"(tcp|udp|sctp)://", value) is not None)
        or (re.fullmatch(r"PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?", name) is not None)
    )


def _from_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSettings(f"the settings file {path} can't be read: {error}") from None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise BadSettings('egress: here it is written as JSON: {"eu-west": {"us-east": "0.02"}}') from None


def _sentence(where: tuple[int | str, ...], message: str) -> str:
    """The setting's name and what is wrong with it; never its value, which may be a secret."""
    name = ".".join(str(part) for part in where)
    if message == "Extra inputs are not permitted":
        return f"there is no setting {name[:64]!r}"
    return f"{name}: {message}" if name else message
