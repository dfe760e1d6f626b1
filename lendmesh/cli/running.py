"""Running the parts: ``broker serve | migrate | openapi`` and ``agent run``."""

import argparse
import json
import os

from lendmesh.cli import MISUSED, OK, Failed


def _settings(arguments: argparse.Namespace) -> "object":
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
    from broker.__main__ import serve as run

    return run(_settings(arguments))


def migrate(arguments: argparse.Namespace) -> int:
    from broker.__main__ import migrate as run

    return run(_settings(arguments))


async def agent(arguments: argparse.Namespace) -> int:
    from clusteragent.__main__ import serve
    from pydantic import ValidationError

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
    from broker.web.openapi import document

    print(json.dumps(document(), indent=2, ensure_ascii=False))
    return OK
