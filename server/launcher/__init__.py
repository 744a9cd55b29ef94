"""Holds the sockets, starts and restarts the planes, replaces them, ends everything.

`python -m server.launcher PLAN.json`, where the plan (written by `wattgate up`) says what to listen on and what to
run. It imports the standard library only and knows nothing of requests, engines or configuration.

Why it exists: a listening socket that lives here survives the worker that served it, so a killed worker resets no
queued connection; and as subreaper of all its descendants it can end every one of them, whoever started it.
Children get SIGKILL when it dies (parent-death signal); engines get the same through their keepers.

    plan.py      what to run
    sockets.py   what is listened on
    child.py     one process to keep running
    events.py    signals and descriptors, waited for in one place
    desk.py      where `wattgate reload` asks for another plan
    family.py    all children: kept running, replaced, ended in order
    descendants.py  whoever else is left at the end
"""
