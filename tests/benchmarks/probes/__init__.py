"""`make probes`: what gateways do when clients, engines and bytes misbehave."""
