"""The agent: makes the kernel do what the configuration says. It owns no traffic and may be killed at any moment."""
