"""Wattgate's server."""
