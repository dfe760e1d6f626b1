"""What the command promises to whoever types it, and to the programs that call it: words, exit codes, files."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker.kit.jose import SigningKey
from lendmesh.cli import run
from lendmesh.context import Context
from tests.federations import demo_federation

H100 = ["--cluster", "cirrus", "--count", "2", "--duration", "10m", "--price-cap", "2.80", "--driver", "gpu.nvidia.com"]
WHOLE = [*H100, "--selector", "device.attributes['gpu.nvidia.com'].type == 'gpu'"]
TOO_CHEAP = ["--cluster", "cirrus", "--count", "2", "--duration", "10m", "--price-cap", "0.01"]


@dataclass
class Said:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Say = Callable[..., Said]


@pytest.fixture(scope="module")
def broker() -> Iterator[Context]:
    with demo_federation() as context:
        yield context


@pytest.fixture
def say(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> Say:
    """Runs the command; as the administrator of the demo's broker where a test asks for ``broker`` as well."""
    for name in [name for name in os.environ if name.startswith("LENDMESH_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("LENDMESH_CONTEXT", str(tmp_path / "context" / "context.json"))
    if "broker" in request.fixturenames:
        context: Context = request.getfixturevalue("broker")
        for name, value in (("URL", context.url), ("TOKEN", context.token), ("CA", context.ca)):
            monkeypatch.setenv(f"LENDMESH_{name}", value or "")

    def said(*words: str) -> Said:
        capfd.readouterr()
        try:
            code = run(list(words))
        except SystemExit as ended:
            code = int(ended.code or 0)
        printed = capfd.readouterr()
        return Said(code, printed.out, printed.err)

    return said


# -- used wrongly: 2, and a sentence ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["frobnicate"], "invalid choice: 'frobnicate'"),
        (["request", "--count", "many"], "invalid int value: 'many'"),
        (["request", "--count", "4"], "--cluster: is missing"),
        (["request", *H100, "--count", "0"], "--count: should be greater than or equal to 1"),
        (["request", *H100, "--duration", "soon"], "--duration: 'soon' is not a duration; write it like 90s"),
        (["request", *H100, "--price-cap", "cheap"], "--price-cap: "),
        (["request", "-f", "/nowhere/at/all.yaml"], "/nowhere/at/all.yaml cannot be read"),
        (["quote", *H100, "--confidential", "maybe"], "invalid choice: 'maybe'"),
        (["lease", "verify", "x"], "the following arguments are required: --jwks"),
        (["lease", "verify", "/nowhere", "--jwks", "/nowhere"], "/nowhere cannot be read"),
        (["lease", "kubeconfig", "lse-1", "--kubeconfig", "/nowhere"], "there is no kubeconfig /nowhere"),
        (["inventory", "--kubeconfig", "/nowhere"], "there is no kubeconfig /nowhere"),
        (["demo", "--kubeconfig", "/nowhere"], "give --kubeconfig twice or more, the borrower first"),
        (["demo", "--kubeconfig", "/nowhere", "--kubeconfig", "/else"], "there is no kubeconfig /nowhere"),
        (["broker", "serve", "--port", "99999"], "port: Input should be less than or equal to 65535"),
        (["agent", "run"], "LENDMESH_AGENT_CLUSTER: "),
        (["offers"], "no broker is named: give --url, set LENDMESH_URL, or say `lendmesh login"),
        (["offers", "--url", "https://127.0.0.1:1"], "no token: give --token-file"),
        (["offers", "--url", "https://127.0.0.1:1", "--token-file", "/nowhere"], "the token file cannot be read"),
    ],
)
def test_what_is_typed_wrongly_is_said_in_a_sentence_and_ends_with_2(say: Say, words: list[str], sentence: str) -> None:
    said = say(*words)
    assert said.code == 2
    assert sentence in said.err
    assert said.out == ""
    assert "Traceback" not in said.err


@pytest.mark.parametrize("words", [[], ["lease"], ["token"], ["cluster"], ["policy"], ["broker"], ["agent"]])
def test_a_verb_alone_shows_its_help_and_ends_with_2(say: Say, words: list[str]) -> None:
    said = say(*words)
    assert said.code == 2
    assert said.out.startswith(f"usage: lendmesh {' '.join(words)}".rstrip())


@pytest.mark.parametrize("contents", [b"no certificate", None], ids=["not a certificate", "not there"])
def test_a_ca_that_cannot_be_used_is_said_with_its_name(
    say: Say, broker: Context, tmp_path: Path, contents: bytes | None
) -> None:
    ca = tmp_path / "ca.pem"
    if contents is not None:
        ca.write_bytes(contents)
    said = say("offers", "--ca", str(ca))
    assert said.code == 2
    assert said.err.startswith(f"lendmesh: the CA file {ca} can't be used: ")
    assert said.err.count("\n") == 1


def test_a_file_that_is_not_a_request_says_which_field_is_wrong(say: Say, broker: Context, tmp_path: Path) -> None:
    file = tmp_path / "request.yaml"
    file.write_text("cluster: cirrus\ndevices: {count: 1, colour: blue}\nduration: 1h\nprice_cap: {amount: '1'}\n")
    said = say("quote", "-f", str(file))
    assert said.code == 2
    assert "  devices.colour: there is no such field" in said.err
    file.write_text("- a list")
    assert "must hold a mapping" in say("quote", "-f", str(file)).err
    file.write_text("{unclosed: [")
    assert "is neither YAML nor JSON" in say("quote", "-f", str(file)).err
    file.write_text("a: " + "x" * (1 << 20))
    assert "is larger than 1 MiB" in say("quote", "-f", str(file)).err


# -- no: 1; away: 3 ---------------------------------------------------------------------------------------------------


def test_what_the_broker_refuses_is_its_own_sentence_and_ends_with_1(say: Say, broker: Context) -> None:
    said = say("lease", "show", "lse-none")
    assert (said.code, said.out) == (1, "")
    assert said.err == "lendmesh: There is no lease 'lse-none' that you may see.\n"
    assert say("quote", *[word.replace("cirrus", "nobody") for word in H100]).code == 1
    assert say("cancel", "req-none").code == 1
    assert say("cluster", "remove", "nobody").code == 1


def test_a_token_that_is_not_valid_is_refused_with_what_to_do(say: Say, broker: Context, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("lmt_" + "x" * 43)
    said = say("offers", "--token-file", str(token))
    assert said.code == 1
    assert "lendmesh login" in said.err
    assert "lmt_" not in said.err


def test_a_broker_that_does_not_answer_ends_with_3(say: Say, broker: Context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    said = say("offers", "--url", f"https://127.0.0.1:{port}")
    assert said.code == 3
    assert "can't be reached" in said.err
    assert "Is it running" in said.err


def test_a_certificate_nobody_vouches_for_ends_with_3_and_names_the_ca(
    say: Say, broker: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LENDMESH_CA")
    said = say("offers")
    assert said.code == 3
    assert "give the broker's CA with --ca" in said.err


# -- asking -----------------------------------------------------------------------------------------------------------


def test_a_request_says_each_step_where_it_goes_and_what_lost(say: Say, broker: Context) -> None:
    said = say("request", *WHOLE)
    assert said.code == 0
    steps = re.findall(r"^  req-\w+ +\d+\.\d\d s  (\w+): ", said.out, re.M)
    assert steps == ["queued", "solving", "reserved", "held", "active", "mirrored"]
    assert "2 × NVIDIA H100 80GB HBM3 from aurora at $2.40 a device-hour: at most $0.80" in said.out
    assert re.search(r"^INSTEAD OF +CLUSTER +PRICE/H +BECAUSE$", said.out, re.M)
    lease = re.search(r"lendmesh lease show (lse-\w+)", said.out)
    assert lease is not None
    assert say("lease", "return", lease[1], "--follow").out.splitlines()[-1] == f"{lease[1]} is Ended"


def test_as_json_a_request_is_one_document_and_the_steps_go_elsewhere(say: Say, broker: Context) -> None:
    said = say("request", *WHOLE, "-o", "json")
    assert said.code == 0
    assert said.json["state"] == "Active"
    assert said.json["step"] == "mirrored"
    assert "mirrored: both clusters hold the claims" in said.err
    say("lease", "return", said.json["lease"], "--follow")


def test_a_request_that_fits_nowhere_ends_with_1_and_says_first_what_would_help(say: Say, broker: Context) -> None:
    said = say("request", *TOO_CHEAP)
    assert said.code == 1
    fits, why = said.out.index("It would fit with"), said.out.index("Why not")
    assert fits < why
    assert "  price cap $0.45 → aurora" in said.out
    assert re.search(r"^ +\d+ offers +above the price cap$", said.out, re.M)
    as_json = say("request", *TOO_CHEAP, "-o", "json")
    assert as_json.code == 1
    assert as_json.json["state"] == "Refused"
    assert {"would-fit", "price-cap"} <= {reason["reason"] for reason in as_json.json["reasons"]}


def test_a_gang_is_asked_for_by_its_workers_and_shows_their_nodes(say: Say, broker: Context) -> None:
    said = say("quote", *WHOLE, "--workers", "2", "--same-node")
    assert said.code == 0
    assert "4 × NVIDIA H100 80GB HBM3 from aurora" in said.out
    assert re.search(r"^  for 2 workers: \d on \S+", said.out, re.M)
    assert "--workers: should be greater than or equal to 1" in say("quote", *WHOLE, "--workers", "0").err


def test_who_must_not_be_interrupted_says_so_and_hears_what_would_help(say: Say, broker: Context) -> None:
    long = ["--duration", "23h", "--uninterrupted"]
    said = say("quote", *WHOLE, *long)
    assert said.code == 1
    assert re.search(r"^  interruptible offers allowed → \w+", said.out, re.M)
    assert "its lender may reclaim before the end" in said.out


def test_the_way_of_the_data_is_told_apart_from_the_devices(say: Say, broker: Context) -> None:
    said = say("quote", *WHOLE, "--price-cap", "99", "--data-region", "elsewhere", "--data-gb", "10")
    assert said.code == 0
    assert "$0.90 of that for bringing the data there" in said.out
    assert "bringing" not in say("quote", *WHOLE).out
    assert "--data-region: " in say("quote", *WHOLE, "--data-gb", "10").err
    assert "--data-gb: " in say("quote", *WHOLE, "--data-region", "elsewhere").err


def test_a_quote_holds_nothing(say: Say, broker: Context) -> None:
    before = say("offers", "-o", "json").json
    said = say("quote", *WHOLE)
    assert said.code == 0
    assert "from aurora at $2.40" in said.out
    assert say("quote", *TOO_CHEAP).code == 1
    after = say("offers", "-o", "json").json
    least = {offer["id"]: offer["devices"] for offer in before}  # what was returned a moment ago may come on top
    assert all(offer["devices"] >= least[offer["id"]] for offer in after)
    assert len(after) == len(before)
    assert say("leases", "--state", "Active", "-o", "json").json == []


@pytest.mark.parametrize("form", [yaml.safe_dump, json.dumps], ids=["yaml", "json"])
def test_a_request_may_be_a_file_and_options_go_before_it(
    say: Say, broker: Context, tmp_path: Path, form: Callable[[Any], str]
) -> None:
    file = tmp_path / "request"
    wish = {
        "cluster": "cirrus",
        "devices": {"count": 4, "driver": "tpu.google.com"},
        "duration": "10m",
        "price_cap": {"amount": "1.50"},
    }
    file.write_text(form(wish))
    said = say("quote", "-f", str(file), "-o", "json")
    assert said.code == 0
    assert said.json["placement"]["cluster"] == "borealis"
    other = say("quote", "-f", str(file), "--driver", "gpu.nvidia.com", "-o", "json")
    assert other.json["placement"]["cluster"] == "aurora"


def test_a_request_may_come_from_stdin(say: Say, broker: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    monkeypatch.setattr(
        sys, "stdin", io.StringIO("{cluster: cirrus, devices: {count: 1}, duration: 10m, price_cap: {amount: '3'}}")
    )
    assert say("quote", "-f", "-").code == 0


def test_without_following_a_request_is_its_id_alone(say: Say, broker: Context) -> None:
    said = say("request", *TOO_CHEAP, "--no-follow")
    assert said.code == 0
    assert re.fullmatch(r"req-\w+\n", said.out)
    shown = say("requests", said.out.strip())
    assert shown.code == 0
    assert said.out.strip() in shown.out


def test_a_request_that_waits_can_be_taken_back(say: Say, broker: Context) -> None:
    asked = say("request", *TOO_CHEAP, "--wait", "10m", "--no-follow").out.strip()
    assert say("cancel", asked).out == f"{asked} is taken back\n"
    assert say("requests", asked, "-o", "json").json["state"] == "Cancelled"


# -- a lease, and its proof -------------------------------------------------------------------------------------------


@pytest.fixture
def lease(say: Say, broker: Context) -> Iterator[str]:
    found: str = say("request", *WHOLE, "-o", "json").json["lease"]
    yield found
    say("lease", "return", found, "--follow")


@pytest.fixture
def papers(say: Say, lease: str, tmp_path: Path) -> tuple[Path, Path]:
    """The signed lease and the broker's key set, as files."""
    signed, keys = tmp_path / "lease.jws", tmp_path / "jwks.json"
    signed.write_text(say("lease", "token", lease).out)
    keys.write_text(say("keys").out)
    return signed, keys


def test_a_lease_verifies_offline_with_nothing_but_two_files(
    say: Say, papers: tuple[Path, Path], lease: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed, keys = papers
    for name in ("URL", "TOKEN", "CA"):
        monkeypatch.delenv(f"LENDMESH_{name}")
    said = say("lease", "verify", str(signed), "--jwks", str(keys))
    assert said.code == 0
    assert said.out.startswith(f"VERIFIED {lease}, signed by https://127.0.0.1:")
    assert "aurora lends 2 × NVIDIA H100 80GB HBM3 to cirrus" in said.out
    claims = say("lease", "verify", str(signed), "--jwks", str(keys), "-o", "json").json
    assert claims["jti"] == lease
    assert len(claims["lease"]["devices"]) == 2


def test_a_lease_that_was_changed_does_not_verify(say: Say, papers: tuple[Path, Path]) -> None:
    signed, keys = papers
    head, body, signature = signed.read_text().strip().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["exp"] += 1
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    signed.write_text(f"{head}.{forged}.{signature}")
    said = say("lease", "verify", str(signed), "--jwks", str(keys))
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("NOT VERIFIED: ")


def test_a_lease_does_not_verify_after_its_end(say: Say, papers: tuple[Path, Path]) -> None:
    signed, keys = papers
    said = say("lease", "verify", str(signed), "--jwks", str(keys), "--at", "2100-01-01T00:00:00Z")
    assert (said.code, said.out) == (1, "")
    assert "the lease ended at" in said.err
    assert say("lease", "verify", str(signed), "--jwks", str(keys), "--at", "yesterday").code == 2
    assert "no time zone" in say("lease", "verify", str(signed), "--jwks", str(keys), "--at", "2026-01-01T00:00").err


def test_a_lease_does_not_verify_under_another_brokers_keys(say: Say, papers: tuple[Path, Path]) -> None:
    signed, keys = papers
    keys.write_text(json.dumps({"keys": [SigningKey.generate().public_jwk()]}))
    said = say("lease", "verify", str(signed), "--jwks", str(keys))
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("NOT VERIFIED: ")
    keys.write_text("[]")
    assert say("lease", "verify", str(signed), "--jwks", str(keys)).code == 2


def test_a_lease_can_be_looked_at_renewed_and_given_back(say: Say, lease: str) -> None:
    shown = say("lease", "show", lease)
    assert re.search(rf"^{lease} +aurora +cirrus +2 +NVIDIA H100 80GB HBM3 +Active", shown.out, re.M)
    assert "gpu.nvidia.com/aurora-" in shown.out
    assert lease in say("leases", "--state", "Active").out
    assert re.match(
        rf"{lease} now ends in 5\dm|{lease} now ends in 1h", say("lease", "renew", lease, "--duration", "1h").out
    )
    assert say("lease", "return", lease, "--follow").code == 0
    assert lease not in say("leases", "--state", "Active").out
    assert say("lease", "renew", lease, "--duration", "1h").code == 1


# -- looking around ---------------------------------------------------------------------------------------------------


def test_every_list_is_a_table_json_and_yaml(say: Say, broker: Context) -> None:
    for words, has in ((["offers"], "aurora"), (["clusters"], "borealis"), (["token", "list"], "admin")):
        assert has in say(*words).out
        assert yaml.safe_load(say(*words, "-o", "yaml").out) != []
        assert isinstance(say(*words, "-o", "json").json, list)
    assert [offer["cluster"] for offer in say("offers", "--model", "MI300X", "-o", "json").json] == ["cirrus"]
    assert {offer["cluster"] for offer in say("offers", "--region", "us-east-1", "-o", "json").json} == {"borealis"}


def test_in_a_pipe_no_line_is_cut_or_folded(say: Say, broker: Context) -> None:
    lines = say("offers").out.splitlines()
    assert len(lines) == 1 + len(say("offers", "-o", "json").json)
    assert all(line == line.rstrip() for line in lines)
    assert lines[0].split()[-1] == "VALID"


def test_a_watch_says_what_happens_while_it_happens(say: Say, broker: Context) -> None:
    argv = [sys.executable, "-u", "-m", "lendmesh", "watch", "requests"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as watching:
        out = watching.stdout
        assert out is not None
        lines: list[str] = []
        heard = threading.Event()

        def listen() -> None:
            for line in out:
                lines.append(line)
                heard.set()

        listener = threading.Thread(target=listen)
        listener.start()
        asked = []
        while not heard.is_set():  # it takes a moment until it watches
            asked.append(say("request", *TOO_CHEAP, "--no-follow").out.strip())
            heard.wait(0.5)
        watching.terminate()
        listener.join()
    assert any(request in lines[0] for request in asked)


def test_a_burst_policy_is_made_shown_and_removed(say: Say, broker: Context, tmp_path: Path) -> None:
    file = Path(__file__).parents[1] / "docs" / "examples" / "burstpolicy.yaml"
    made = say("policy", "apply", "cirrus", "training", "-f", str(file))
    assert made.code == 0, made.err
    assert "cirrus" in say("policy", "list").out
    assert say("policy", "show", "cirrus", "training", "-o", "json").json["name"] == "training"
    assert say("policy", "delete", "cirrus", "training").code == 0
    assert "No burst policies" in say("policy", "list").out


# -- who may ----------------------------------------------------------------------------------------------------------


def test_login_keeps_the_context_where_only_its_user_can_read_it(
    say: Say, broker: Context, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = say("token", "create", "alice", "--tenant", "research", "--scope", "read").out.strip()
    token = tmp_path / "token"
    token.write_text(secret + "\n")
    for name in ("URL", "TOKEN", "CA"):
        monkeypatch.delenv(f"LENDMESH_{name}")
    said = say("login", "--url", broker.url, "--ca", str(broker.ca), "--token-file", str(token))
    assert said.code == 0
    assert "tenant research" in said.out
    assert secret not in said.out + said.err
    kept = Path(os.environ["LENDMESH_CONTEXT"])
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "tenant research; may: read" in say("whoami").out
    assert say("request", *WHOLE).code == 1  # it may only read
    kept.write_text("{")
    assert "say `lendmesh login` again" in say("whoami").err


def test_a_login_that_fails_keeps_nothing(say: Say, broker: Context, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("lmt_" + "y" * 43)
    assert say("login", "--token-file", str(token)).code == 1
    assert not Path(os.environ["LENDMESH_CONTEXT"]).exists()


def test_a_secret_is_printed_alone_so_that_it_can_be_piped(say: Say, broker: Context) -> None:
    made = say("token", "create", "ci", "--tenant", "research", "--scope", "request", "--scope", "read")
    assert re.fullmatch(r"lmt_\S+\n", made.out)
    listed = [token for token in say("token", "list", "-o", "json").json if token["name"] == "ci"]
    assert made.out.strip() not in json.dumps(listed)
    assert say("token", "revoke", listed[0]["id"]).code == 0
    join = say("cluster", "join-token", "newcomer", "--tenant", "research")
    assert re.fullmatch(r"lmj_\S+\n", join.out)
    assert "one use, for cluster newcomer" in join.err
