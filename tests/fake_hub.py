"""A small Hub in one process: enough of its interface for the real client to create, push, list and download.

It answers "regular" to every question how a file shall be uploaded, so that contents come inside the commit: no large
file storage is needed. Commits are kept, so that a test can tell one push from two.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


TOKEN = "hf_fake"
OWNER = "someone"


class FakeHub:
    """What the server holds and how it shall misbehave.

    Attributes:
        commits: files by path of every commit of a repository, oldest first; the first is empty.
        private: whether a repository is private.
        requests: (method, path) of every request.
        failures: (part of a path, status or "cut"), each used up by one request of writing that fits.
    """

    def __init__(self):
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[tuple[str, str]] = []
        self.failures: list[tuple[str, int | str]] = []
        self.url = ""

    def files(self, repo_id: str) -> dict[str, bytes]:
        return self.commits[repo_id][-1]

    def sha(self, repo_id: str) -> str:
        return hashlib.sha1(f"{repo_id} {len(self.commits[repo_id])}".encode()).hexdigest()

    def fail(self, path: str) -> int | str | None:
        for failure in self.failures:
            if failure[0] in path:
                self.failures.remove(failure)
                return failure[1]
        return None


@contextmanager
def serve():
    """A server on a port of its own, for as long as the block lasts."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def reply(self, status: int, content: bytes | dict | list = b"", **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_POST(self) -> None:
        path = unquote(self.path.split("?")[0])
        self.hub.requests.append(("POST", path))
        failure = self.hub.fail(path)
        if failure == "cut":  # in the middle of the upload
            self.rfile.read(10)
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        content = self.body()
        if failure is not None:
            self.reply(failure, {"error": "the server fails as it was told"})
        elif path == "/api/validate-yaml":
            text = json.loads(content)["content"]
            good = re.match(r"---\n.*?\n---\n", text, re.DOTALL)
            self.reply(200, {"errors": [], "warnings": []}) if good else self.reply(400, b"no metadata")
        elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.reply(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self.create(json.loads(content))
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = json.loads(content)["files"]
            answer = [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]
            self.reply(200, {"files": answer})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            self.commit(match[1], [json.loads(line) for line in content.splitlines()])
        else:
            self.reply(404, {"error": f"no such route: {path}"})

    def create(self, request: dict) -> None:
        repo_id = f"{request.get('organization') or OWNER}/{request['name']}"
        known = repo_id in self.hub.commits
        if not known:
            self.hub.commits[repo_id] = [{}]
            self.hub.private[repo_id] = request.get("visibility") == "private" or bool(request.get("private"))
        answer = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id, "id": repo_id}
        self.reply(409 if known else 200, answer | ({"error": "You already created this model repo"} if known else {}))

    def commit(self, repo_id: str, lines: list[dict]) -> None:
        files = dict(self.hub.files(repo_id))
        for line in lines:
            if line["key"] == "file":
                files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        self.hub.commits[repo_id].append(files)
        sha = self.hub.sha(repo_id)
        url = f"{self.hub.url}/{repo_id}/commit/{sha}"
        self.reply(200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def do_GET(self) -> None:
        path = unquote(self.path.split("?")[0])
        self.hub.requests.append((self.command, path))
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            self.download(*match.groups())
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/[^/]+|/tree/[^/]+(?:/.*)?)?", path):
            self.describe(match[1], tree="/tree/" in path)
        else:
            self.reply(404, {"error": "no such page"}, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET

    def download(self, repo_id: str, name: str) -> None:
        if repo_id not in self.hub.commits:
            self.reply(404, {"error": "no such repository"}, X_Error_Code="RepoNotFound")
            return
        content = self.hub.files(repo_id).get(name)
        commit = {"X_Repo_Commit": self.hub.sha(repo_id)}
        if content is None:
            self.reply(404, {"error": "no such file"}, X_Error_Code="EntryNotFound", **commit)
        else:
            self.reply(200, content, ETag=f'"{hashlib.sha1(content).hexdigest()}"', **commit)

    def describe(self, repo_id: str, tree: bool) -> None:
        if repo_id not in self.hub.commits:
            self.reply(404, {"error": "no such repository"}, X_Error_Code="RepoNotFound")
            return
        files = self.hub.files(repo_id)
        if tree:
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            self.reply(200, entries)
            return
        siblings = [{"rfilename": name} for name in files]
        answer = {
            "id": repo_id,
            "modelId": repo_id,
            "sha": self.hub.sha(repo_id),
            "private": self.hub.private[repo_id],
        }
        self.reply(200, answer | {"siblings": siblings, "tags": [], "downloads": 0, "likes": 0})
