"""The scheduler: moves what time moves."""
