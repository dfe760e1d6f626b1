"""Running the parts: ``broker serve | migrate | openapi`` and ``agent run``."""

import argparse
import os
from typing import TYPE_CHECKING

from lendmesh.cli import MISUSED, OK, Failed

if TYPE_CHECKING:
    from broker.settings import Settings


def _settings(arguments: argparse.Namespace) -> "Settings":
    from broker.settings import BadSettings, read_settings

    given = {
        "data_dir": arguments.data,
        "database_url": arguments.database,
        "host": getattr(arguments, "host", None),
        "port": getattr(arguments, "port", None),
        "file": arguments.file,
    }
    try:
        return read_settings(arguments=given, environment=os.environ)
    except BadSettings as error:
        raise Failed(str(error), code=MISUSED) from error


def serve(arguments: argparse.Namespace) -> int:
    from broker.__main__ import run

    return run("serve", _settings(arguments))


def migrate(arguments: argparse.Namespace) -> int:
    from broker.__main__ import run

    return run("migrate", _settings(arguments))


async def agent(arguments: argparse.Namespace) -> int:
    from pydantic import ValidationError

    from clusteragent.__main__ import serve
    from clusteragent.settings import PREFIX, Settings

    options = {
        "cluster": arguments.cluster,
        "kubeconfig": arguments.kubeconfig,
        "broker_url": arguments.broker,
        "broker_ca_file": arguments.ca,
        "join_token_file": arguments.join_token_file,
        "identity_file": arguments.identity_file,
        "namespace": arguments.namespace,
    }
    given = {PREFIX + name.upper(): value for name, value in options.items() if value is not None}
    try:
        settings = Settings.from_env({**os.environ, **given})
    except ValidationError as error:
        lines = [f"  {PREFIX}{'.'.join(map(str, item['loc'])).upper()}: {item['msg']}" for item in error.errors()]
        raise Failed("the agent's settings make no sense:\n" + "\n".join(lines), code=MISUSED) from error
    await serve(settings)
    return OK


def openapi(arguments: argparse.Namespace) -> int:
    from broker.__main__ import main

    return main(["openapi"])
