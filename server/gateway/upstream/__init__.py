"""The way to the engines, behind one Protocol."""
