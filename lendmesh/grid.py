"""The one table of this command: no lines, columns that give way when the screen is narrow, nothing lost in a pipe.

A column may say that it can be left out where there is no room (``drop``: the highest number goes first), or that its
text may be folded (``fold``). Identifiers are neither: people copy them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

GAP = 2
"""Blanks between columns."""
LEAST = 20
"""What a folded column is never narrower than."""


@dataclass(frozen=True, slots=True)
class Column:
    """How one column looks and gives way."""

    name: str
    right: bool = False
    drop: int = 0
    """0: always there; else left out at need, the highest number first."""
    fold: bool = False


class Grid:
    """Rows under bold headings; printed with ``console.print``."""

    def __init__(self, *columns: Column | str, title: str | None = None) -> None:
        self.columns = [Column(column) if isinstance(column, str) else column for column in columns]
        self.title = title
        self.rows: list[list[Text]] = []

    def add(self, *cells: str | Text) -> None:
        """One row; as many cells as there are columns."""
        if len(cells) != len(self.columns):
            raise ValueError(f"{len(cells)} cells for {len(self.columns)} columns")
        self.rows.append([cell if isinstance(cell, Text) else Text(cell) for cell in cells])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self.title:
            yield Text(self.title, style="bold")
        kept = self._that_fit(options.max_width)
        widths = self._widths(kept, options.max_width)
        for cells in ([Text(column.name, style="bold") for column in self.columns], *self.rows):
            yield from self._lines(console, [cells[index] for index in kept], kept, widths)

    def _natural(self, index: int) -> int:
        longest = max((cell.cell_len for row in self.rows for cell in (row[index],)), default=0)
        return max(longest, cell_len(self.columns[index].name))

    def _needed(self, kept: Sequence[int]) -> int:
        widths = [
            min(self._natural(index), LEAST) if self.columns[index].fold else self._natural(index) for index in kept
        ]
        return sum(widths) + GAP * (len(kept) - 1)

    def _that_fit(self, room: int) -> list[int]:
        kept = [index for index in range(len(self.columns)) if not self._is_empty(index)]
        while self._needed(kept) > room:
            droppable = [index for index in kept if self.columns[index].drop]
            if not droppable:
                break
            kept.remove(max(droppable, key=lambda index: self.columns[index].drop))
        return kept

    def _is_empty(self, index: int) -> bool:
        """A column that may go and says nothing goes first."""
        column = self.columns[index]
        return bool(column.drop) and bool(self.rows) and all(row[index].plain in ("", "–") for row in self.rows)

    def _widths(self, kept: Sequence[int], room: int) -> list[int]:
        widths = [self._natural(index) for index in kept]
        over = sum(widths) + GAP * (len(kept) - 1) - room
        for place in sorted(range(len(kept)), key=lambda place: -widths[place]):
            if over > 0 and self.columns[kept[place]].fold:
                given = min(over, max(0, widths[place] - LEAST))
                widths[place] -= given
                over -= given
        return widths

    def _lines(
        self, console: Console, cells: Sequence[Text], kept: Sequence[int], widths: Sequence[int]
    ) -> Iterator[Text]:
        folded = [
            list(cell.wrap(console, width)) if cell.cell_len > width and self.columns[index].fold else [cell]
            for cell, index, width in zip(cells, kept, widths, strict=True)
        ]
        for number in range(max((len(lines) for lines in folded), default=0)):
            line = Text(no_wrap=True, overflow="ignore")
            for lines, index, width in zip(folded, kept, widths, strict=True):
                cell = lines[number] if number < len(lines) else Text()
                gap = " " * max(0, width - cell.cell_len)
                line.append(gap if self.columns[index].right else "")
                line.append_text(cell)
                line.append(("" if self.columns[index].right else gap) + " " * GAP)
            line.rstrip()
            yield line
