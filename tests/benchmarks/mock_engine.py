"""The mock engine and the plain proxy: nginx, which is not the bottleneck."""

from __future__ import annotations

import shutil
from pathlib import Path
from string import Template

import psutil

from tests.benchmarks import processes

__all__ = ["OPEN_FILES", "start_mock_engine", "start_proxy"]

OPEN_FILES = 20_000
_LUA_MODULES = [
    Path(folder, "ngx_http_lua_module.so") for folder in ("/usr/share/nginx/modules", "/usr/lib/nginx/modules")
]
_HERE = Path(__file__).parent


def start_mock_engine(folder: Path, *, port: int, core: int | None) -> psutil.Popen:
    """Start the mock engine on a port of the loopback. Raises FileNotFoundError without nginx and its lua module."""
    if not any(path.exists() for path in _LUA_MODULES) or shutil.which("nginx") is None:
        raise FileNotFoundError(
            "nginx with its lua module is needed (Debian: apt-get install nginx libnginx-mod-http-lua)"
        )
    return _start("mock_engine.conf", folder, core=core, port=port)


def start_proxy(folder: Path, *, port: int, engine: int, core: int | None) -> psutil.Popen:
    """Start nginx as a plain proxy with keep-alive: the floor."""
    return _start("proxy.conf", folder, core=core, port=port, engine=engine)


def _start(template: str, folder: Path, *, core: int | None, **values: int) -> psutil.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    text = Template((_HERE / template).read_text("utf-8"))
    written = folder / "nginx.conf"
    written.write_text(text.safe_substitute(values, folder=folder, here=_HERE, open_files=OPEN_FILES), "utf-8")
    argv = ["nginx", "-c", str(written), "-e", str(folder / "error.log")]
    return processes.start(argv, core=core, log=folder / "nginx.log")
