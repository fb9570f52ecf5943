"""The worker: fetches, runs, settles."""
