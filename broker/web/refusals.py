"""What the web room refuses by itself, before any use case is asked: the branch ``WebRefusal`` of the one tree.

Refusal (broker/domain/errors.py)
└── WebRefusal
    ├── NoSuchPage              no route has this path
    ├── WrongMethod             the path is there, this method isn't
    ├── IdempotencyKeyMissing   a POST without a usable Idempotency-Key
    ├── BodyTooLarge            more bytes than this route takes
    ├── BodyTooSlow             it did not arrive in time
    ├── WrongContentType        not the content type of this route, or encoded (compressed)
    ├── BadJson                 not JSON as we accept it
    ├── InvalidInput            JSON, but not what this route takes; says where and what
    ├── TooSlowReader           a watcher that doesn't read what it asked for
    └── NotReady                the broker runs, but can't serve yet or any more
"""

from collections.abc import Iterable

from broker.domain.errors import Refusal


class WebRefusal(Refusal):
    """Something is wrong with the request as HTTP."""


class NoSuchPage(WebRefusal):
    title = "No such page"

    def __init__(self) -> None:
        super().__init__("There is nothing at this path; /openapi.json and /docs have all that there is.")


class WrongMethod(WebRefusal):
    title = "Wrong method"

    def __init__(self, method: str, *, allowed: Iterable[str]) -> None:
        self.allowed = ", ".join(sorted(allowed))
        super().__init__(f"This path doesn't know {method[:16]}; it knows {self.allowed}.")


class IdempotencyKeyMissing(WebRefusal):
    title = "Idempotency-Key missing"


class BodyTooLarge(WebRefusal):
    title = "Too large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body is larger than the {limit:,} bytes that this route takes.")


class BodyTooSlow(WebRefusal):
    title = "Too slow"

    def __init__(self, seconds: int) -> None:
        super().__init__(f"The body did not arrive within {seconds} s.")


class WrongContentType(WebRefusal):
    title = "Wrong content type"


class BadJson(WebRefusal):
    title = "Not JSON"


class InvalidInput(WebRefusal):
    title = "Invalid input"


class TooSlowReader(WebRefusal):
    title = "Too slow to watch"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"You did not read for {seconds:g} s; come back with the id of the last event you saw.")


class NotReady(WebRefusal):
    title = "Not ready"

    def __init__(self, why: str) -> None:
        super().__init__(f"The broker can't serve now: {why}", retry_after_s=1)
