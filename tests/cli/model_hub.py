"""A hub on 127.0.0.1 with the part of the Hugging Face HTTP interface that an upload needs, and downloads of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_INFO = re.compile(r"/api/((?:models|datasets)/[^/]+/[^/]+)(?:/revision/.*)?")
WRITING = {"role": "write"}


@dataclass
class ModelHub:
    """The account of the token ``good``, the repositories by type and name, and what was requested.

    ``token`` describes the access token as the hub does, ``organisations`` the roles of the account in them; requests
    to a path that contains one of ``refused`` are answered with its status.
    """

    token: Mapping[str, Any] = field(default_factory=lambda: WRITING)
    organisations: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    address: str = ""

    def account(self) -> dict[str, Any]:
        """Return the answer to "who am I"."""
        orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in self.organisations.items()]
        auth = {"type": "access_token", "accessToken": {"displayName": "a token", **self.token}}
        return {"type": "user", "name": "someone", "orgs": orgs, "auth": auth}


@contextmanager
def serve(hub: ModelHub) -> Iterator[ModelHub]:
    """Serve ``hub`` from a thread until the block ends."""
    handler = type("ModelHubHandler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: ModelHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        refused = [status for part, status in self.hub.refused.items() if part in path]
        if refused:
            self._send(refused[0], b'{"error": "refused by the test"}')
        elif path.startswith("/storage/"):
            self.hub.stored[path.removeprefix("/storage/")] = body
            self._send(200, b"")
        elif match := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self._file(f"{match[1] or 'models/'}{match[2]}", match[3])
        elif (match := _INFO.fullmatch(path)) and match[1] not in self.hub.repositories:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif self.headers.get("Authorization") != "Bearer good":
            self._send(401, b'{"error": "Invalid credentials"}')
        else:
            self._json(self._api(path, body))

    def _api(self, path: str, body: bytes) -> Any:
        if path == "/api/whoami-v2":
            return self.hub.account()
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith("/preupload/main"):
            return {"files": [self._mode(file) for file in json.loads(body)["files"]]}
        if path.endswith(".git/info/lfs/objects/batch"):
            return {"transfer": "basic", "objects": [self._object(item) for item in json.loads(body)["objects"]]}
        if match := re.fullmatch(r"/api/(.+)/commit/main", path):
            return self._commit(match[1], [json.loads(line) for line in body.splitlines()])
        if match := _INFO.fullmatch(path):
            files = self.hub.repositories[match[1]]
            name = match[1].partition("/")[2]
            return {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]}
        raise AssertionError(f"the hub of the tests knows no {path}")

    def _create(self, wanted: dict[str, Any]) -> dict[str, str]:
        owner = wanted.get("organization") or "someone"
        name = f"{wanted.get('type', 'model')}s/{owner}/{wanted['name']}"
        self.hub.repositories.setdefault(name, {})
        self.hub.private[name] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        return {"url": f"{self.hub.address}/{name.removeprefix('models/')}"}

    @staticmethod
    def _mode(file: dict[str, Any]) -> dict[str, Any]:
        large = file["path"].endswith((".safetensors", ".pt2", ".parquet"))
        return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}

    def _object(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.hub.address}/storage/{item['oid']}", "header": {}}}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                self.hub.repositories[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.repositories[name][value["path"]] = self.hub.stored[value["oid"]]
        page = f"{self.hub.address}/{name.removeprefix('models/')}"
        return {"success": True, "commitOid": COMMIT, "commitUrl": f"{page}/commit/{COMMIT}"}

    def _file(self, name: str, file: str) -> None:
        if name not in self.hub.repositories:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif file not in self.hub.repositories[name]:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT})
        else:
            data = self.hub.repositories[name][file]
            self._send(200, data, {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
