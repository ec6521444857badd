import asyncio

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from datamodules.files.errors import UserError
from scripts.serve.admission import Admission
from scripts.serve.limits import Limits
from tests.scripts.serve.asgi import ask


def application(limits, gate=None, read=None):
    """An application that reads a body, waits for the gate, and says how long the body was."""

    async def endpoint(request):
        body = await request.body()
        if read is not None:
            read.set()
        if gate is not None:
            await gate.wait()
        return Response(str(len(body)))

    return Admission(Starlette(routes=[Route("/predict", endpoint, methods=["POST"])]), "/predict", limits)


def asking(app, **request):
    return asyncio.run(ask(app, **request))


def empty(app):
    return app.waiting == app.held == 0


def test_a_body_may_be_as_large_as_the_limit_and_no_larger():
    app = application(Limits(max_payload_size=10))
    assert asking(app, body=[b"12345", b"67890"]).body == b"10"
    refusals = [
        asking(app, body=b"x" * 11),
        asking(app, body=[b"12345", b"67890", b"x", None]),  # the rest of it is not waited for
        asking(app, body=[None], length=11),  # none of it is
    ]
    for refusal in refusals:
        assert refusal.status == 413
    assert refusals[2].json == {"detail": "the request is larger than 10 bytes: send less"}
    assert empty(app)


@pytest.mark.parametrize("kind", ["application/json", "", "text/plain; boundary=multipart/form-data"])
def test_another_type_of_content(kind):
    answer = asking(application(Limits()), body=[None], kind=kind)
    assert answer.status == 415
    assert "multipart/form-data" in answer.json["detail"]


def test_a_slow_sender_holds_no_place_and_is_given_up():
    async def run():
        app = application(Limits(max_queue_size=1, upload_seconds=0.2))
        slow = asyncio.create_task(ask(app, body=[b"beginning", None]))
        while not app.held:
            await asyncio.sleep(0)
        assert (await ask(app, body=b"quick")).body == b"5"
        answer = await slow
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
        assert empty(app)

    asyncio.run(run())


def test_a_full_queue():
    async def run():
        gate, read = asyncio.Event(), asyncio.Event()
        app = application(Limits(max_queue_size=1), gate, read)
        first = asyncio.create_task(ask(app, body=b"1"))
        await read.wait()
        for body in ([None], b"2"):  # which is refused without being read
            refusal = await ask(app, body=body)
            assert (refusal.status, refusal.headers["retry-after"]) == (503, "1")
            assert refusal.json["detail"].startswith("1 request is waiting already: ")
        gate.set()
        assert (await first).status == 200
        assert empty(app)

    asyncio.run(run())


def test_a_request_that_is_given_up_gets_an_answer():
    async def run():
        read = asyncio.Event()
        app = application(Limits(), asyncio.Event(), read)
        task = asyncio.create_task(ask(app, body=b"1"))
        await read.wait()
        task.cancel()
        assert (await task).status == 503
        assert empty(app)

    asyncio.run(run())


def test_uploads_share_a_memory():
    async def run():
        gate, read = asyncio.Event(), asyncio.Event()
        app = application(Limits(max_payload_size=10), gate, read)
        assert app.limits.max_upload_memory == 160
        tasks = [asyncio.create_task(ask(app, body=b"x" * 10)) for _ in range(16)]
        while app.waiting < 16:
            await asyncio.sleep(0)
        refusal = await ask(app, body=b"1")
        assert (refusal.status, refusal.headers["retry-after"]) == (503, "1")
        gate.set()
        assert {(await task).status for task in tasks} == {200}
        assert empty(app)

    asyncio.run(run())


def test_a_sender_who_leaves_takes_nothing_with_him():
    app = application(Limits())
    assert asking(app, body=[]).status == 400
    assert empty(app)


def test_other_paths_pass():
    assert asking(application(Limits()), path="/other", kind="").status == 404


@pytest.mark.parametrize("name", ["max_payload_size", "max_queue_size", "max_batch_size", "max_pixels"])
def test_limits_are_positive(name):
    with pytest.raises(UserError, match=f"{name} must be greater than 0, got -1: "):
        Limits(**{name: -1})
