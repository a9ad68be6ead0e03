"""A hub on 127.0.0.1 with the part of the Hugging Face HTTP interface that a download needs."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

REPO = "someone/VTAB-1k"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """The files of the hub, its faults, and the requests it has received.

    ``cut`` is the number of bytes after which the hub closes the connection of every download, ``storage`` the address
    to which it redirects downloads; ``announced`` replaces the announced SHA-256. ``gated`` names a repository with a
    licence to accept.
    """

    files: Mapping[str, bytes]
    cut: int | None = None
    storage: str | None = None
    announced: str | None = None
    gated: str | None = None
    address: str = ""
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)

    def downloads(self) -> list[str | None]:
        """Return the ``Range`` header of every GET of a file."""
        return [
            headers.get("range") for method, path, headers in self.requests if method == "GET" and "/api/" not in path
        ]


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


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        """Keep quiet."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, {name.lower(): value for name, value in self.headers.items()}))
        api, resolve = f"/api/datasets/{REPO}", f"/datasets/{REPO}/resolve/{COMMIT}/"
        path = path.replace(f"/datasets/{REPO}/resolve/main/", resolve)
        if self.hub.gated and f"/{self.hub.gated}" in path:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"}, body=body)
        elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            self._json({"id": REPO, "sha": COMMIT, "siblings": [{"rfilename": name} for name in self.hub.files]})
        elif path.startswith(f"{api}/tree/"):
            self._json(self._tree(path.removeprefix(f"{api}/tree/").partition("/")[2]))
        elif path.startswith(resolve) and path.removeprefix(resolve) in self.hub.files:
            self._file(path.removeprefix(resolve), body)
        else:
            missing = "RevisionNotFound" if f"{api}/revision/" in path else "RepoNotFound"
            if path.startswith((resolve, f"{api}/paths-info/")):
                missing = "EntryNotFound"
            self._send(404, b"{}", {"X-Error-Code": missing}, body=body)

    def _tree(self, folder: str) -> list[dict[str, object]]:
        """List a folder as the hub does: with everything below it if the query asks for that, else its own items."""
        prefix = f"{folder}/" if folder else ""
        files = [name for name in self.hub.files if name.startswith(prefix)]
        if "recursive=true" in urlsplit(self.path).query.lower():
            return [self._described(name) for name in files]
        folders = {prefix + name.removeprefix(prefix).split("/")[0] for name in files if "/" in name[len(prefix) :]}
        listed = [self._described(name) for name in files if "/" not in name[len(prefix) :]]
        return listed + [{"type": "directory", "path": name, "size": 0, "oid": COMMIT} for name in sorted(folders)]

    def _described(self, name: str) -> dict[str, object]:
        data = self.hub.files[name]
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _file(self, name: str, body: bool) -> None:
        data = self.hub.files[name]
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
        self._send(206 if match else 200, data[start:], headers, body=body)

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, body: bool = True) -> None:
        cut = self.hub.cut if "ETag" in headers and body else None
        if cut == 0:
            status, data = 503, b""
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if not body:
            return
        if cut and cut < len(data):
            self.wfile.write(data[:cut])
            self.hub.cut = 0
            self.close_connection = True
            return
        self.wfile.write(data)
