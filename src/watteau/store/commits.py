"""Small writes that wait for the disk together: many clients at once cost one commit, not one each."""

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from sqlalchemy import Connection

from watteau.store.database import Database
from watteau.store.errors import StoreUnavailable

Answer = TypeVar("Answer")


class _Write(Generic[Answer]):
    """One caller's write and what became of it."""

    def __init__(self, work: Callable[[Connection], Answer]) -> None:
        self.work = work
        self.answer: Answer
        self.error: BaseException | None = None
        self.is_done = False
        self.is_called = threading.Event()  # it is done, or it is its thread's turn to write

    def ends(self, error: BaseException | None = None) -> None:
        self.error, self.is_done = error, True


class SharedCommits(Generic[Answer]):
    """Whoever finds nobody writing writes for all who wait. Each is answered when its own work is durable."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._guard = threading.Lock()
        self._waiting: list[_Write[Answer]] = []
        self._is_writing = False

    def write(self, work: Callable[[Connection], Answer]) -> Answer:
        """What `work` gives, once it is committed. It may run twice: it must do nothing but write and answer.

        Raises what `work` raises, which then kept nothing, or StoreUnavailable.
        """
        mine = _Write(work)
        with self._guard:
            self._waiting.append(mine)
            if not self._is_writing:
                self._is_writing = True
                mine.is_called.set()
        try:
            mine.is_called.wait()
        except BaseException:  # Ctrl-C
            self._leave(mine)
            raise
        if not mine.is_done:
            with self._guard:
                together, self._waiting = self._waiting, []
            try:
                self._write_all(together)
            finally:
                self._call(together)
        if mine.error is not None:
            raise mine.error
        return mine.answer

    def _call(self, answered: list[_Write[Answer]]) -> None:
        """Wake all who have their answer, and the first of those who came meanwhile: it writes for them."""
        with self._guard:
            self._call_next()
        for each in answered:
            each.is_called.set()

    def _leave(self, write: _Write[Answer]) -> None:
        """Its thread no longer waits, and cannot write for others."""
        with self._guard:
            if write in self._waiting:
                self._waiting.remove(write)
                if write.is_called.is_set():
                    self._call_next()

    def _call_next(self) -> None:
        if self._waiting:
            self._waiting[0].is_called.set()
        else:
            self._is_writing = False

    def _write_all(self, together: list[_Write[Answer]]) -> None:
        try:
            if len(together) == 1 or not self._write_at_once(together):
                for each in together:
                    self._write_alone(each)
        finally:
            for each in together:
                if not each.is_done:  # this thread was interrupted
                    each.ends(StoreUnavailable("the write was interrupted; try again"))

    def _write_at_once(self, together: list[_Write[Answer]]) -> bool:
        """Whether all of it was written, or nothing can be; False: one's work failed, so that each goes alone."""
        try:
            with self._database.writing() as connection:
                for each in together:
                    try:
                        each.answer = each.work(connection)
                    except Exception as error:
                        raise _WorkFailed from error
        except _WorkFailed:
            return False
        except Exception as error:
            for each in together:
                each.ends(error)
            return True
        for each in together:
            each.ends()
        return True

    def _write_alone(self, write: _Write[Answer]) -> None:
        try:
            with self._database.writing() as connection:
                write.answer = write.work(connection)
        except Exception as error:
            write.ends(error)
        else:
            write.ends()


class _WorkFailed(Exception):  # noqa: N818
    """Nothing was committed; some work of several did not succeed."""
