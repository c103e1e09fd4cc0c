"""A stand-in for Hugging Face's server on this machine: the files of a folder as one data set."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

_API = re.compile(r"/api/datasets/somebody/walls(?:/revision/main)?")
_TREE = re.compile(r"/api/datasets/somebody/walls/tree/main/?(.*)")
_FILE = re.compile(r"/datasets/somebody/walls/resolve/main/(.*)")
_RANGE = re.compile(r"bytes=(\d+)-(\d+)")


@contextmanager
def hub(folder: Path) -> Iterator[str]:
    """The address of a server that has `folder` as the data set `somebody/walls`; use it as `HF_ENDPOINT`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"folder": folder}))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    folder: Path

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if _API.fullmatch(path):
            self._send(json.dumps({"id": "somebody/walls", "sha": "1" * 40}).encode())
        elif (match := _TREE.fullmatch(path)) and (self.folder / match[1]).is_dir():
            inside = self.folder / match[1]
            found = sorted(inside.rglob("*") if "recursive=true" in query else inside.iterdir())
            self._send(json.dumps([self._entry(file) for file in found]).encode())
        elif (match := _FILE.fullmatch(path)) and (self.folder / match[1]).is_file():
            content = (self.folder / match[1]).read_bytes()
            if wanted := _RANGE.fullmatch(self.headers.get("Range", "")):
                content = content[int(wanted[1]) : int(wanted[2]) + 1]
            self._send(content, HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        elif path.startswith("/api/datasets/"):
            self._send(b"{}", HTTPStatus.UNAUTHORIZED, "RepoNotFound")  # a private data set is not told from none
        else:
            self._send(b"{}", HTTPStatus.NOT_FOUND, "EntryNotFound")

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _entry(self, path: Path) -> dict[str, object]:
        size = path.stat().st_size if path.is_file() else 0
        kind = "file" if path.is_file() else "directory"
        return {"type": kind, "path": path.relative_to(self.folder).as_posix(), "size": size, "oid": "2" * 40}

    def _send(self, content: bytes, status: HTTPStatus = HTTPStatus.OK, error: str = "") -> None:
        self.send_response(status)
        if error:
            self.send_header("X-Error-Code", error)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
