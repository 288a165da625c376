"""The shop as a service of FastAPI.

pip install 'pgflows' fastapi uvicorn
export FLOWS_DATABASE_URL=postgresql://…
flows migrate && flows supervise examples.shop:registry &
uvicorn examples.shop.with_fastapi:app

curl -X POST localhost:8000/orders -H 'Idempotency-Key: 1' --json '{"item": "lamp"}'
curl -X POST localhost:8000/orders/ship_0:…/payment --json '{"amount": 12}'
curl localhost:8000/orders/ship_0:…
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Annotated

from fastapi import FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from examples.shop import CREATE_TABLE, PAID, ship
from flows import AsyncClient, AsyncConnectedClient
from flows.errors import ConfigError, UnknownRunError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Order(BaseModel):
    """What is ordered."""

    item: str


class Payment(BaseModel):
    """What was paid for an order."""

    amount: int


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Keep a client, with its connections, as long as the service runs."""
    async with AsyncClient.connect(os.environ["FLOWS_DATABASE_URL"]) as client:
        async with client.transaction() as tx:
            await tx.execute(CREATE_TABLE)
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)


@app.exception_handler(UnknownRunError)
@app.exception_handler(ConfigError)
async def say_not_found(_request: Request, error: Exception) -> JSONResponse:
    """Answer for a key that is none, or of no order."""
    return JSONResponse({"detail": str(error)}, 404)


@app.post("/orders", status_code=201)
async def place(
    order: Order, request: Request, idempotency_key: Annotated[str, Header()]
) -> dict[str, str]:
    """Take an order, once however often the request is sent."""
    client: AsyncConnectedClient = request.app.state.client
    async with client.transaction() as tx:
        key = await client.begin_tx(tx, ship, order.item, idempotency_key=idempotency_key)
        await tx.execute(
            "INSERT INTO orders (run_key, item) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            (str(key), order.item),
        )
    return {"order": str(key)}


@app.post("/orders/{key}/payment", status_code=204)
async def pay(key: str, payment: Payment, request: Request) -> None:
    """Tell the run that waits for the money."""
    await request.app.state.client.publish_event(key, PAID, payment.amount)


@app.get("/orders/{key}")
async def show(key: str, request: Request) -> dict[str, str]:
    """Say what has become of an order."""
    client: AsyncConnectedClient = request.app.state.client
    async with client.transaction() as tx:
        found = await tx.execute("SELECT item, state FROM orders WHERE run_key = %s", (key,))
        row = await found.fetchone()
        if row is None:
            raise HTTPException(404, "no such order")
        status = await client.get_run_status_tx(tx, key)
    return {"item": row[0], "state": row[1], "run": status.status}
