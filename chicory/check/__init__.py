"""The check that chicoryd runs in a short-lived process before it trusts a configuration."""
