"""How the ledger's tables came to be: one revision a file, applied by server/ledger/schema.py.

To change a table: change server/ledger/tables.py, add `versions/rNNNN_what.py` that does the same to a database of the
revision before, and set `REVISION` in schema.py. A test compares the result of all revisions with the tables.
"""
