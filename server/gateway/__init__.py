"""The data plane: a worker between clients and engines.

A request for inference leaves uvicorn in `connection` and becomes a `client`; `drive` runs `path` for it (all stages,
one function): `auth` → `limits` (`allowance`) → `admission` (`line`, `pace`) → `routing` → `attempts` (`retry`,
`sightings`, `upstream`) → `forward` (`passage` and the grammar, `prices`) → `records`. `visit` is around all of them,
`visits` knows which run. Everything else goes through `app`. `guarded` cuts off clients that ask too much of a
connection, `listener` is what connections share, `bus` carries records to the control plane and brings the routing
table and the prices; `worker` holds all of it; `__main__` is the process.
"""
