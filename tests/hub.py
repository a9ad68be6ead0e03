"""A hub on 127.0.0.1 with the part of the Hugging Face HTTP interface that downloads and uploads need."""

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
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

REPO = "someone/VTAB-1k"
DATA_SET = f"datasets/{REPO}"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
_REVISIONS = ("main", COMMIT)
_NAME = r"(?P<name>(?:models|datasets)/[^/]+/[^/]+)"
_INFO = re.compile(rf"/api/{_NAME}(?:/revision/(?P<revision>.+))?")
_TREE = re.compile(rf"/api/{_NAME}/tree/(?P<revision>[^/]+)(?:/(?P<folder>.*))?")
_PATHS = re.compile(rf"/api/{_NAME}/paths-info/(?P<revision>.+)")
_FILE = re.compile(r"/(?P<data>datasets/)?(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
_COMMIT = re.compile(rf"/api/{_NAME}/commit/main")


@dataclass
class Hub:
    """The repositories of the hub, the account of its token ``good``, its faults, and the requests it has received.

    ``repositories`` maps ``models/USER/REPO`` and ``datasets/USER/REPO`` to files; all of them have the same commit.
    ``token`` describes the access token as the hub does, ``organisations`` the roles of the account in them.

    A request to a path that contains one of ``refused`` is answered with its status. ``cut`` is the number of bytes
    after which the hub closes the connection of every download, ``storage`` the address to which it redirects
    downloads; ``announced`` replaces the announced SHA-256. ``gated`` names a repository with a licence to accept.
    """

    repositories: dict[str, Mapping[str, bytes]] = field(default_factory=dict)
    token: Mapping[str, Any] = field(default_factory=lambda: {"role": "write"})
    organisations: Mapping[str, str] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    cut: int | None = None
    storage: str | None = None
    announced: str | None = None
    gated: str | None = None
    private: dict[str, bool] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    address: str = ""

    @property
    def asked(self) -> list[str]:
        """The method and the path of every request, except those that the client makes by itself once a day."""
        return [f"{method} {path}" for method, path, _ in self.requests if path != "/api/agent-harnesses"]

    def downloads(self) -> list[str | None]:
        """Return the ``Range`` header of every GET of a file."""
        return [
            headers.get("range") for method, path, headers in self.requests if method == "GET" and "/api/" not in path
        ]

    def account(self) -> dict[str, Any]:
        """Return the answer to "who am I"."""
        orgs = [{"type": "org", "name": name, "roleInOrg": role} for name, role in self.organisations.items()]
        auth = {"type": "access_token", "accessToken": {"displayName": "a token", **self.token}}
        return {"type": "user", "name": "someone", "orgs": orgs, "auth": auth}


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve ``hub`` from a thread until the block ends."""
    handler = type("HubHandler", (_Handler,), {"hub": hub})
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


@contextmanager
def local_hub(cache: Path) -> Iterator[Hub]:
    """Let the hub's client of this process use a hub with a token, and the empty folder ``cache`` for downloads."""
    from huggingface_hub import constants, file_download

    with pytest.MonkeyPatch.context() as patch, serve(Hub()) as hub:
        patch.setenv("HF_TOKEN", "good")
        # The chunked storage of the hub has a client and a server of its own; without it, files go through Git LFS.
        patch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        patch.setattr(constants, "HF_HUB_CACHE", str(cache))
        patch.setenv("HF_ENDPOINT", hub.address)
        # The client reads the variable when it is imported, which comes later in a process that has it from the start.
        patch.setattr(constants, "ENDPOINT", hub.address)
        template = f"{hub.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        for module in (constants, file_download):
            patch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)
        yield hub


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
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
        self.hub.requests.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
        refused = [status for part, status in self.hub.refused.items() if part in path]
        if refused:
            self._send(refused[0], b'{"error": "refused by the test"}')
        elif self.hub.gated and f"/{self.hub.gated}" in path:
            self._missing("GatedRepo", status=403)
        elif path.startswith("/storage/"):
            self.hub.stored[path.removeprefix("/storage/")] = body
            self._send(200, b"")
        elif match := _FILE.fullmatch(path):
            self._file(f"{match['data'] or 'models/'}{match['repo']}", match["revision"], match["file"])
        elif match := _TREE.fullmatch(path) or _PATHS.fullmatch(path) or _INFO.fullmatch(path):
            self._describe(match, body)
        elif self.headers.get("Authorization") != "Bearer good":
            self._send(401, b'{"error": "Invalid credentials"}')
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        else:
            self._json(self._with_token(path, body))

    def _describe(self, match: re.Match[str], body: bytes) -> None:
        files = self.hub.repositories.get(match["name"])
        if files is None:
            self._missing("RepoNotFound")
        elif match["revision"] not in (None, *_REVISIONS):
            self._missing("RevisionNotFound")
        elif match.re is _TREE:
            self._json(self._tree(files, match["folder"] or ""))
        elif match.re is _PATHS:
            self._json(self._items(files, body))
        else:
            name = match["name"].partition("/")[2]
            self._json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]})

    def _items(self, files: Mapping[str, bytes], body: bytes) -> list[dict[str, object]]:
        """Describe those of the paths in a request that exist; old clients send a form, new ones JSON."""
        in_json = "json" in self.headers.get("Content-Type", "")
        paths = json.loads(body)["paths"] if in_json else parse_qs(body.decode()).get("paths", [])
        folders = {path for path in paths if any(name.startswith(f"{path}/") for name in files)}
        return [_described(path, files[path]) for path in paths if path in files] + [_folder(path) for path in folders]

    def _tree(self, files: Mapping[str, bytes], folder: str) -> list[dict[str, object]]:
        """List a folder as the hub does: with everything below it if the query asks for that, else its own items."""
        prefix = f"{folder}/" if folder else ""
        within = {name: data for name, data in files.items() if name.startswith(prefix)}
        if "recursive=true" in urlsplit(self.path).query.lower():
            return [_described(name, data) for name, data in within.items()]
        folders = {prefix + name.removeprefix(prefix).split("/")[0] for name in within if "/" in name[len(prefix) :]}
        listed = [_described(name, data) for name, data in within.items() if "/" not in name[len(prefix) :]]
        return listed + [_folder(name) for name in sorted(folders)]

    def _with_token(self, path: str, body: bytes) -> Any:
        """Answer a request of the account: who it is, and what it uploads."""
        if path == "/api/whoami-v2":
            return self.hub.account()
        if path == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            return {"files": [_upload_mode(file) for file in json.loads(body)["files"]]}
        if path.endswith(".git/info/lfs/objects/batch"):
            return {"transfer": "basic", "objects": [self._object(item) for item in json.loads(body)["objects"]]}
        if match := _COMMIT.fullmatch(path):
            return self._commit(match["name"], [json.loads(line) for line in body.splitlines()])
        raise AssertionError(f"the hub of the tests knows no {path}")

    def _create(self, wanted: dict[str, Any]) -> None:
        owner = wanted.get("organization") or "someone"
        name = f"{wanted.get('type', 'model')}s/{owner}/{wanted['name']}"
        exists = name in self.hub.repositories
        if not exists:
            self.hub.repositories[name] = {}
            self.hub.private[name] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        answer = {"url": f"{self.hub.address}/{name.removeprefix('models/')}"}
        self._send(409 if exists else 200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _object(self, item: dict[str, Any]) -> dict[str, Any]:
        return {**item, "actions": {"upload": {"href": f"{self.hub.address}/storage/{item['oid']}", "header": {}}}}

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> dict[str, Any]:
        files = dict(self.hub.repositories[name])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.hub.repositories[name] = files
        page = f"{self.hub.address}/{name.removeprefix('models/')}"
        return {"success": True, "commitOid": COMMIT, "commitUrl": f"{page}/commit/{COMMIT}"}

    def _file(self, name: str, revision: str, file: str) -> None:
        if name not in self.hub.repositories:
            self._missing("RepoNotFound")
        elif revision not in _REVISIONS:
            self._missing("RevisionNotFound")
        elif file not in self.hub.repositories[name]:
            self._missing("EntryNotFound")
        else:
            self._download(self.hub.repositories[name][file])

    def _download(self, data: bytes) -> None:
        tag = self.hub.announced or hashlib.sha256(data).hexdigest()
        headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if self.hub.storage:
            linked = {
                "X-Linked-Size": str(len(data)),
                "X-Linked-ETag": f'"{tag}"',
                "Location": self.hub.storage + self.path,
            }
            self._send(302, b"", headers | linked)
            return
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(match[1]) if match else 0
        if match:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._send(206 if match else 200, data[start:], headers, cut=self.hub.cut)

    def _missing(self, code: str, status: int = 404) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(
        self, status: int, data: bytes, headers: Mapping[str, str] | None = None, *, cut: int | None = None
    ) -> None:
        with_body = self.command != "HEAD"
        if cut == 0 and with_body:
            status, data = 503, b""
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body and cut and cut < len(data):
            self.wfile.write(data[:cut])
            self.hub.cut = 0
            self.close_connection = True
        elif with_body:
            self.wfile.write(data)


def _described(name: str, data: bytes) -> dict[str, object]:
    return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


def _folder(name: str) -> dict[str, object]:
    return {"type": "directory", "path": name, "size": 0, "oid": COMMIT}


def _upload_mode(file: dict[str, Any]) -> dict[str, Any]:
    large = file["path"].endswith((".safetensors", ".pt2", ".parquet"))
    return {"path": file["path"], "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}


def card_of(hub: Hub, name: str) -> tuple[dict[str, object], str]:
    """Return the header and the text of a repository's card."""
    _, header, text = hub.repositories[name]["README.md"].decode().split("---\n", 2)
    return yaml.safe_load(header), text
