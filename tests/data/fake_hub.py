"""A server on this machine that answers as the Hub does, for one data set: what lies in a folder, at one commit."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c0ffee" + 34 * "0"
GATED = "org/gated"
"""A data set that is there, but not for those who ask."""


class _Answers(BaseHTTPRequestHandler):
    folder: Path
    data_set: str
    asked: list[str]
    claimed: dict[str, int]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        wanted = json.loads(body).get("paths", []) if body.startswith(b"{") else []
        self._json([self._about(self.folder / path) for path in wanted if path and (self.folder / path).exists()])

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self.asked.append(f"{self.command} {path}")
        api, files = f"/api/datasets/{self.data_set}", f"/datasets/{self.data_set}/resolve/"
        if path in (api, *(f"{api}/revision/{name}" for name in ("main", COMMIT))):
            siblings = [{"rfilename": item["path"]} for item in self._tree(self.folder, True)]
            self._json({"id": self.data_set, "sha": COMMIT, "siblings": siblings})
        elif path.startswith(f"{api}/tree/"):
            at = self.folder / path.removeprefix(f"{api}/tree/").partition("/")[2]
            self._json(self._tree(at, "recursive=true" in self.path.lower()))
        elif path.startswith(files):
            self._file(self.folder / path.removeprefix(files).partition("/")[2])
        elif path == f"/api/datasets/{GATED}":
            self._json({"id": GATED, "sha": COMMIT})
        elif path.startswith(f"/datasets/{GATED}/"):
            self._refuse("GatedRepo", 403)
        else:
            self._refuse("RepoNotFound", 401)

    def _tree(self, at: Path, recursive: bool) -> list[dict[str, Any]]:
        found = sorted(at.rglob("*") if recursive else at.glob("*"))
        return [self._about(path) for path in found]

    def _about(self, path: Path) -> dict[str, Any]:
        name = path.relative_to(self.folder).as_posix()
        if path.is_dir():
            return {"type": "directory", "path": name, "oid": "0" * 40, "size": 0}
        return {
            "type": "file",
            "path": name,
            "oid": self._oid(path),
            "size": self.claimed.get(name, path.stat().st_size),
        }

    def _oid(self, path: Path) -> str:
        return hashlib.sha1(path.read_bytes()).hexdigest()

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._refuse("EntryNotFound", 404)
            return
        content = path.read_bytes()
        asked, size = self.headers.get("Range"), len(content)
        first, last = 0, size - 1
        if asked:
            start, _, end = asked.removeprefix("bytes=").partition("-")
            first, last = int(start), min(int(end or size - 1), size - 1)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(last - first + 1))
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.send_header("ETag", f'"{self._oid(path)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[first : last + 1])

    def _json(self, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _refuse(self, code: str, status: int) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


@contextmanager
def fake_hub(folder: Path, data_set: str, claimed: dict[str, int] | None = None) -> Iterator[tuple[str, list[str]]]:
    """The address of the server, and what it was asked for; `claimed` has sizes of files that are others in truth."""
    asked: list[str] = []
    known = {"folder": folder, "data_set": data_set, "asked": asked, "claimed": claimed or {}}
    answers = type("Answers", (_Answers,), known)
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
