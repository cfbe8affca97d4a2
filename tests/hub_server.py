"""A small hub on loopback: as much of the Hugging Face Hub's API as its client uses to push and to download models.

Repositories live in memory. Large files go by plain LFS, uploaded to and downloaded from another host name
(`localhost`, the API is at `127.0.0.1`), as the real hub keeps them elsewhere; that host refuses tokens, as S3 does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = (".safetensors", ".parquet")

# token -> what whoami-v2 says of it
USERS: dict[str, dict[str, Any]] = {
    "hf_ada": {"name": "ada", "orgs": [{"name": "observatory"}], "auth": {"accessToken": {"role": "write"}}},
    "hf_ada_reads": {"name": "ada", "orgs": [], "auth": {"accessToken": {"role": "read"}}},
    "hf_bob": {"name": "bob", "orgs": [], "auth": {"accessToken": {"role": "write"}}},
}


@dataclass
class Repo:
    """`commits` has the files of each; a branch is the name of a commit."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        content = repr((len(self.commits), sorted(files.items()))).encode()
        sha = hashlib.sha1(content).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha


class Hub(ThreadingHTTPServer):
    """The server and what it knows. `requests` are those so far; `fail` maps a part of a path to a status to give."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos: dict[str, Repo] = {}
        self.moved: dict[str, str] = {}
        self.large: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.fail: dict[str, int] = {}
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.storage = f"http://localhost:{self.server_port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def publish(self, name: str, files: dict[str, bytes], branch: str = "main", **how: Any) -> str:
        """Put files into a repository, made where it is absent; the commit."""
        return self.repos.setdefault(name, Repo(**how)).commit(branch, files)

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        repo = self.repos[name]
        return repo.commits[repo.branches[branch]]


class Refusal(Exception):  # noqa: N818 (it is an answer)
    """An answer that is an error: its status, its message, and the code that the client knows it by."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(status, message, code)


class Handler(BaseHTTPRequestHandler):
    """One request; `server` is the hub."""

    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 (the names are those of the library)

    def _answer(self) -> None:
        self.body = self._read()
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        try:
            for part, status in self.server.fail.items():
                if part in path:
                    raise Refusal(status, "told to fail")
            if path.startswith("/large/"):
                self._large(path.removeprefix("/large/"))
                return
            if token and token not in USERS:
                raise Refusal(401, "Invalid credentials in Authorization header")
            self.user = USERS.get(token)
            self._route(path)
        except Refusal as refusal:
            status, message, code = refusal.args
            self._send(status, {"error": message}, {"X-Error-Code": code} if code else {})

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _send(self, status: int, content: Any = None, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _large(self, oid: str) -> None:
        """The storage of large files: no token gets there."""
        if "Authorization" in self.headers:
            raise Refusal(400, "Only one auth mechanism allowed")
        if self.command == "PUT":
            if hashlib.sha256(self.body).hexdigest() != oid:
                raise Refusal(400, "not the bytes that were announced")
            self.server.large[oid] = self.body
            self._send(200, b"")
        else:
            self._send(200, self.server.large[oid], {"ETag": f'"{oid}"'})

    def _route(self, path: str) -> None:
        parts = path.strip("/").split("/")
        if path == "/api/whoami-v2":
            self._send(200, self._known())
        elif path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(json.loads(self.body))
        elif path.endswith(".git/info/lfs/objects/batch"):
            self._batch(path.removesuffix(".git/info/lfs/objects/batch").strip("/"), json.loads(self.body))
        elif parts[:2] == ["api", "models"]:
            self._model(parts[2:])
        elif "resolve" in parts:
            at = parts.index("resolve")
            self._resolve("/".join(parts[:at]), parts[at + 1], "/".join(parts[at + 2 :]))
        else:
            raise Refusal(404, f"no such page: {path}")

    def _model(self, parts: list[str]) -> None:
        """What is below /api/models: the repository is one part of the path or two."""
        verbs = ("revision", "tree", "preupload", "commit", "branch", "auth-check")
        size = next((index for index, part in enumerate(parts) if part in verbs), len(parts))
        name, verb, rest = "/".join(parts[:size]), "".join(parts[size : size + 1]), "/".join(parts[size + 1 :])
        if name in self.server.moved:
            there = "/".join([self.server.moved[name], *parts[size:]])
            self._send(307, b"", {"Location": f"/api/models/{there}"})
            return
        repo = self._repo(name, write=verb in ("preupload", "commit", "branch") or rest == "write")
        if verb in ("", "revision"):
            sha = self._sha(repo, rest or "main")
            siblings = [{"rfilename": file} for file in repo.commits[sha]]
            self._send(200, {"id": name, "sha": sha, "private": repo.private, "siblings": siblings})
        elif verb == "auth-check":
            self._send(200, {})
        elif verb == "tree":
            files = repo.commits[self._sha(repo, rest)]
            self._send(200, [_entry(file, content) for file, content in files.items()])
        elif verb == "branch":
            if rest in repo.branches:
                raise Refusal(409, "Reference already exists")
            if " " in rest:
                raise Refusal(400, "Invalid branch name")
            repo.branches[rest] = repo.branches["main"]
            self._send(200, {})
        elif verb == "preupload":
            self._send(200, {"files": [_upload(file, repo, rest) for file in json.loads(self.body)["files"]]})
        elif verb == "commit":
            self._commit(name, repo, rest)

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or self._known()['name']}/{asked['name']}"
        url = f"{self.server.url}/{name}"
        if name in self.server.repos:
            self._send(409, {"error": "You already created this model repo", "url": url})
            return
        self._may_write(name)
        self.server.publish(name, {".gitattributes": b"*.safetensors filter=lfs\n"})
        self.server.repos[name].private = asked.get("visibility") == "private"
        self._send(200, {"url": url})

    def _batch(self, name: str, asked: dict[str, Any]) -> None:
        self._repo(name, write=True)
        objects = []
        for one in asked["objects"]:
            upload = {"upload": {"href": f"{self.server.storage}/large/{one['oid']}"}}
            objects.append(one if one["oid"] in self.server.large else {**one, "actions": upload})
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, name: str, repo: Repo, branch: str) -> None:
        files = dict(repo.commits[self._sha(repo, branch)])
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repo.commit(branch, files)
        self._send(200, {"commitOid": sha, "commitUrl": f"{self.server.url}/{name}/commit/{sha}"})

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if name in self.server.moved:
            self._send(307, b"", {"Location": f"/{self.server.moved[name]}/resolve/{revision}/{file}"})
            return
        repo = self._repo(name)
        sha = self._sha(repo, revision)
        if file not in repo.commits[sha]:
            raise Refusal(404, "Entry not found", "EntryNotFound")
        content = repo.commits[sha][file]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_oid(file, content)}"'}
        if not file.endswith(LARGE):
            self._send(200, content, headers)
            return
        oid = _oid(file, content)
        self.server.large[oid] = content
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        self._send(302, b"", {**headers, **linked, "Location": f"{self.server.storage}/large/{oid}"})

    def _known(self) -> dict[str, Any]:
        if self.user is None:
            raise Refusal(401, "Invalid username or password.")
        return self.user

    def _repo(self, name: str, write: bool = False) -> Repo:
        repo = self.server.repos.get(name)
        if repo is None or (repo.private and not self._owns(name)):
            raise Refusal(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if repo.gated and not self._owns(name):
            raise Refusal(403, f"Access to model {name} is restricted", "GatedRepo")
        if write:
            self._may_write(name)
        return repo

    def _owns(self, name: str) -> bool:
        owner = name.partition("/")[0]
        return self.user is not None and owner in (self.user["name"], *(group["name"] for group in self.user["orgs"]))

    def _may_write(self, name: str) -> None:
        if not self._owns(name) or self._known()["auth"]["accessToken"]["role"] != "write":
            raise Refusal(403, f"You don't have the rights to write to {name}")

    def _sha(self, repo: Repo, revision: str) -> str:
        sha = repo.branches.get(revision, revision)
        if sha not in repo.commits:
            raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return sha


def _oid(file: str, content: bytes) -> str:
    """As git and LFS name content."""
    if file.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()


def _entry(file: str, content: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": file, "size": len(content), "oid": _oid(file, content)}
    if file.endswith(LARGE):
        entry["lfs"] = {"oid": entry["oid"], "size": len(content), "pointerSize": 134}
    return entry


def _upload(file: dict[str, Any], repo: Repo, branch: str) -> dict[str, Any]:
    there = repo.commits[repo.branches[branch]].get(file["path"])
    oid = {} if there is None else {"oid": _oid(file["path"], there)}
    mode = "lfs" if file["path"].endswith(LARGE) else "regular"
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **oid}
