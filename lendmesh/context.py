"""Which broker, with which token, trusted by which CA.

In order: what the command line says, the environment (``LENDMESH_URL``, ``LENDMESH_TOKEN``, ``LENDMESH_CA``), the file
that ``lendmesh login`` wrote. The file is the user's own (mode 0600) and holds the path of a token file, or the token.
"""

import json
import os
import stat
from dataclasses import asdict, dataclass
from pathlib import Path


class NoContext(Exception):
    """The command doesn't know which broker to ask."""


@dataclass(frozen=True, slots=True)
class Context:
    """A broker and how to talk to it."""

    url: str
    token: str
    ca: str | None = None
    """A PEM file; None: the system's own authorities."""


def context_file() -> Path:
    """Where ``lendmesh login`` writes."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(os.environ.get("LENDMESH_CONTEXT", Path(home) / "lendmesh" / "context.json"))


def save(context: Context) -> Path:
    """Remember ``context`` for the commands to come."""
    path = context_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR)
    os.fchmod(handle, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(handle, "w") as file:
        json.dump(asdict(context), file, indent=2)
    return path


def _saved() -> dict[str, str | None]:
    try:
        saved = json.loads(context_file().read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise NoContext(f"{context_file()} cannot be read ({error}); say `lendmesh login` again") from error
    return saved if isinstance(saved, dict) else {}


def find(*, url: str | None, token_file: str | None, ca: str | None) -> Context:
    """The context the user means; ``NoContext`` says what is missing."""
    saved = _saved()
    chosen_url = url or os.environ.get("LENDMESH_URL") or saved.get("url")
    if not chosen_url:
        raise NoContext("no broker is named: give --url, set LENDMESH_URL, or say `lendmesh login --url …` once")
    token: str | None
    if token_file:
        try:
            token = Path(token_file).read_text().strip()
        except OSError as error:
            raise NoContext(f"the token file cannot be read: {error}") from error
    else:
        token = os.environ.get("LENDMESH_TOKEN") or saved.get("token")
    if not token:
        raise NoContext("no token: give --token-file, set LENDMESH_TOKEN, or say `lendmesh login --token-file …` once")
    return Context(chosen_url.rstrip("/"), token, ca or os.environ.get("LENDMESH_CA") or saved.get("ca"))
