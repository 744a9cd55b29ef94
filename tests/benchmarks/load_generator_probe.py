"""Reads stamped streams with the load generator's own client, and says how far its times are from the stamps."""

from __future__ import annotations

import json
import sys
import time
from typing import Final

import gevent

from loadgen import _answer
from loadgen._client import Client
from loadgen._connection import Clocks
from loadgen._gateway import Prepared
from loadgen._mix import Mix
from loadgen._plan import Plan
from loadgen._prompts import Calibration
from loadgen._run import Run, Share
from loadgen._stream import ChatStream
from loadgen._transport import Connections
from tests.benchmarks.rounds import percentile
from tests.benchmarks.stamped_engine import model_with_pace

_CONTENT: Final = b'"content":"'
_MILLISECOND_NS: Final = 1e6
_PACE_MS: Final = 20


class _StampedStream(ChatStream):
    """Beside its work, compares every chunk's stamp with our time of it, and with the time now."""

    kernel_ms: Final[list[float]] = []
    read_ms: Final[list[float]] = []

    def feed(self, line: bytes, at: float) -> None:
        found = line.find(_CONTENT)
        stamp = line[found + len(_CONTENT) : line.find(b'"', found + len(_CONTENT))] if found >= 0 else b""
        if stamp:
            now_ns, sent_ns = time.monotonic_ns(), int(stamp)
            self.read_ms.append((now_ns - sent_ns) / _MILLISECOND_NS)
            self.kernel_ms.append((at * 1e9 - sent_ns) / _MILLISECOND_NS)
        super().feed(line, at)


def main(port: int, streams: int, seconds: float) -> None:
    """Print one JSON object: quantiles over all chunks, milliseconds."""
    # The one seam between the reader and its parser.
    setattr(_answer, "ChatStream", _StampedStream)  # noqa: B010
    model = model_with_pace(_PACE_MS)
    plan = _plan(port, model, tokens=int(seconds * 1000 / _PACE_MS))
    prepared = Prepared(
        mix=Mix(models=(model,), weights=(1.0,)),
        calibrations={model: Calibration(fixed_tokens=0.0, tokens_a_word=1.0)},
        cards={},
    )
    run = Run(plan, prepared, share=Share(index=0, of=1), clock=time.monotonic, origin=0.0)
    client = Client(run, Connections(plan.host, Clocks(now_s=run.now_s, wall_ns=time.time_ns)), report=lambda _: None)
    cpu = time.process_time()
    begun = time.monotonic()
    letters = [client.letter(job) for _ in range(streams) if (job := run.next_job()) is not None]
    gevent.joinall([gevent.spawn_later(i * _PACE_MS / 1000 / streams, client.send, x) for i, x in enumerate(letters)])
    busy = (time.process_time() - cpu) / (time.monotonic() - begun)
    failed = [record for record in run.records if not record.ok]
    read, kernel = sorted(_StampedStream.read_ms), sorted(_StampedStream.kernel_ms)
    said = {
        "streams": streams,
        "chunks": len(read),
        "failed": len(failed),
        "cpu_share": round(busy, 3),
        **{f"read_p{p}_ms": round(percentile(read, p), 3) for p in (50, 99)},
        **{f"stamp_p{p}_ms": round(percentile(kernel, p), 3) for p in (50, 99)},
        "lag_p99_ms": round((run.receive_lag.histogram.quantile(0.99) or 0.0) * 1000, 3),
        "reads": sum(record.reads for record in run.records),
        "merged_reads": sum(record.merged_reads for record in run.records),
    }
    print(json.dumps(said))


def _plan(port: int, model: str, *, tokens: int) -> Plan:
    return Plan(
        host=f"http://127.0.0.1:{port}",
        models=model,
        workload="fixed",
        workload_options="",
        workload_file="",
        mix_adapters="",
        prompt_tokens=32,
        output_tokens=tokens,
        stop_at_end=False,
        stream=True,
        concurrency=1,
        rate=0.0,
        arrivals="poisson",
        arrivals_options="",
        requests=0,
        seed=1,
        salt="bench",
        slo="",
        warm_up_s=0.0,
        max_in_flight=1000,
        output="",
        control="",
        run_time_s=None,
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
