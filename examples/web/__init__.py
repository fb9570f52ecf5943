"""One task behind three web frameworks: FastAPI on asyncio, Flask and Django in threads.

Start a worker with `chicory worker examples.web.tasks:app`, and any of the three beside it.
"""
