from __future__ import annotations

from pathlib import Path

import pytest

from graybox.dashboard.settings import SettingsError, Tls, read_settings


def flags(root: Path, *more: str) -> list[str]:
    return ["--root_directory", str(root), *more]


def test_without_anything_the_backend_is_found_under_the_root_and_the_dashboard_stays_on_this_machine(
    root: Path,
) -> None:
    settings = read_settings(flags(root), {})
    assert (settings.root, settings.backend, settings.token, settings.tls) == (root, "", "", None)
    assert (settings.host, settings.port, settings.on_loopback) == ("127.0.0.1", 8050, True)
    assert settings.url == "http://127.0.0.1:8050/"


def test_flags_win_over_the_environment(root: Path) -> None:
    environment = {"GRPC_BACKEND_HOST": "10.0.0.9", "GRPC_BACKEND_PORT": "6000"}
    assert read_settings(flags(root), environment).backend == "10.0.0.9:6000"
    assert read_settings(flags(root, "--backend", "10.0.0.1:7000"), environment).backend == "10.0.0.1:7000"


@pytest.mark.parametrize(
    ("environment", "address"),
    [
        ({"GRPC_BACKEND_HOST": "box"}, "box:50051"),
        ({"GRPC_BACKEND_PORT": "6000"}, "127.0.0.1:6000"),
        ({"GRPC_BACKEND_HOST": "0.0.0.0", "GRPC_BACKEND_PORT": "6000"}, "127.0.0.1:6000"),
        ({"GRPC_BACKEND_HOST": " ", "GRPC_BACKEND_PORT": ""}, ""),
    ],
)
def test_the_environment_names_the_backend(root: Path, environment: dict[str, str], address: str) -> None:
    assert read_settings(flags(root), environment).backend == address


def test_tokens_come_from_the_environment_and_are_never_shown(root: Path) -> None:
    assert read_settings(flags(root), {"GRPC_AUTH_TOKEN": "one", "GRPC_AUTH_TOKENS": "two,three"}).token == "one"
    settings = read_settings(flags(root), {"GRPC_AUTH_TOKENS": " two , three"})
    assert settings.token == "two"
    assert "two" not in repr(settings)


def test_tls_files_must_exist_and_come_in_pairs(root: Path, tmp_path: Path) -> None:
    authority, certificate = tmp_path / "ca.pem", tmp_path / "cert.pem"
    authority.write_text("a")
    certificate.write_text("c")
    on = {"GRPC_TLS_ENABLED": "true", "GRPC_TLS_CA_FILE": str(authority)}
    assert read_settings(flags(root), on).tls == Tls(authority)
    assert read_settings(flags(root), {**on, "GRPC_TLS_ENABLED": "0"}).tls is None
    with pytest.raises(SettingsError, match="belong together"):
        read_settings(flags(root), {**on, "GRPC_TLS_CERT_FILE": str(certificate)})
    with pytest.raises(SettingsError, match="there is no file"):
        read_settings(flags(root), {"GRPC_TLS_ENABLED": "1", "GRPC_TLS_CA_FILE": str(tmp_path / "none.pem")})
    with pytest.raises(SettingsError, match="use true or false"):
        read_settings(flags(root), {"GRPC_TLS_ENABLED": "maybe"})


def test_a_root_whose_last_part_is_missing_is_made_but_not_a_mistyped_path(tmp_path: Path) -> None:
    assert read_settings(flags(tmp_path / "new"), {}).root.is_dir()
    with pytest.raises(SettingsError, match="does not exist"):
        read_settings(flags(tmp_path / "no" / "such"), {})
    assert not (tmp_path / "no").exists()
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(SettingsError, match="is a file"):
        read_settings(flags(file), {})


@pytest.mark.parametrize("address", ["here", "host:", ":5000", "host:0", "host:70000", "host:http"])
def test_an_address_is_host_and_port(root: Path, address: str) -> None:
    with pytest.raises(SettingsError, match="HOST:PORT"):
        read_settings(flags(root, "--backend", address), {})


def test_the_root_directory_must_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        read_settings([], {})
    assert exit_.value.code == 2
    assert "--root_directory" in capsys.readouterr().err
