"""The channel between a supervisor and a child never blocks and never loses a message."""

from __future__ import annotations

import socket
import uuid
from typing import TYPE_CHECKING

import pytest

from flows.supervisor.exits import ExitCode
from flows.supervisor.messages import (
    Channel,
    Drained,
    Message,
    Notice,
    Progress,
    Ready,
    Refused,
    Release,
    Released,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = (Channel(end) for end in socket.socketpair())
    yield one, other
    one.close()
    other.close()


def test_messages_arrive_whole_and_in_order(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    sent: list[Message] = [
        Ready(),
        Refused(ExitCode.SCHEMA, "two\nlines"),
        Notice("ünïcode"),
        Release(uuid.uuid4()),
        Released(uuid.uuid4(), 3),
        Progress({"a": {"queued": 1}}),
        Drained({}),
    ]
    for message in sent:
        one.send(message)
    assert other.receive() == sent
    assert other.receive() == []
    assert not other.closed


def test_a_peer_that_reads_nothing_blocks_nobody_and_misses_nothing(
    ends: tuple[Channel, Channel],
) -> None:
    one, other = ends
    sent = [Notice(f"{number} " + "x" * 1000) for number in range(2000)]
    for message in sent:
        one.send(message)
    assert one.backlog > 0
    received: list[Message] = []
    while len(received) < len(sent):
        received += other.receive()
        one.flush()
    assert received == sent
    assert one.backlog == 0


def test_a_message_that_has_half_arrived_waits_for_the_rest() -> None:
    raw, end = socket.socketpair()
    channel = Channel(end)
    raw.sendall(b'{"type":"Rea')
    assert channel.receive() == []
    raw.sendall(b'dy"}\n{"type":"Notice","text":"last words"}\n')
    raw.close()
    assert channel.receive() == [Ready(), Notice("last words")]
    assert channel.closed
    channel.close()


def test_sending_to_a_process_that_is_gone_is_no_error(ends: tuple[Channel, Channel]) -> None:
    one, other = ends
    other.close()
    one.send(Ready())
    assert one.backlog == 0
