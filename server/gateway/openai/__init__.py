"""OpenAI's grammar: what requests, streams, answers and errors look like."""
