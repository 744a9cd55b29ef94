"""Speed and memory of own rounding: `.venv-engine/bin/python -m tests.benchmarks.quantize [--gb 1] [--folder DIR]`.

A synthetic bf16 checkpoint of several files and large matrices is converted, each scheme in a process of its own. Speed
is bytes of source a second of the conversion, putting the files on the disk included; memory is the largest anonymous
memory of that process (RssAnon, 5 ms apart), torch included. The source lies in the page cache: it was just written.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, Final

_SCHEMES: Final[dict[str, dict[str, Any]]] = {
    "w4a16 group 128": {"scheme": "w4a16"},
    "w4a16 group 32": {"scheme": "w4a16", "group_size": 32},
    "w4a16 group 128, zero points": {"scheme": "w4a16", "symmetric": False},
    "w8a8-int8": {"scheme": "w8a8-int8"},
    "fp8-dynamic": {"scheme": "fp8-dynamic"},
    "fp8-block": {"scheme": "fp8-block"},
}
_HIDDEN, _INTERMEDIATE, _VOCABULARY = 4096, 14336, 8192
_LAYER_BYTES: Final = 2 * 2 * _HIDDEN * _INTERMEDIATE


def main() -> None:
    options = _parser().parse_args()
    if options.one is not None:
        print(json.dumps(_convert(options.folder, options.out, json.loads(options.one))))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source, out = Path(folder) / "source", Path(folder) / "out"
        size = make_checkpoint(source, round(options.gb * 1e9))
        os.sync()  # the disk would else be busy with the source while the first variants are put on it
        print(f"source: {size / 1e6:,.0f} MB in {len(list(source.glob('*.safetensors')))} files")
        for name, choice in _SCHEMES.items():
            if options.only not in name:
                continue
            rounds = [_measured(source, out, choice) for _ in range(options.rounds)]
            best = max(rounds, key=lambda found: found["mb_per_s"])
            print(
                f"{name:30} {best['mb_per_s']:7,.0f} MB/s  {best['cpu_s']:5.2f} s of processor  "
                f"{max(found['anonymous_mb'] for found in rounds):5,.0f} MB anonymous"
            )


def make_checkpoint(folder: Path, size: int) -> int:
    """About `size` bytes of normal weights, a file a layer; the bytes made."""
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    folder.mkdir(parents=True)
    torch.manual_seed(0)
    weight_map: dict[str, str] = {}
    layers = max(size // _LAYER_BYTES, 1)
    for layer in range(layers):
        shapes = {f"model.layers.{layer}.mlp.down_proj.weight": (_HIDDEN, _INTERMEDIATE)}
        shapes |= {f"model.layers.{layer}.mlp.up_proj.weight": (_INTERMEDIATE, _HIDDEN)}
        shapes |= {"model.embed_tokens.weight": (_VOCABULARY, _HIDDEN)} if layer == 0 else {}
        file = f"model-{layer + 1:05}-of-{layers:05}.safetensors"
        tensors = {name: torch.randn(shape).mul_(0.02).bfloat16() for name, shape in shapes.items()}
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(shapes, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def _measured(source: Path, out: Path, choice: dict[str, Any]) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.quantize", "--folder", source, "--out", out]
    done = subprocess.run(
        [*map(str, command), "--one", json.dumps(choice)], capture_output=True, text=True, check=True, timeout=600
    )
    shutil.rmtree(out)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _convert(source: Path, out: Path, choice: dict[str, Any]) -> dict[str, float]:
    from quant.methods import Options, method_of  # noqa: PLC0415
    from quant.rtn import round_to_nearest  # noqa: PLC0415

    method = method_of(choice.pop("scheme"), Options(**choice))
    peak, ended = [0], threading.Event()
    watch = threading.Thread(target=_watch, args=(peak, ended), daemon=True)
    watch.start()
    began, processor = time.perf_counter(), time.process_time()
    round_to_nearest(source, out, method)
    seconds, processor = time.perf_counter() - began, time.process_time() - processor
    ended.set()
    watch.join()
    size = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    return {"mb_per_s": size / 1e6 / seconds, "cpu_s": processor, "anonymous_mb": peak[0] / 1e6}


def _watch(peak: list[int], ended: threading.Event) -> None:
    while not ended.wait(0.005):
        found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found is not None
        peak[0] = max(peak[0], int(found[1]) * 1024)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--gb", type=float, default=1.0, help="size of the source (default 1)")
    parser.add_argument("--rounds", type=int, default=3, help="conversions of each scheme; the best speed counts")
    parser.add_argument("--only", default="", help="schemes whose name holds this")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="where there is room")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
