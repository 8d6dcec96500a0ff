"""What was answered to deliveries of the last minutes."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final

from api.transports.http_exchange import Response

REMEMBERED: Final = 20_000
REMEMBERED_FOR_S: Final = 600.0


class RecentDeliveries:
    """Answers by delivery: the same delivery again gets the same answer, and no more.

    A process has its own; deliveries that reach several become messages of one id and points of one time.
    """

    def __init__(self) -> None:
        self._answers: OrderedDict[str, tuple[float, Response]] = OrderedDict()

    def get(self, key: str) -> Response | None:
        """The answer that a delivery of this key had; an empty key had none."""
        found = self._answers.get(key)
        return found[1] if found is not None and time.monotonic() - found[0] < REMEMBERED_FOR_S else None

    def put(self, key: str, answer: Response) -> Response:
        """Remember an answer, and give it."""
        if key:
            self._answers[key] = (time.monotonic(), answer)
            self._answers.move_to_end(key)
            if len(self._answers) > REMEMBERED:
                self._answers.popitem(last=False)
        return answer
