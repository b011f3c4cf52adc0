"""When the Hub is asked: never for what is here, and where there is no network only once, not half a minute long."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from datasets import config
from huggingface_hub import constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.utils import get_session

from ..errors import chain


NO_WAY = (errno.ENETUNREACH, errno.EHOSTUNREACH)


@contextmanager
def asking_once(name: str) -> Iterator[None]:
    """Within it, what has this name is looked for in the Hub's cache alone, unless it is here or the Hub answers.

    The Hub's client would try again and again. This is `HF_HUB_OFFLINE=1` for as long as the block lasts.
    """
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or not (Path(name).exists() or _hub_answers())
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline


@contextmanager
def uncounted() -> Iterator[None]:
    """Within it `datasets` does not tell the Hub that files are read, as it does even for those of this machine."""
    counts = config.HF_UPDATE_DOWNLOAD_COUNTS
    config.HF_UPDATE_DOWNLOAD_COUNTS = False
    try:
        yield
    finally:
        config.HF_UPDATE_DOWNLOAD_COUNTS = counts


def _hub_answers() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except HTTPError as error:
        return not never_connected(error)
    return True


def never_connected(error: BaseException | None) -> bool:
    """Whether there is no network, no such host, or nobody who answers at its address."""
    return any(
        isinstance(each, (socket.gaierror, ConnectionRefusedError)) or getattr(each, "errno", None) in NO_WAY
        for each in chain(error)
    )
