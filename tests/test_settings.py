"""Settings: read once, in a known order, with a sentence for every mistake and never a secret in it."""

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from broker.app import rules
from broker.domain.rules import Rules
from broker.settings import BadSettings, Settings, read_settings, reference


def test_an_argument_beats_the_environment_which_beats_the_file_which_beats_the_default(tmp_path):
    file = tmp_path / "broker.toml"
    file.write_text('port = 1\nhost = "10.0.0.1"\nskew = "2s"\nnames = ["a.example", "b.example"]\n')
    found = read_settings(
        arguments={"port": "3", "host": None, "file": str(file)},
        environment={"LENDMESH_BROKER_PORT": "2", "LENDMESH_BROKER_HOST": "10.0.0.2", "HOME": "/"},
    )
    assert (found.port, found.host, found.skew, found.drain) == (3, "10.0.0.2", 2, 30)
    assert found.names == ("a.example", "b.example")


def test_the_environment_can_name_the_file_and_give_lists(tmp_path):
    file = tmp_path / "broker.toml"
    file.write_text("port = 1\n")
    environment = {"LENDMESH_BROKER_FILE": str(file), "LENDMESH_BROKER_NAMES": "broker.example, 10.0.0.1"}
    found = read_settings(arguments={}, environment=environment)
    assert (found.port, found.names) == (1, ("broker.example", "10.0.0.1"))


def test_ways_of_data_are_a_table_in_the_file_and_json_elsewhere(tmp_path):
    file = tmp_path / "broker.toml"
    file.write_text('egress_price = "0.12"\n[egress.eu-west]\nus-east = "0.02"\n')
    found = read_settings(arguments={"file": str(file)}, environment={})
    assert (found.egress_price, found.egress) == (120_000, {"eu-west": {"us-east": 20_000}})
    there = read_settings(arguments={}, environment={"LENDMESH_BROKER_EGRESS": '{"a": {"b": "1", "a": "0.5"}}'})
    assert there.egress == {"a": {"b": 1_000_000, "a": 500_000}}


def test_what_kubernetes_says_about_a_service_of_our_name_is_no_setting():
    environment = {
        "LENDMESH_BROKER_SERVICE_HOST": "10.0.0.1",
        "LENDMESH_BROKER_SERVICE_PORT": "8443",
        "LENDMESH_BROKER_SERVICE_PORT_API": "8443",
        "LENDMESH_BROKER_PORT": "tcp://10.0.0.1:8443",
        "LENDMESH_BROKER_PORT_8443_TCP": "tcp://10.0.0.1:8443",
        "LENDMESH_BROKER_PORT_8443_TCP_PROTO": "tcp",
        "LENDMESH_BROKER_PORT_8443_TCP_PORT": "8443",
        "LENDMESH_BROKER_PORT_8443_TCP_ADDR": "10.0.0.1",
    }
    assert read_settings(arguments={}, environment=environment) == Settings()


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        ({}, {"LENDMESH_BROKER_PROT": "1"}, "there is no setting 'prot'"),
        ({"port": "x"}, {}, "port: "),
        ({"port": "65536"}, {}, "port: "),
        ({"skew": "5"}, {}, "skew: "),
        ({"tls": "none"}, {}, "tls: "),
        ({"tls": "files"}, {}, "given together"),
        ({"tls_cert_file": "a", "tls_key_file": "b"}, {}, "only with tls=files"),
        ({"file": "/nowhere/broker.toml"}, {}, "can't be read"),
        ({"egress": "eu-west"}, {}, "egress: here it is written as JSON"),
        ({"egress": '{"eu-west": {"us-east": 0.02}}'}, {}, "egress.eu-west.us-east: .*amount of money is a text"),
        ({"egress_price": "-1"}, {}, "egress_price: "),
    ],
)
def test_a_mistake_is_named(arguments, environment, says):
    with pytest.raises(BadSettings, match=says):
        read_settings(arguments=arguments, environment=environment)


def test_a_secret_is_in_no_message_and_in_no_representation():
    secret = "postgresql://lendmesh:hunter2@db/broker"
    found = read_settings(arguments={}, environment={"LENDMESH_BROKER_DATABASE_URL": secret})
    assert found.database == secret
    assert "hunter2" not in repr(found)
    with pytest.raises(BadSettings) as raised:
        read_settings(arguments={"port": "x"}, environment={"LENDMESH_BROKER_DATABASE_URL": secret})
    assert "hunter2" not in str(raised.value)


def test_every_setting_says_what_it_is_and_cannot_be_changed_afterwards():
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert len(field.description) > 30, name
    with pytest.raises(ValidationError):
        Settings().port = 1


def test_the_committed_page_of_settings_is_the_current_one():
    page = Path(__file__).parents[1] / "docs" / "settings.md"
    assert page.read_text(encoding="utf-8") == reference(), "run: python -m broker settings > docs/settings.md"
    assert "| `skew` | `5s` |" in reference()


def test_the_defaults_are_those_of_the_rules():
    assert rules(Settings()) == Rules()


def test_the_command_says_in_one_line_what_is_wrong_and_how_it_ended(tmp_path):
    def broker(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "broker", *arguments], capture_output=True, text=True, cwd=tmp_path, check=False
        )

    wrong = broker("serve", "--port", "x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.startswith("broker: port: ")
    assert wrong.stderr.count("\n") == 1
    impossible = broker("migrate", "--data-dir", str(tmp_path), "--database-url", "mysql://db/x")
    assert impossible.returncode == 1
    assert impossible.stderr.strip().splitlines()[-1].startswith("broker: ")
