"""The shop as a service of Django, in one file.

pip install 'pgflows' django
export FLOWS_DATABASE_URL=postgresql://…
flows migrate && flows supervise examples.shop:registry &
python -m examples.shop.with_django runserver

curl -X POST localhost:8000/orders -H 'Idempotency-Key: 1' --json '{"item": "lamp"}'
curl -X POST localhost:8000/orders/ship_0:…/payment --json '{"amount": 12}'
curl localhost:8000/orders/ship_0:…
"""

from __future__ import annotations

import json
import os
import sys

import django
from django.conf import settings
from django.core.management import execute_from_command_line
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_POST
from psycopg.conninfo import conninfo_to_dict

from examples.shop import CREATE_TABLE, PAID, ship
from flows import Client
from flows.errors import ConfigError, UnknownRunError


def database(dsn: str) -> dict[str, object]:
    """Return Django's settings for a database, given as everywhere else in flows."""
    given = conninfo_to_dict(dsn)
    names = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST"}
    found = {name: given.get(key) for key, name in names.items()}
    return {"ENGINE": "django.db.backends.postgresql", "PORT": given.get("port"), **found}


settings.configure(
    ALLOWED_HOSTS=["localhost", "testserver"],
    DATABASES={"default": database(os.environ["FLOWS_DATABASE_URL"])},
    DEBUG=False,
    ROOT_URLCONF=__name__,
    SECRET_KEY=os.environ.get("SECRET_KEY", "of an example"),
)
django.setup()

from django.db import connection, transaction  # noqa: E402  which read the settings

client = Client()
with connection.cursor() as cursor:
    # A project of its own would do so by a migration.
    cursor.execute(CREATE_TABLE)


@require_POST  # type: ignore[untyped-decorator]  # Django has no types
def place(request: HttpRequest) -> HttpResponse:
    """Take an order, once however often the request is sent."""
    item = json.loads(request.body)["item"]
    with transaction.atomic():
        key = client.begin_tx(
            connection, ship, item, idempotency_key=request.headers["Idempotency-Key"]
        )
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO orders (run_key, item) VALUES (%s, %s) ON CONFLICT DO NOTHING",
                (str(key), item),
            )
    return JsonResponse({"order": str(key)}, status=201)


@require_POST  # type: ignore[untyped-decorator]  # Django has no types
def pay(request: HttpRequest, key: str) -> HttpResponse:
    """Tell the run that waits for the money."""
    try:
        with transaction.atomic():
            client.publish_event_tx(connection, key, PAID, json.loads(request.body)["amount"])
    except (ConfigError, UnknownRunError) as error:
        return JsonResponse({"detail": str(error)}, status=404)
    return HttpResponse(status=204)


def show(_request: HttpRequest, key: str) -> HttpResponse:
    """Say what has become of an order."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT item, state FROM orders WHERE run_key = %s", (key,))
        row = cursor.fetchone()
    if row is None:
        return JsonResponse({"detail": "no such order"}, status=404)
    status = client.get_run_status_tx(connection, key)
    return JsonResponse({"item": row[0], "state": row[1], "run": status.status})


urlpatterns = [
    path("orders", place),
    path("orders/<str:key>", show),
    path("orders/<str:key>/payment", pay),
]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
