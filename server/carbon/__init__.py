"""Carbon and cost: what a joule emits and costs, now."""
