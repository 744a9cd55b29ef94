"""The ledger: durable usage records and their hourly sums; `ledger.Ledger` is its face.

Nothing is imported here: commands use its tables' words without SQLAlchemy.
"""
