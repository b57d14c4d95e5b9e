"""The generator's process, in which nothing else runs: `process` is the other end.

A generator's turn is Python for the most part, and what shares a process with it takes turns with it. So all that makes
text of ids is elsewhere. Errors of CUDA, which stick to their process, end with this one.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import BinaryIO

import msgspec

from inference import link
from inference.errors import EngineError
from inference.exllama.backend import Backend
from inference.exllama.folder import read_vocabulary
from inference.exllama.loading import load_backend
from inference.exllama.orders import Open, Order, Ready, Report
from inference.exllama.owner import Owner
from inference.frames import encode, receive
from inference.pipes import ended_by_kernel, own_pipes

_ENOUGH_S = 1.0  # for a turn; a GPU that does not answer would keep us for ever

_opening = msgspec.msgpack.Decoder(Open)
_orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)


def main(load: Callable[[Open], Backend] = load_backend) -> None:
    """Load a model, and do as we are told until our owner is gone."""
    stdin, stdout = own_pipes()
    with os.fdopen(stdin, "rb") as told, os.fdopen(stdout, "wb") as said:
        opening = receive(told, _opening)
        if opening is None:
            return
        try:
            with ended_by_kernel(stdin):
                vocabulary = read_vocabulary(opening.settings, opening.stop)
                backend = load(opening)
        except EngineError as error:
            _say(said, link.failed(0, error))
            return
        _say(said, Ready())
        owner = Owner(backend, vocabulary.rule, lambda report: _say(said, report))
        threading.Thread(target=_listen, args=(told, owner), daemon=True).start()
        owner.run()
        os._exit(0)  # what unloads a model would wait for a GPU that does not answer


def _listen(told: BinaryIO, owner: Owner) -> None:
    try:
        while (order := receive(told, _orders)) is not None:
            owner.order(order)
    finally:
        owner.close()
        time.sleep(_ENOUGH_S)
        os._exit(0)


def _say(said: BinaryIO, what: Ready | link.Failed | Report) -> None:
    try:
        said.write(encode(what))
        said.flush()
    except (OSError, EngineError):  # our owner is gone, or there is what cannot be said
        os._exit(1)


if __name__ == "__main__":
    main()
