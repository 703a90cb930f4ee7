"""What is wrong with a query, and where in it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from itertools import islice

from graybox.errors import Invalid

EXCERPT = 24
"""Characters of a query that an error cites."""

_COMPARED_LENGTH = 80
_COMPARED_NAMES = 1_000
_LISTED_NAMES = 12


class QueryError(Invalid):
    """A query that cannot be read, or that does not fit the table.

    problem: what is wrong and what would be right, without the place. position: 0-based, in characters of the query;
    its length where the query ends too early. excerpt: what stands there, at most EXCERPT characters. str(error) counts
    characters from 1, as people do; a query that was not parsed from text has no place to tell.
    """

    def __init__(self, problem: str, position: int = 0, source: str = "") -> None:
        self.problem = printable(problem)
        self.position = min(max(position, 0), len(source))
        self.excerpt = source[self.position : self.position + EXCERPT]
        if self.excerpt:
            place = f" (at character {self.position + 1}: {self.excerpt!r})"
        elif source:
            place = f" (at character {self.position + 1}, where the query ends)"
        else:
            place = ""
        super().__init__(self.problem + place, details={"problem": self.problem, "position": self.position})


def printable(text: str) -> str:
    """With escapes for what cannot be seen or turns the line around, which a query may have in quotes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def nearest(name: str, names: Iterable[str], what: str = "", listed: bool = True) -> str:
    """The end of a sentence that says there is no such name: '; do you mean ...?' or '; there are ...'.

    what: how names are written in a query, where not as they are, for example 'tag:'. listed: whether to list names
    where none is near. Comparing costs time, so that long names and those after the first 1,000 are left out.
    """
    known = [each for each in islice(names, _COMPARED_NAMES) if len(each) <= _COMPARED_LENGTH]
    if len(name) <= _COMPARED_LENGTH:
        lowered = {each.lower(): each for each in reversed(known)}
        close = [lowered[each] for each in get_close_matches(name.lower(), lowered, n=3, cutoff=0.6)]
        if close:
            return f"; do you mean {' or '.join(what + each for each in close)}?"
    if not listed:
        return ""
    if not known:
        return "; there are none"
    more = f" and {len(known) - _LISTED_NAMES} more" if len(known) > _LISTED_NAMES else ""
    return f"; there are {', '.join(what + each for each in known[:_LISTED_NAMES])}{more}"
