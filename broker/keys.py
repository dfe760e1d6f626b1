"""The keys that sign leases, in one file that only the broker can read.

The file is a private JWK set (RFC 7517); the first key signs, and all of them are in the public key set, so that a
lease signed by an older key can still be verified. It is made once, whole or not at all, and never overwritten:
a lease outlives the process that signed it.
"""

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path

from broker.kit.jose import SigningKey


class KeysUnreadable(Exception):
    """The key file is there but can't be used; nothing is overwritten."""


def lease_keys(path: Path) -> list[SigningKey]:
    """The keys in ``path``, the signing one first; made there on the first start."""
    if not path.exists():
        first = SigningKey.generate()
        write_secret(path, json.dumps({"keys": [first.private_jwk()]}).encode(), replace=False)
    try:
        keys = [SigningKey.from_private_jwk(jwk) for jwk in json.loads(path.read_bytes())["keys"]]
    except Exception as error:
        raise KeysUnreadable(f"{path} doesn't hold lease keys; restore it from a backup") from error
    if not keys:
        raise KeysUnreadable(f"{path} holds no key; restore it from a backup")
    return keys


def write_secret(path: Path, content: bytes, *, replace: bool) -> None:
    """``content`` in ``path`` with mode 0600, durable and whole or not at all.

    Without ``replace`` a file that is there stays as it is, also when two processes race: the first one wins.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            beside.replace(path)
        else:
            with suppress(FileExistsError):
                os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
