"""The ledger: durable usage records and their hourly sums."""
