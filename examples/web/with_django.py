"""Django: the views block, each in its thread.  An async view awaits `total.delay()`, as FastAPI's do.

A project keeps settings, views and URLs in files of their own; here they are one, served by any WSGI server:

gunicorn examples.web.with_django:application
"""

# Django comes without types.
# pyright: basic, reportArgumentType=false

import json

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path
from django.views.decorators.http import require_GET, require_POST

from chicory import ResultTimeout
from chicory.errors import QueueFull, ResultUnknown
from examples.web.tasks import app, total

settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["localhost", "testserver"])


@require_POST
def ask(request: HttpRequest) -> JsonResponse:
    """Have a total made; the id is what to ask for it by.

    A task that needs what this request writes into the database is sent when that is committed:
    `transaction.on_commit(lambda: total.send_sync(numbers))`.
    """
    try:
        result = total.delay_sync(json.loads(request.body))
    except QueueFull:
        return JsonResponse({"detail": "too much to do; try again later"}, status=503)
    return JsonResponse({"id": result.id}, status=202)


@require_GET
def tell(request: HttpRequest, task_id: str) -> JsonResponse:
    """The total, waited for `wait` seconds at most."""
    try:
        return JsonResponse({"total": app.result(task_id).get_sync(timeout=float(request.GET.get("wait", "0")))})
    except ResultTimeout:
        return JsonResponse({"id": task_id}, status=202)
    except ResultUnknown:
        return JsonResponse({"detail": "nobody asked for that"}, status=404)


urlpatterns = [path("totals", ask), path("totals/<str:task_id>", tell)]
application = get_wsgi_application()
