"""What becomes of a bad record: raised at once, or kept while the rest of the data set is used.

An image with a bad record is left out as a whole, since how many objects it holds is then unknown.
"""

from collections.abc import Callable

from wherein.errors import InputError

Complain = Callable[[InputError], None]
"""Receives each complaint of a reader, one sentence that names the file and the record, and returns if it may go on."""
SHOWN = 20
"""Complaints that are told at once; the rest is counted."""


def refuse(error: InputError) -> None:
    """Raise the complaint: what readers do by default, as for training data, which should be mended first.

    Raises:
        InputError: always, the one that was given.
    """
    raise error


class Complaints:
    """A list of complaints in one line each, `sentences`; the first `SHOWN` of them are told as they come."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        """`tell` is given a line for a person to read."""
        self.sentences: list[str] = []
        self._known: set[str] = set()
        self._tell = tell

    def __call__(self, error: InputError) -> None:
        """Keep a complaint, once."""
        sentence = " ".join(str(error).split())  # one line, whatever a file is called
        if sentence in self._known:
            return
        self._known.add(sentence)
        self.sentences.append(sentence)
        if len(self.sentences) <= SHOWN:
            self._tell(self.sentences[-1])

    def tell_the_rest(self) -> None:
        """Say how many complaints there are that nobody was told."""
        if len(self.sentences) > SHOWN:
            self._tell(f"... and {len(self.sentences) - SHOWN:,} more complaints")

    def judge(self, skip_bad: bool, so: str) -> None:
        """End a run: tell the rest, and complain if there was any complaint; `so` says what came of it and what to do.

        Raises:
            InputError: there were complaints, and bad records are not to be skipped.
        """
        self.tell_the_rest()
        if self.sentences and not skip_bad:
            raise InputError(f"{len(self.sentences):,} bad records, told above: {so}")
