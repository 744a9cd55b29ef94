"""An engine on a real socket that knows one table of next-token probabilities, and tells the most probable ones."""

from __future__ import annotations

import itertools
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = ["RankingEngine"]


class RankingEngine(ThreadingHTTPServer):
    """Answers /v1/completions with `prompt_logprobs`, as vLLM does; a context manager, one thread."""

    def __init__(self, logprobs: npt.NDArray[np.float64]) -> None:
        """`logprobs` (vocabulary, vocabulary): of the next token, by the one before."""
        super().__init__(("127.0.0.1", 0), _Answer)
        self.logprobs = logprobs
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shutdown()
        self.thread.join()
        self.server_close()

    def ranked(self, before: int, token: int, top_k: int) -> dict[str, Any]:
        """The `top_k` most probable tokens after `before`, and `token`, each with its rank from 1."""
        order = np.argsort(-self.logprobs[before], kind="stable")
        ranks = {int(found): rank for rank, found in enumerate(order, start=1)}
        told = {*map(int, order[:top_k]), token}
        return {str(t): {"logprob": float(self.logprobs[before, t]), "rank": ranks[t]} for t in told}


class _Answer(BaseHTTPRequestHandler):
    server: RankingEngine

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, top_k = body["prompt"], body["prompt_logprobs"]
        pairs = itertools.pairwise(prompt)
        places = [None, *(self.server.ranked(before, token, top_k) for before, token in pairs)]
        answer = json.dumps({"choices": [{"text": "", "prompt_logprobs": places}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: object) -> None:
        """Say nothing."""
