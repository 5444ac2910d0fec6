"""The doctor: never hangs, says what to do, knows what is fatal."""

from __future__ import annotations

import http.server
import socket
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from glu_bench.interop import machine
from glu_bench.interop.machine import EXTRAS, inspect_hub, inspect_machine
from tests.conftest import REPO


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if HF_HUB_OFFLINE were not set; tests stay on this machine."""
    monkeypatch.setattr(constants, "is_offline_mode", lambda: False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


class Forbidding(http.server.BaseHTTPRequestHandler):
    """Answers 403 to everything."""

    def do_HEAD(self) -> None:
        self.send_error(403)

    def log_message(self, *words: object) -> None:
        """Nothing on stderr."""


def test_a_silent_hub_costs_no_more_than_the_limit(
    online: None, silent_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent_port}")
    began = time.monotonic()
    finding = inspect_hub(limit_s=0.3)
    assert time.monotonic() - began < 1
    assert finding.status == "warning"
    assert "HF_HUB_OFFLINE" in finding.advice


def test_a_name_that_never_resolves_costs_no_more_either(
    online: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look_up(*words: object, **options: object) -> None:
        time.sleep(1.5)
        raise OSError("no such name")

    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    began = time.monotonic()
    assert "no answer within 0.2 s" in inspect_hub(limit_s=0.2).found
    assert time.monotonic() - began < 1


def test_a_refusal_is_an_answer(online: None, monkeypatch: pytest.MonkeyPatch) -> None:
    server = http.server.HTTPServer(("127.0.0.1", 0), Forbidding)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    try:
        assert inspect_hub(limit_s=2).status == "ok"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("endpoint", ["file:///etc/passwd", "http://127.0.0.1:1", "nonsense"])
def test_no_hub_is_a_warning(online: None, monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    assert inspect_hub(limit_s=1).status == "warning"


def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")
    assert inspect_hub().status == "ok"


def test_this_machine_can_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    found = {finding.name: finding for finding in inspect_machine(tmp_path / "new")}
    assert not any(finding.fatal for finding in found.values())
    assert {"python", "torch", "bf16", "compiler", "cores", "cache size", "wandb", "terminal"} <= set(found)
    assert not (tmp_path / "new").exists()


def test_every_extra_is_looked_for_and_named_as_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {*EXTRAS.values(), "dev"} == set(project["optional-dependencies"])
    for package, extra in EXTRAS.items():
        assert any(line.startswith(f"{package}>") for line in project["optional-dependencies"][extra])
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    monkeypatch.setattr(machine, "EXTRAS", {"no-such-package": "zstd"})
    (finding,) = (each for each in inspect_machine(tmp_path) if each.name == "no-such-package")
    assert finding.advice == "if you want it: pip install '.[zstd]'"


def test_a_file_in_the_place_of_the_output_folder_is_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    (tmp_path / "file").write_text("")
    (bad,) = (finding for finding in inspect_machine(tmp_path / "file") if finding.fatal)
    assert bad.name == "output folder"
    assert "--output-dir" in bad.advice


def test_no_compiler_is_a_warning_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "is_offline_mode", lambda: True)
    monkeypatch.setenv("CXX", "no-such-compiler")
    (compiler,) = (finding for finding in inspect_machine(tmp_path) if finding.name == "compiler")
    assert (compiler.status, compiler.fatal) == ("warning", False)
    assert "g++" in compiler.advice
