"""Efficiency: the six EfficientLLM metrics, and the honest figures that must stand beside them."""
