"""The worker process: opens one engine and serves it over stdin and stdout until stdin ends.

It must never outlive its owner, who may be killed without a word. The end of stdin says so; while nothing here can
read it, the kernel watches: see `pipes`.
"""

from __future__ import annotations

import os
import tempfile
import threading
import traceback
from contextlib import AbstractAsyncContextManager, AsyncExitStack, suppress
from pathlib import Path

import msgspec
import trio

from inference import link
from inference.engine import Engine, Finished, Request
from inference.errors import EngineError
from inference.exllama.engine import open_exllama
from inference.exllama.settings import ExLlama
from inference.frames import Inbox, drain, encode
from inference.llamacpp import LlamaCpp, open_llamacpp
from inference.pipes import ended_by_kernel, own_pipes
from inference.scripted import Scripted, open_scripted
from inference.upstream import Upstream, open_upstream

_UNWIND_S = 1.0
_OUTBOX_FRAMES = 64  # a slow owner makes the answers wait


class _Worker:
    """Runs the owner's jobs on the engine, each in its own task."""

    def __init__(self, engine: Engine, outbox: trio.MemorySendChannel[bytes], nursery: trio.Nursery) -> None:
        self._engine = engine
        self._outbox = outbox
        self._nursery = nursery
        self._scopes: dict[int, trio.CancelScope] = {}

    async def serve(self, inbox: Inbox[link.Job | link.Cancel]) -> None:
        """Until the owner is gone."""
        while (message := await inbox.next()) is not None:
            if isinstance(message, link.Cancel):
                if message.id in self._scopes:
                    self._scopes[message.id].cancel()
            else:
                self._scopes[message.id] = trio.CancelScope()
                self._nursery.start_soon(self._run, message)

    async def _run(self, job: link.Job) -> None:
        final: link.FromWorker = link.Cancelled(job.id)
        with self._scopes[job.id]:
            try:
                final = await self._work(job)
            except EngineError as error:
                final = link.failed(job.id, error)
            except Exception as error:  # a fault of ours must not end the others' answers
                traceback.print_tb(error.__traceback__)  # and never the message: it may quote a prompt
                final = link.failed(job.id, EngineError(f"the engine failed with {type(error).__name__}"))
        del self._scopes[job.id]
        await self._outbox.send(encode(final))

    async def _work(self, job: link.Job) -> link.Value | link.Done | link.Read:
        match job:
            case link.Health():
                await self._engine.health()
                return link.Value(job.id, 0)
            case link.Count(request=request):
                return link.Value(job.id, await self._engine.count(request))
            case link.Prefill(request=request, tokens=tokens):
                return link.Value(job.id, await self._engine.prefill(request, tokens))
            case link.Generate(request=request):
                return link.Done(job.id, await self._answer(job.id, request))
            case link.Score(request=request, text=text):
                return link.Read(job.id, await self._engine.score(request, text))

    async def _answer(self, job: int, request: Request) -> Finished:
        async with self._engine.generate(request) as items:
            async for item in items:
                if isinstance(item, Finished):
                    return item
                await self._outbox.send(encode(link.Piece(job, item)))
        raise EngineError("the engine ended the answer without a finish")


def _open(spec: link.Spec) -> AbstractAsyncContextManager[Engine]:
    match spec:
        case LlamaCpp():
            return open_llamacpp(spec)
        case Scripted():
            return open_scripted(spec)
        case ExLlama():
            return open_exllama(spec)
        case Upstream():
            return open_upstream(spec)


async def _main(stdin_fd: int, stdout_fd: int) -> None:
    stdin, stdout = trio.lowlevel.FdStream(stdin_fd), trio.lowlevel.FdStream(stdout_fd)
    opening = await Inbox(stdin, msgspec.msgpack.Decoder(link.Open)).next()
    if opening is None:
        return
    async with AsyncExitStack() as stack:
        try:
            with ended_by_kernel(stdin_fd):
                engine = await stack.enter_async_context(_open(opening.spec))
        except EngineError as error:
            await stdout.send_all(encode(link.failed(0, error)))
            return
        await stdout.send_all(encode(link.Ready(engine.models(), engine.capacity().total)))
        nursery = await stack.enter_async_context(trio.open_nursery())
        outbox, frames = trio.open_memory_channel[bytes](_OUTBOX_FRAMES)
        nursery.start_soon(drain, frames, stdout)
        await _Worker(engine, outbox, nursery).serve(Inbox(stdin, msgspec.msgpack.Decoder(link.Job | link.Cancel)))
        _exit_soon()
        nursery.cancel_scope.cancel()


def _exit_soon() -> None:
    """Unwinding waits for C++ to finish a batch; if that takes too long there is nothing left to wait for."""
    timer = threading.Timer(_UNWIND_S, os._exit, (0,))
    timer.daemon = True
    timer.start()


def main() -> None:
    trio.run(_main, *own_pipes())
    with suppress(OSError):  # our owner's to remove, if it lives
        Path(tempfile.gettempdir()).rmdir()


if __name__ == "__main__":
    main()
