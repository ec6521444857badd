import asyncio
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.server import ServerState

from scripts.serve.connections import IDLE_SECONDS, Connection, close_idle, max_connections

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Transport(asyncio.Transport):
    closed = False

    def write(self, data):
        pass

    def abort(self):
        self.closed = True

    def is_closing(self):
        return self.closed


class Clock:
    """What a connection needs of an event loop; a request stays without an answer."""

    now = 0.0

    def time(self):
        return self.now

    def create_task(self, request):
        request.close()
        return Mock()

    def call_later(self, seconds, callback):
        return Mock()


@pytest.fixture
def opened():
    """Opens connections, of which each begins a second after the one before."""
    clock, state = Clock(), ServerState()

    async def application(scope, receive, send):
        pass

    config = uvicorn.Config(application, interface="asgi3", log_config=None, ws="none", lifespan="off")

    def make(sent=b""):
        connection = Connection(config, state, {}, clock)
        connection.connection_made(Transport())
        if sent:  # nothing would be the end of the connection
            connection.data_received(sent)
        clock.now += 1
        return connection

    return make, state.connections, clock


def answer(connection):
    connection.cycle.response_complete = True
    connection.on_response_complete()


def closed(*connections):
    return [connection.transport.is_closing() for connection in connections]


def test_the_longest_idle_connection_makes_room(opened, monkeypatch):
    monkeypatch.setattr(Connection, "most", 3)
    make, _, clock = opened
    answered, busy, silent = make(REQUEST), make(REQUEST), make(REQUEST[:-1])
    answer(answered)
    clock.now += 1  # or it would be as idle as the next
    another = make()
    assert closed(answered, busy, silent, another) == [False, False, True, False]
    make()
    assert closed(answered, busy, another) == [True, False, False]


def test_a_connection_too_many_is_closed_if_all_others_are_being_answered(opened, monkeypatch):
    monkeypatch.setattr(Connection, "most", 2)
    make, _, _ = opened
    assert closed(make(REQUEST), make(REQUEST), make()) == [False, False, True]


def test_a_connection_that_asks_for_nothing_is_closed(opened):
    make, connections, clock = opened
    slow, busy, answered = make(REQUEST[:9]), make(REQUEST), make(REQUEST)
    clock.now = IDLE_SECONDS - 1
    answer(answered)
    close_idle(connections, clock.now)
    assert closed(slow, busy, answered) == [False, False, False]
    slow.data_received(REQUEST[9:12])
    close_idle(connections, IDLE_SECONDS)
    assert closed(slow, busy, answered) == [True, False, False]


def test_the_limit_leaves_file_handles_for_what_is_accepted_and_not_yet_looked_at(monkeypatch):
    resource = pytest.importorskip("resource")
    for handles, connections in ((200, 68), (1024, 480), (1_000_000, 1000), (10, 1), (resource.RLIM_INFINITY, 1000)):
        monkeypatch.setattr(resource, "getrlimit", lambda which, handles=handles: (handles, handles))
        assert max_connections() == connections
