"""The task, and the app that the web frameworks and the workers share."""

from chicory import BrokerType, Chicory

app = Chicory(BrokerType.REDIS)


@app.task(name="total")
def total(numbers: list[int]) -> int:
    """Add up *numbers*, which a request should not wait for."""
    return sum(numbers)
