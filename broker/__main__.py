"""``python -m broker serve | migrate | openapi | settings``: for containers. People use ``lendmesh broker …``."""

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from typing import Any

from broker.settings import BadSettings, Settings, read_settings, reference

SWITCH_S = 0.0005
"""The writer's thread gives up the interpreter with every statement and gets it back after at most this long; with
Python's own 5 ms a batch of a hundred statements could wait for half a second while others compute."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit codes: 0 done, 1 it could not be done, 2 it was asked wrongly."""
    parser = argparse.ArgumentParser(prog="python -m broker", description="The Lendmesh broker.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, words in (
        ("serve", "serve until SIGTERM; every setting can also be LENDMESH_BROKER_<NAME>"),
        ("migrate", "bring the database to this version's schema, then end"),
    ):
        below = verbs.add_parser(verb, help=words, description=words)
        below.add_argument("--file", help="TOML file with settings")
        for name in Settings.model_fields:
            below.add_argument(f"--{name.replace('_', '-')}", dest=name)
    verbs.add_parser("openapi", help="print the OpenAPI document")
    verbs.add_parser("settings", help="print all settings with their meaning")
    given = vars(parser.parse_args(arguments))
    verb = given.pop("verb")
    if verb == "openapi":
        from broker.web import openapi

        sys.stdout.buffer.write(openapi.encode(openapi.document()))
        return 0
    if verb == "settings":
        sys.stdout.write(reference())
        return 0
    try:
        settings = read_settings(arguments=given, environment=os.environ)
    except BadSettings as error:
        print(f"broker: {error}", file=sys.stderr)
        return 2
    return run(verb, settings)


def run(verb: str, settings: Settings) -> int:
    """Carry out ``serve`` or ``migrate``; what a person can put right is said in one line."""
    from broker.app import LoopDied, serve
    from broker.keys import KeysUnreadable
    from broker.kit import logs, memory
    from broker.store.database import BadDatabase
    from broker.store.migrate import migrate
    from broker.tls import BadCertificate

    logs.configure(
        level=settings.log_level.upper(), json=None if settings.log_format == "auto" else settings.log_format == "json"
    )
    sys.setswitchinterval(SWITCH_S)
    memory.few_arenas()
    memory.little_garbage()
    try:
        if verb == "migrate":
            settings.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            migrate(settings.database)
        else:
            with asyncio.Runner(loop_factory=_loop_factory()) as runner:
                runner.run(serve(settings))
    except (BadDatabase, BadCertificate, KeysUnreadable, LoopDied, OSError) as error:
        print(f"broker: {error}", file=sys.stderr)
        return 1
    return 0


def _loop_factory() -> Any:
    """uvloop where there is one: about a third less time per request."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


if __name__ == "__main__":
    sys.exit(main())
