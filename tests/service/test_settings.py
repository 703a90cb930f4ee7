"""The environment of the server: defaults, what wins, and what a bad value is answered with."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from graybox.errors import Invalid
from graybox.service.settings import Settings, TlsSettings, settings_from_environment


def test_defaults_bind_loopback_only() -> None:
    assert settings_from_environment({}) == Settings(
        host="127.0.0.1", port=50051, max_message_bytes=256 * 1024 * 1024, tokens=(), tls=None
    )


def test_environment_is_read_and_flags_win() -> None:
    env = {"GRPC_BACKEND_HOST": "0.0.0.0", "GRPC_BACKEND_PORT": "6000", "GRPC_MAX_MESSAGE_BYTES": "1000000"}
    assert settings_from_environment(env) == Settings(host="0.0.0.0", port=6000, max_message_bytes=1_000_000)
    assert settings_from_environment(env, host="::1", port=0) == Settings("::1", 0, 1_000_000)


def test_a_flag_hides_even_a_bad_variable() -> None:
    assert settings_from_environment({"GRPC_BACKEND_PORT": "x"}, port=7).port == 7


def test_tokens_of_both_variables_once_each() -> None:
    env = {"GRPC_AUTH_TOKEN": " one ", "GRPC_AUTH_TOKENS": "two, one,,three "}
    assert settings_from_environment(env).tokens == ("one", "two", "three")


@pytest.mark.parametrize("text", ["1", "true", "YES", "on"])
def test_tls_names_its_files(tmp_path: Path, text: str) -> None:
    files = {name: tmp_path / name for name in ("cert", "key", "ca")}
    for file in files.values():
        file.write_text("x")
    env = {
        "GRPC_TLS_ENABLED": text,
        "GRPC_TLS_CERT_FILE": str(files["cert"]),
        "GRPC_TLS_KEY_FILE": str(files["key"]),
    }
    assert settings_from_environment(env).tls == TlsSettings(files["cert"], files["key"])
    env["GRPC_TLS_CA_FILE"] = str(files["ca"])
    assert settings_from_environment(env).tls == TlsSettings(files["cert"], files["key"], files["ca"])


@pytest.mark.parametrize("text", ["0", "false", "No", "off", ""])
def test_tls_switched_off_ignores_its_files(text: str) -> None:
    assert settings_from_environment({"GRPC_TLS_ENABLED": text, "GRPC_TLS_CERT_FILE": "/nowhere"}).tls is None


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("GRPC_BACKEND_PORT", "x"),
        ("GRPC_BACKEND_PORT", "-1"),
        ("GRPC_BACKEND_PORT", "65536"),
        ("GRPC_BACKEND_PORT", "٣"),
        ("GRPC_BACKEND_PORT", "9" * 5000),
        ("GRPC_BACKEND_HOST", "a b"),
        ("GRPC_MAX_MESSAGE_BYTES", "0"),
        ("GRPC_MAX_MESSAGE_BYTES", "1e6"),
        ("GRPC_MAX_MESSAGE_BYTES", str(2**31)),
        ("GRPC_TLS_ENABLED", "maybe"),
    ],
)
def test_a_bad_value_names_the_variable(variable: str, value: str) -> None:
    with pytest.raises(Invalid, match=re.escape(variable)):
        settings_from_environment({variable: value})


@pytest.mark.parametrize("variable", ["GRPC_AUTH_TOKEN", "GRPC_AUTH_TOKENS"])
def test_a_bad_token_is_named_but_not_shown(variable: str) -> None:
    with pytest.raises(Invalid, match=variable) as error:
        settings_from_environment({variable: "hush hush"})
    assert "hush" not in str(error.value)


def test_tls_without_a_file_names_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "pem"
    file.write_text("x")
    env = {"GRPC_TLS_ENABLED": "1"}
    with pytest.raises(Invalid, match="GRPC_TLS_CERT_FILE is not set"):
        settings_from_environment(env)
    env["GRPC_TLS_CERT_FILE"] = str(file)
    with pytest.raises(Invalid, match="GRPC_TLS_KEY_FILE is not set"):
        settings_from_environment(env)
    env["GRPC_TLS_KEY_FILE"] = str(tmp_path / "missing")
    with pytest.raises(Invalid, match=r"GRPC_TLS_KEY_FILE='.*missing': there is no such file"):
        settings_from_environment(env)
    env |= {"GRPC_TLS_KEY_FILE": str(file), "GRPC_TLS_CA_FILE": str(tmp_path)}
    with pytest.raises(Invalid, match="GRPC_TLS_CA_FILE"):
        settings_from_environment(env)


def test_settings_made_by_hand_are_checked_too() -> None:
    with pytest.raises(Invalid, match="65535"):
        Settings(port=70_000)
    with pytest.raises(Invalid, match="host"):
        Settings(host="")
    with pytest.raises(Invalid, match="token"):
        Settings(tokens=("",))


def test_settings_do_not_show_their_tokens() -> None:
    assert "hush" not in repr(Settings(tokens=("hush",)))
