"""A small Hub in one process: enough of its interface for the real client to create, push, list and download.

It answers "regular" to the question how a file shall be uploaded, so that contents come inside the commit, or, with
`large_files`, "lfs" for weights: these go to a store of their own and come from there again. Commits are kept, so that
a test can tell one push from two.
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
REPOSITORY = r"((?:spaces/)?[^/]+/[^/]+)"
API = f"/api/(?:models/|(?=spaces/)){REPOSITORY}"


class FakeHub:
    """What the server holds and how it shall misbehave.

    Attributes:
        commits: files by path of every commit of a repository, oldest first; the first is empty.
        private: whether a repository is private.
        requests: (method, path) of every request.
        failures: (pattern of "METHOD path", status or "cut"), each used up by one request that fits; "cut" ends the
            connection in the middle of what is sent.
        large_files: store weights apart from the commits.
        stored: contents of large files by their SHA-256.
    """

    def __init__(self):
        self.commits: dict[str, list[dict[str, bytes]]] = {}
        self.private: dict[str, bool] = {}
        self.requests: list[tuple[str, str]] = []
        self.failures: list[tuple[str, int | str]] = []
        self.large_files = False
        self.stored: dict[str, bytes] = {}
        self.url = ""
        self.store_url = ""

    def files(self, repo_id: str) -> dict[str, bytes]:
        return self.commits[repo_id][-1]

    def sha(self, repo_id: str) -> str:
        return hashlib.sha1(f"{repo_id} {len(self.commits[repo_id])}".encode()).hexdigest()

    def fail(self, request: str) -> int | str | None:
        for failure in self.failures:
            if re.search(failure[0], request):
                self.failures.remove(failure)
                return failure[1]
        return None


@contextmanager
def serve():
    """A server on a port of its own, for as long as the block lasts."""
    hub = FakeHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    hub.store_url = f"http://localhost:{server.server_port}/store"  # another host to the client, as the real one
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

    def cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def begin(self) -> tuple[str, int | str | None]:
        """The path that is asked for, and how the request shall fail."""
        path = unquote(self.path.split("?")[0])
        self.hub.requests.append((self.command, path))
        return path, self.hub.fail(f"{self.command} {path}")

    def begin_writing(self) -> tuple[str, bytes] | None:
        """Path and content of a request; `None` if it has failed as it was told."""
        path, failure = self.begin()
        if failure == "cut":  # in the middle of the upload
            self.rfile.read(10)
            self.cut()
            return None
        content = self.body()
        if failure is not None:
            self.reply(failure, {"error": "the server fails as it was told"})
            return None
        return path, content

    def has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def do_PUT(self) -> None:
        if request := self.begin_writing():
            path, content = request
            oid = path.rpartition("/")[2]
            if path != f"/store/{oid}" or hashlib.sha256(content).hexdigest() != oid:
                self.reply(400, {"error": "not the content that was announced"})
            else:
                self.hub.stored[oid] = content
                self.reply(200)

    def do_POST(self) -> None:
        request = self.begin_writing()
        if request is None:
            return
        path, content = request
        if path == "/api/validate-yaml":
            text = json.loads(content)["content"]
            good = re.match(r"---\n.*?\n---\n", text, re.DOTALL)
            self.reply(200, {"errors": [], "warnings": []}) if good else self.reply(400, b"no metadata")
        elif not self.has_token():
            self.reply(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self.create(json.loads(content))
        elif match := re.fullmatch(rf"{API}/preupload/main", path):
            files = json.loads(content)["files"]
            answer = [
                {"path": file["path"], "uploadMode": self.upload_mode(file["path"]), "shouldIgnore": False}
                for file in files
            ]
            self.reply(200, {"files": answer})
        elif match := re.fullmatch(rf"/{REPOSITORY}\.git/info/lfs/objects/batch", path):
            self.reply(200, {"transfer": "basic", "objects": list(map(self.place, json.loads(content)["objects"]))})
        elif match := re.fullmatch(rf"{API}/commit/main", path):
            self.commit(match[1], [json.loads(line) for line in content.splitlines()])
        else:
            self.reply(404, {"error": f"no such route: {path}"})

    def create(self, request: dict) -> None:
        space = "spaces/" if request.get("type") == "space" else ""
        repo_id = f"{space}{request.get('organization') or OWNER}/{request['name']}"
        known = repo_id in self.hub.commits
        if not known:
            self.hub.commits[repo_id] = [{}]
            self.hub.private[repo_id] = request.get("visibility") == "private" or bool(request.get("private"))
        answer = {"url": f"{self.hub.url}/{repo_id}", "name": repo_id, "id": repo_id}
        self.reply(409 if known else 200, answer | ({"error": "You already created this model repo"} if known else {}))

    def upload_mode(self, name: str) -> str:
        return "lfs" if self.hub.large_files and name.endswith(".safetensors") else "regular"

    def place(self, wanted: dict) -> dict:
        """Where the content of a large file goes; nowhere if it is there."""
        if wanted["oid"] in self.hub.stored:
            return wanted
        return wanted | {"actions": {"upload": {"href": f"{self.hub.store_url}/{wanted['oid']}"}}}

    def commit(self, repo_id: str, lines: list[dict]) -> None:
        files = dict(self.hub.files(repo_id))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        self.hub.commits[repo_id].append(files)
        sha = self.hub.sha(repo_id)
        url = f"{self.hub.url}/{repo_id}/commit/{sha}"
        self.reply(200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def do_GET(self) -> None:
        path, failure = self.begin()
        if isinstance(failure, int) or (failure == "cut" and self.command == "HEAD"):
            self.cut() if failure == "cut" else self.reply(failure, {"error": "the server fails as it was told"})
        elif match := re.fullmatch(rf"/{REPOSITORY}/resolve/[^/]+/(.+)", path):
            self.download(*match.groups(), cut=failure == "cut")
        elif path.startswith("/store/"):
            self.send(self.hub.stored[path.removeprefix("/store/")], cut=failure == "cut")
        elif match := re.fullmatch(rf"{API}(?:/revision/[^/]+|/tree/[^/]+(?:/.*)?)?", path):
            self.cut() if failure == "cut" else self.describe(match[1], tree="/tree/" in path)
        else:
            self.reply(404, {"error": "no such page"}, X_Error_Code="EntryNotFound")

    do_HEAD = do_GET

    def shows(self, repo_id: str) -> bool:
        """Whether whoever asks may see the repository; if not, the answer has been sent."""
        if repo_id not in self.hub.commits:
            self.reply(404, {"error": "no such repository"}, X_Error_Code="RepoNotFound")
        elif self.hub.private[repo_id] and not self.has_token():
            self.reply(401, {"error": "Invalid username or password."}, X_Error_Code="RepoNotFound")
        else:
            return True
        return False

    def download(self, repo_id: str, name: str, cut: bool) -> None:
        if not self.shows(repo_id):
            return
        content = self.hub.files(repo_id).get(name)
        commit = {"X_Repo_Commit": self.hub.sha(repo_id)}
        if content is None:
            self.reply(404, {"error": "no such file"}, X_Error_Code="EntryNotFound", **commit)
        elif (oid := hashlib.sha256(content).hexdigest()) in self.hub.stored:
            large = {"X_Linked_ETag": f'"{oid}"', "X_Linked_Size": str(len(content))}
            self.reply(302, Location=f"{self.hub.store_url}/{oid}", **large, **commit)
        else:
            self.send(content, cut, ETag=f'"{hashlib.sha1(content).hexdigest()}"', **commit)

    def send(self, content: bytes, cut: bool, **headers: str) -> None:
        """A file, or the rest of it from the byte that is asked for; half of that if it shall be cut."""
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if begin:
            headers["Content_Range"] = f"bytes {begin[1]}-{len(content) - 1}/{len(content)}"
            content = content[int(begin[1]) :]
        if not cut:
            self.reply(206 if begin else 200, content, **headers)
            return
        self.send_response(206 if begin else 200)
        for name, value in (headers | {"Content_Length": str(len(content))}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.cut()

    def describe(self, repo_id: str, tree: bool) -> None:
        if not self.shows(repo_id):
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
