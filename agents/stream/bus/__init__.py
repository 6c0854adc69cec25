"""Observed queries between machines, over NATS JetStream: rules, messages, client, what sends and what reads."""
