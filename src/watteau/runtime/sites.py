"""One thread for each site that speaks to its engine, so that one site's slowness never delays another's cycle."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import structlog

from watteau.domain.fleet import Engine as EngineKind
from watteau.domain.fleet import Site
from watteau.domain.records import Place
from watteau.domain.requests import Outcome
from watteau.domain.sites import SiteNode
from watteau.domain.units import PoolId
from watteau.engines.contract import (
    Engine,
    EngineUnreachable,
    Launch,
    Observation,
    SharedEngine,
    SiteView,
    WorkerPlace,
)

_FIRST_RETRY_S, _LAST_RETRY_S = 0.2, 10.0
#: A silent engine is noticed at the latest after this long, also when nothing is asked of it.
_PROBE_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Refused:
    """The engine will never run this attempt."""

    name: str
    cause: str


@dataclass(frozen=True, slots=True)
class Voice:
    """The engine fell silent, or speaks again."""

    heard: bool
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Viewed:
    """What a site that others use, too, shows of itself, and which nodes of ours its nodes are."""

    view: SiteView
    nodes: tuple[SiteNode, ...]


@dataclass(frozen=True, slots=True)
class Swept:
    """Attempts that nobody knows any more were stopped: of a fence, or of another life."""

    names: tuple[str, ...]


News = Observation | Refused | Voice | Viewed | Swept
_Command = tuple[Literal["start", "stop", "adopt", "sweep", "show"], Launch | tuple[str, Outcome] | tuple[str, ...]]
#: Writes down what a site shows, in the site's own thread, and says which nodes of ours its nodes are.
Record = Callable[[SiteView], tuple[SiteNode, ...]]
#: What is carried out in one go: one command, or several starts.
_Batch = tuple[_Command, ...]


class SiteDriver:
    """Commands go in, news come out; no call blocks. Commands are idempotent, so each is repeated until it is answered.

    `may_act` is asked before each start: whoever no longer leads starts nothing.
    """

    def __init__(
        self,
        site: Site,
        engine: Engine,
        may_act: Callable[[], bool],
        wake: Callable[[], None],
        record: Record | None = None,
    ) -> None:
        self.site = site
        self.engine = engine
        self.shared = engine if isinstance(engine, SharedEngine) else None
        #: What the engine calls our nodes, where it has names of its own.
        self.names: dict[tuple[PoolId, int], str] = {}
        self._record = record
        self._view: SiteView | None = None  # the last one; of the thread alone
        self.silent_cause = ""  # "": the engine answers
        self._may_act = may_act
        self._wake = wake
        self._state = threading.Condition()  # guards all below
        self._commands: deque[_Command] = deque()
        self._tried = 0  # so many of the commands have been given to the engine, and not been answered yet
        self._news: deque[News] = deque()
        self._changed = False
        self._closed = False
        self._term = 0  # rises with `reset`: what an older term asked for is not told
        self._log = structlog.get_logger().bind(site=site.id)
        engine.on_change(self._on_change)
        self._thread = threading.Thread(target=self._run, name=f"watteau-site-{site.id}", daemon=True)
        self._thread.start()

    def node_name(self, place: Place) -> str:
        """What the engine calls a node of ours. This machine is one node; simulated ones are numbered in their pool."""
        if self.shared is not None:
            return self.names.get((place.pool, place.node), "")
        if self.site.engine is EngineKind.LOCAL:
            return self.engine.capacity()[0].node
        return simulated_node(place.pool, place.node)

    def worker_places(self, places: Sequence[Place]) -> tuple[WorkerPlace, ...]:
        """Places as the engine takes them."""
        return tuple(WorkerPlace(self.node_name(place), place.gpus) for place in places)

    def start(self, launch: Launch) -> None:
        """Start an attempt, as soon as the engine answers."""
        self._give(("start", launch))

    def stop(self, name: str, why: Outcome) -> None:
        """Stop an attempt, as soon as the engine answers."""
        self._give(("stop", (name, why)))

    def adopt(self, names: Sequence[str]) -> None:
        """Ask for one observation of each."""
        if names:
            self._give(("adopt", tuple(names)))

    def sweep(self, live: Sequence[str]) -> None:
        """Stop attempts at the site that are not among these."""
        self._give(("sweep", tuple(live)))

    def show(self) -> None:
        """Tell once more what the site showed last: who leads now may not have heard it, nor written it down."""
        self._give(("show", ()))

    def take_back_starts(self) -> set[str]:
        """Starts that were never given to the engine are given up; returns their names."""
        with self._state:
            kept = [command for at, command in enumerate(self._commands) if at < self._tried or command[0] != "start"]
            taken = {each[1].name for each in self._commands if isinstance(each[1], Launch)}
            taken -= {each[1].name for each in kept if isinstance(each[1], Launch)}
            self._commands = deque(kept)
        return taken

    def drain(self) -> list[News]:
        """What was heard since the last call, oldest first."""
        with self._state:
            news = list(self._news)
            self._news.clear()
        return news

    def reset(self) -> None:
        """Forget what was asked and heard: whoever leads next asks for everything again."""
        with self._state:
            self._term += 1
            self._commands.clear()
            self._tried = 0
            self._news.clear()

    def close(self) -> None:
        """End the thread. Attempts go on."""
        with self._state:
            self._closed = True
            self._state.notify_all()
        self._thread.join(timeout=5)
        self.engine.close()

    def _give(self, command: _Command) -> None:
        with self._state:
            self._commands.append(command)
            self._state.notify_all()

    def _on_change(self) -> None:
        with self._state:
            self._changed = True
            self._state.notify_all()

    def _run(self) -> None:
        retry_s = 0.0
        while True:
            with self._state:
                if not self._closed and not self._changed and (retry_s or not self._commands):
                    self._state.wait(retry_s or _PROBE_EVERY_S)
                if self._closed:
                    return
                idle = not self._changed and not self._commands
                self._changed = False
                batch = self._next_batch()
                may_act = not batch or batch[0][0] in ("adopt", "show") or self._may_act()
                if may_act:
                    self._tried = max(self._tried, len(batch))
                term = self._term
            try:
                if not may_act:
                    retry_s = (
                        _FIRST_RETRY_S  # perhaps it leads again in a moment; if not, `reset` takes the command away
                    )
                    continue
                news: list[News] = list(self._do(batch)) if batch else []
                if idle:
                    self.engine.capacity()
                news += self.engine.changes()
                news += self._look()
                retry_s = 0.0
            except EngineUnreachable as silence:
                retry_s = min(_LAST_RETRY_S, 2 * retry_s) or _FIRST_RETRY_S
                if not self.silent_cause:
                    self._log.warning("engine is silent", cause=str(silence))
                    self.silent_cause = str(silence) or "it does not answer"
                    self._tell(term, [Voice(False, self.silent_cause)])
                continue
            except Exception as failed:  # an engine's own mistake must not end the site's thread
                self._log.exception("engine failed")
                retry_s = min(_LAST_RETRY_S, 2 * retry_s) or _FIRST_RETRY_S
                if not self.silent_cause:
                    self.silent_cause = f"it failed: {failed}"
                    self._tell(term, [Voice(False, self.silent_cause)])
                continue
            with self._state:
                if term == self._term:
                    for command in batch:
                        if self._commands and self._commands[0] is command:
                            self._commands.popleft()
                    self._tried = 0
            if self.silent_cause:
                self.silent_cause = ""
                news.insert(0, Voice(True))
            self._tell(term, news)

    def _next_batch(self) -> _Batch:
        """The next command, and the starts that follow a start, as many as the engine takes at once."""
        most = self.engine.capabilities.most_starts
        batch: list[_Command] = []
        for command in self._commands:
            if batch and (len(batch) == most or batch[0][0] != "start" or command[0] != "start"):
                break
            batch.append(command)
        return tuple(batch)

    def _do(self, batch: _Batch) -> Sequence[News]:
        match batch[0]:
            case ("start", _):
                launches = [launch for _, launch in batch if isinstance(launch, Launch)]
                return [Refused(name, why) for name, why in self.engine.start_all(launches)]
            case ("stop", (str() as name, Outcome() as why)):
                self.engine.stop(name, why)
            case ("adopt", names):
                return self.engine.adopt(names)  # type: ignore[arg-type]
            case ("sweep", live) if self.shared is not None:
                left = self.shared.leftovers(live)  # type: ignore[arg-type]
                for name in left:
                    self.engine.stop(name, Outcome.CANCELLED)
                return [Swept(tuple(left))]
            case ("show", _):
                return self._show()
        return []

    def _look(self) -> Sequence[News]:
        view = self.shared.look() if self.shared is not None else None
        if view is None:
            return []
        self._view = view
        return self._show()

    def _show(self) -> Sequence[News]:
        return [Viewed(self._view, self._record(self._view))] if self._view is not None and self._record else []

    def _tell(self, term: int, news: Sequence[News]) -> None:
        if not news:
            return
        with self._state:
            if term == self._term:
                self._news.extend(news)
        self._wake()


def simulated_node(pool: str, node: int) -> str:
    """What a simulated engine calls a node of a pool."""
    return f"{pool}-{node:05d}"
