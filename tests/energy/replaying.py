"""Files for a replay, and what comes of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.cli import main

__all__ = ["Answer", "meter", "replay", "request", "write"]


class Answer:
    """The lines of the command's output."""

    def __init__(self, path: Path) -> None:
        *self.requests, last = [json.loads(line) for line in path.read_text().splitlines()]
        self.summary: dict[str, Any] = last["summary"]

    @property
    def warnings(self) -> dict[str, int]:
        return dict(self.summary["warnings"])

    @property
    def micro(self) -> dict[str, int]:
        return dict(self.summary["microjoules"])

    def check_law(self) -> None:
        """Σ requests + idle + unattributed + other = meter, in integers."""
        micro = self.micro
        assert sum(line["microjoules"] for line in self.requests) == micro["attributed"]
        assert sum(micro.values()) == 2 * micro["meter"]
        assert all(amount >= 0 for amount in micro.values())
        assert all(line["microjoules"] >= 0 for line in self.requests)


def request(id_: Any = "r", **fields: Any) -> dict[str, Any]:
    """One of a second, ten tokens a second."""
    start = fields.get("start_s", 10.0)
    times = fields.get("token_times_s", [start + 0.1 * place for place in range(1, 11)])
    return {
        "id": id_,
        "tenant": "alice",
        "prompt_tokens": 10,
        "output_tokens": len(times),
        "start_s": start,
        "first_token_s": times[0] if times else None,
        "token_times_s": times,
        "end_s": times[-1] if times else start + 1.0,
    } | fields


def meter(*totals: float, begin: float = 10.0, every: float = 1.0) -> list[dict[str, Any]]:
    return [{"t_s": begin + place * every, "joules_total": total} for place, total in enumerate(totals)]


def write(folder: Path, requests: Sequence[Any], readings: Sequence[Any]) -> list[str]:
    """Both files; returns how the command is told of them."""
    for name, lines in (("requests", requests), ("meter", readings)):
        text = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (folder / f"{name}.jsonl").write_text("".join(line + "\n" for line in text))
    return ["--requests", str(folder / "requests.jsonl"), "--meter", str(folder / "meter.jsonl")]


def replay(folder: Path, requests: Sequence[Any], readings: Sequence[Any], *more: str) -> Answer:
    """What the command answers. A line is an object, or text as it is to stand there."""
    files = write(folder, requests, readings)
    out = folder / "out.jsonl"
    assert main(["energy", "replay", *files, "--out", str(out), *more]) == 0
    answer = Answer(out)
    objects = [line for line in requests if not isinstance(line, str)]
    if len(objects) == len(requests):
        assert [line["id"] for line in answer.requests] == [line.get("id") for line in objects]
    return answer
