"""The data plane: a worker between clients and engines.

A request goes through `listener` (uvicorn's protocol), `app` (the HTTP surface), `path` (all stages, one function):
`auth` → `grammars` (body) → `admission` → `routing` → `upstream` → `forward` (with the grammar) → `records`.
`visit` answers errors and notices a client that leaves; `bus` carries records to the control plane and brings the
routing table; `worker` holds all of it; `__main__` is the process.
"""
