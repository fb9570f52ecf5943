"""The books of a queue."""


async def close_books(app, queue="default"):
    """Every message is in exactly one place: see `Broker.counters`."""
    sizes = await app.broker.get_queue_sizes(queue)
    books = await app.broker.counters(queue)
    ended = sum(books.get(road, 0) for road in ("done", "failed", "dead", "purged", "lost"))
    assert books.get("published", 0) + books.get("replayed", 0) == ended + sizes.ready + sizes.delayed + sizes.delivered
