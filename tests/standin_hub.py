"""A stand-in of the Hugging Face Hub on loopback: datasets as parquet, tokenizers as JSON.

It answers what the real clients (datasets, huggingface_hub) ask for a fresh load, so the
project's own loading code runs unchanged against it, with HF_ENDPOINT pointing here.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """Files of one repository; `gated` refuses them, `cut_after` breaks their bodies off."""

    kind: str  # datasets or models
    files: dict[str, bytes]
    sha: str
    gated: bool = False
    cut_after: int | None = None


@dataclass
class StandInHub:
    """The server's content and the requests it saw."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    server: ThreadingHTTPServer | None = None

    @property
    def endpoint(self) -> str:
        assert self.server is not None
        return f"http://127.0.0.1:{self.server.server_port}"

    def add(
        self, kind: str, name: str, files: dict[str, bytes], sha: str | None = None, **kwargs: object
    ) -> str:
        sha = sha or hashlib.sha1(repr(sorted(files)).encode()).hexdigest()
        self.repositories[f"{kind}/{name}"] = Repository(kind, files, sha, **kwargs)  # type: ignore[arg-type]
        return sha

    def start(self) -> None:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                answer(hub, self, with_body=True)

            def do_HEAD(self) -> None:
                answer(hub, self, with_body=False)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        assert self.server is not None
        self.server.shutdown()
        self.server.server_close()


def answer(hub: StandInHub, request: BaseHTTPRequestHandler, with_body: bool) -> None:
    path = unquote(urlsplit(request.path).path)
    hub.requests.append(f"{request.command} {path}")
    parts = path.strip("/").split("/")
    if parts[0] == "api":
        kind, name, rest = parts[1], "/".join(parts[2:4]), parts[4:]
    else:
        kind = "datasets" if parts[0] == "datasets" else "models"
        offset = 1 if kind == "datasets" else 0
        name, rest = "/".join(parts[offset : offset + 2]), parts[offset + 2 :]
    repository = hub.repositories.get(f"{kind}/{name}")
    if repository is None:
        return reply(request, 404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)
    if parts[0] == "api":
        return answer_api(request, repository, name, rest, with_body)
    if rest[:1] != ["resolve"]:
        return reply(request, 404, b"", {}, with_body)
    if rest[1] not in ("main", repository.sha):
        return reply(request, 404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
    if repository.gated:
        headers = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this dataset is restricted"}
        return reply(request, 403, b"", headers, with_body)
    content = repository.files.get("/".join(rest[2:]))
    commit = {"X-Repo-Commit": repository.sha}
    if content is None:
        return reply(request, 404, b"", {"X-Error-Code": "EntryNotFound", **commit}, with_body)
    headers = {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes", **commit}
    wanted = request.headers.get("Range")
    if wanted and wanted.startswith("bytes="):
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) if first else len(content) - int(last)
        stop = int(last) + 1 if first and last else len(content)
        headers["Content-Range"] = f"bytes {start}-{min(stop, len(content)) - 1}/{len(content)}"
        return reply(request, 206, content[start:stop], headers, with_body, repository.cut_after)
    return reply(request, 200, content, headers, with_body, repository.cut_after)


def answer_api(
    request: BaseHTTPRequestHandler, repository: Repository, name: str, rest: list[str], with_body: bool
) -> None:
    if rest[:1] in (["revision"], ["tree"]) and rest[1] not in ("main", repository.sha):
        return reply(request, 404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
    if rest[:1] == ["tree"]:
        folder = "/".join(rest[2:])
        listed: dict[str, dict[str, object]] = {}
        for path, content in repository.files.items():
            inside = path.removeprefix(f"{folder}/") if folder else path
            if folder and inside == path:
                continue
            if "/" in inside:
                sub = f"{folder}/" * bool(folder) + inside.split("/")[0]
                listed[sub] = {"type": "directory", "path": sub, "size": 0, "oid": "0" * 40}
            else:
                oid = hashlib.sha1(content).hexdigest()
                listed[path] = {"type": "file", "path": path, "size": len(content), "oid": oid}
        if folder and not listed:
            return reply(request, 404, b"", {"X-Error-Code": "EntryNotFound"}, with_body)
        return reply(request, 200, json.dumps(list(listed.values())).encode(), {}, with_body)
    info = {
        "id": name,
        "sha": repository.sha,
        "private": False,
        "gated": "manual" if repository.gated else False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "siblings": [{"rfilename": path} for path in repository.files],
    }
    return reply(request, 200, json.dumps(info).encode(), {}, with_body)


def reply(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str],
    with_body: bool,
    cut_after: int | None = None,
) -> None:
    request.send_response(status)
    for key, value in headers.items():
        request.send_header(key, value)
    request.send_header("Content-Type", "application/json" if body[:1] in (b"{", b"[") else "text/plain")
    request.send_header("Content-Length", str(len(body)))
    request.end_headers()
    if not with_body:
        return
    if cut_after is not None and len(body) > cut_after:
        request.wfile.write(body[:cut_after])
        request.wfile.flush()
        request.connection.close()
        request.close_connection = True
        return
    request.wfile.write(body)
