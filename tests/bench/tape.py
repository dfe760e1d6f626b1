"""What the broker's writer said to its database, recorded as it said it, and said again with nothing around it.

The floor under everything: the same statements with the same values in the same transactions, on a fresh database of
the same kind with the same durability, by the bare driver.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Engine, event

from broker.store.database import database
from broker.store.migrate import migrate

COMMIT, ROLLBACK = "commit", "rollback"
Said = tuple[str, Any, bool]
"""Statement, values, whether they are many rows."""


class Tape:
    """Everything one engine says, in order."""

    def __init__(self, engine: Engine) -> None:
        self.said: list[Said] = []
        event.listen(engine, "before_cursor_execute", self._statement)
        event.listen(engine, "commit", lambda _: self.said.append((COMMIT, None, False)))
        event.listen(engine, "rollback", lambda _: self.said.append((ROLLBACK, None, False)))

    def _statement(self, _: Any, __: Any, statement: str, values: Any, ___: Any, many: bool) -> None:
        self.said.append((statement, values, many))

    def say_again(self, url: str) -> float:
        """Seconds that everything takes on a fresh database at `url`."""
        migrate(url)
        base = database(url)
        engine = base.writer()
        connection = engine.raw_connection()
        try:
            cursor = connection.cursor()
            began = time.perf_counter()
            for statement, values, many in self.said:
                if statement == COMMIT:
                    connection.commit()
                elif statement == ROLLBACK:
                    connection.rollback()
                elif many:
                    cursor.executemany(statement, values)
                else:
                    cursor.execute(statement, values)
                    if cursor.description is not None:
                        cursor.fetchall()
            return time.perf_counter() - began
        finally:
            connection.close()
            engine.dispose()
            base.close()
