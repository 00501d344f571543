"""A Slurm cluster by slurmrestd, with tokens (JWT). Reads API v0.0.38 to v0.0.43; v0.0.38 is the one that was tried."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import Literal, TypeVar

import httpx
from msgspec import DecodeError, ValidationError
from msgspec.json import Decoder

from watteau.domain.fleet import SlurmAccess
from watteau.domain.hosts import is_loopback
from watteau.domain.sites import Partition, Reservation
from watteau.engines.contract import EngineUnreachable, LaunchRefused, NoAccounting
from watteau.engines.slurm import answers
from watteau.engines.slurm.facts import InDoubt, Listing, SlurmJob, SlurmNode, Submission, TokenRefused
from watteau.engines.slurm.files import read_here
from watteau.engines.slurm.past import FIRST_S, belongs, last_runs, pieces
from watteau.engines.slurm.refusals import NOT_TAKEN, refusal
from watteau.engines.slurm.tokens import Token, Tokens

#: The API versions whose shapes are known, the newest first.
KNOWN = ("v0.0.43", "v0.0.42", "v0.0.41", "v0.0.40", "v0.0.39", "v0.0.38")
#: v0.0.38 has shapes of its own for what is sent, too.
_PLAIN = "v0.0.38"

_CONNECT_S = 5.0
#: slurmrestd answers after 9 or 18 s when slurmctld is away (it waits for MessageTimeout, once or twice), and needs
#: some seconds for a listing of thousands of jobs.
_READ_S = 45.0
_AT_ONCE = 8
#: A refusal of the token comes at once; an answer after so long is that of an outage.
_OUTAGE_S = 4.0
#: How far the clocks of the cluster and of this machine are apart is asked again after this long.
_CLOCK_MS = 60_000
#: So much earlier than we think it was at the cluster: its clock is told in whole seconds.
_CLOCK_DOUBT_S = 1.0

_UNSPECIFIED, _NO_BYTES, _NO_AUTH, _NO_CHANGE, _NO_SUCH_JOB, _NOTHING_FOUND = -1, 5005, 1007, 1900, 2017, 9003
#: What slurmrestd says when slurmctld or slurmdbd does not accept the token; -1 and 5005 mean other things, too.
_MAYBE_TOKEN = frozenset({_UNSPECIFIED, _NO_BYTES, _NO_AUTH, 1008, 2010})
_HAS_ENDED = frozenset({2017, 2021, 2084})
_PIECE_S = 86_400

_A = TypeVar("_A", bound=answers.Answer)

_ANY = Decoder(answers.Answer)
_JOBS = Decoder(answers.Jobs)
_NODES = Decoder(answers.Nodes)
_PARTITIONS = Decoder(answers.Partitions)
_RESERVATIONS = Decoder(answers.Reservations)
_SUBMITTED = Decoder(answers.Submitted)
_DIAG = Decoder(answers.Diag)
_PAST = Decoder(answers.PastJobs)
_PATHS = Decoder(answers.Paths)


@dataclass(frozen=True, slots=True)
class _Speaks:
    """The API versions that are used with one slurmrestd."""

    jobs: str
    accounting: str  # "": it has none


@dataclass(frozen=True, slots=True)
class _Reply:
    """What came back, and how long it took."""

    status: int
    content: bytes
    is_json: bool
    took_s: float


class RestSlurm:
    """One cluster by slurmrestd."""

    can_name_nodes = False  # v0.0.38 refuses required_nodes

    def __init__(self, access: SlurmAccess, now_ms: Callable[[], int], read_s: float = _READ_S) -> None:
        self._access = access
        self._now_ms = now_ms
        self._url = access.rest_url.rstrip("/")
        self._tokens = Tokens(access, now_ms)
        self._client = httpx.Client(
            timeout=httpx.Timeout(read_s, connect=_CONNECT_S),
            limits=httpx.Limits(max_connections=_AT_ONCE + 4, max_keepalive_connections=_AT_ONCE + 4),
            headers={"Accept": "application/json"},
            trust_env=not is_loopback(httpx.URL(self._url).host),
        )
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="slurm-submit")
        self._lock = Lock()
        self._speaks: _Speaks | None = None
        self.version = ""
        self._clock: tuple[int, float] | None = None  # when it was asked by our clock, how far theirs is ahead

    # ---- what is there ----

    def jobs(self, since: Listing | None = None) -> Listing | None:
        """Every job; None when it is known that nothing changed after `since`."""
        before_s = self._cluster_now_s()
        params = {} if since is None else {"update_time": str(int(since.as_of_s))}
        reply = self._get("/jobs", params=params)
        if reply.status == 304 or (since and any(each.number == _NO_CHANGE for each in _errors(reply))):
            return None
        answer = self._read(reply, _JOBS, "/jobs")
        del reply  # some fifty MB at a large site
        as_of_s = answers.whole(answer.last_update) or before_s
        return Listing(tuple(answers.job_of(job) for job in answer.jobs or ()), as_of_s)

    def job(self, job_id: int) -> SlurmJob | None:
        """One job as it is now; None: slurmctld does not know the id (any more)."""
        reply = self._get(f"/job/{job_id}")
        if any(each.number == _NO_SUCH_JOB for each in _errors(reply)):
            return None
        found = self._read(reply, _JOBS, f"/job/{job_id}").jobs or []
        # An array's id names all of its tasks: the one with that very id is meant.
        return next((answers.job_of(job) for job in found if job.job_id == job_id), None)

    def nodes(self) -> tuple[SlurmNode, ...]:
        """Every node, by name."""
        found = self._read(self._get("/nodes"), _NODES, "/nodes").nodes or []
        return tuple(sorted((answers.node_of(node) for node in found), key=lambda node: node.name))

    def partitions(self) -> tuple[Partition, ...]:
        """Every partition."""
        found = self._read(self._get("/partitions"), _PARTITIONS, "/partitions").partitions or []
        return tuple(answers.partition_of(each) for each in found)

    def reservations(self) -> tuple[Reservation, ...]:
        """Every reservation."""
        found = self._read(self._get("/reservations"), _RESERVATIONS, "/reservations").reservations or []
        return tuple(answers.reservation_of(each) for each in found)

    # ---- what changes something ----

    def submit(self, submission: Submission) -> int:
        """Give a job to Slurm; returns its id. Raises LaunchRefused, InDoubt and EngineUnreachable."""
        version = self._versions().jobs
        body = _body(submission, version)
        token = self._tokens.current()
        reply = self._post("/job/submit", body, token)
        errors = _errors(reply)
        if reply.status == 401 or self._was_token(errors, token):
            # It was not taken, for sure: slurmctld never read it.
            other = self._tokens.other_than(token)
            if other is None:
                raise self._refused(token, errors)
            token, reply = other, self._post("/job/submit", body, other)
            errors = _errors(reply)
            if reply.status == 401 or self._was_token(errors, token):
                raise self._refused(token, errors)
        # A job that is accepted and held has an id beside an error; a refused one has none.
        job_id = answers.whole(_decoded(reply, _SUBMITTED, answers.Submitted()).job_id)
        if job_id:
            return job_id
        raise self._not_submitted(submission, reply, errors)

    def submit_all(self, submissions: Sequence[Submission]) -> list[int | Exception]:
        """`submit` of each, several at a time; an id, or what `submit` would have raised."""

        def one(submission: Submission) -> int | Exception:
            try:
                return self.submit(submission)
            except (InDoubt, LaunchRefused, EngineUnreachable, TokenRefused) as why:
                return why

        if len(submissions) == 1:
            return [one(submissions[0])]
        return list(self._pool.map(one, submissions))

    def cancel(self, job_id: int) -> None:
        """Ask a job to end. One that has ended is left alone."""
        path = f"/job/{job_id}"
        token = self._tokens.current()
        reply = self._send("DELETE", self._at(path), token)
        errors = _errors(reply)
        if reply.status == 401 or self._was_token(errors, token):
            other = self._tokens.other_than(token)
            if other is None:
                raise self._refused(token, errors)
            reply = self._send("DELETE", self._at(path), other)
            errors = _errors(reply)
        failed = [each for each in errors if each.number not in _HAS_ENDED]
        if failed and not any(each.number in _HAS_ENDED for each in errors):
            raise EngineUnreachable(f"{self._url} could not cancel job {job_id}: {failed[0]} ({failed[0].number})")
        if reply.status >= 400 and not errors:
            raise EngineUnreachable(f"{self._url} could not cancel job {job_id}: {_plain(reply)}")

    # ---- what was ----

    def accounting(self, names: Sequence[str], since_s: int) -> list[SlurmJob]:
        """Jobs of these names in the accounting, of our user, submitted since then. Raises NoAccounting."""
        wanted = set(names)
        records: list[SlurmJob] = []
        since_s = max(since_s, FIRST_S)
        until_s = max(since_s, self._now_ms() // 1000) + _PIECE_S
        for first in range(0, len(names), 200):
            some = self._past(since_s, until_s, job_name=",".join(names[first : first + 200]))
            records += [job for job in some if job.name in wanted and job.submit_s >= since_s]
        return last_runs(job for job in records if job.user == self._access.user)

    def history(self, since_s: int, until_s: int) -> Iterator[SlurmJob]:
        """Everybody's jobs in the accounting that were submitted in [since, until). Raises NoAccounting."""
        now_s = self._now_ms() // 1000
        for piece in pieces(since_s, until_s, _PIECE_S):
            if piece[0] <= now_s:
                yield from (job for job in self._past(*piece) if belongs(job, since_s, until_s, piece))

    def read_file(self, path: str, start: int, most: int) -> bytes:
        """Up to `most` bytes of a file that the nodes see, from an offset. Raises FileNotFoundError."""
        found = read_here(self._access, path, start, most)
        if found is None:
            where = (
                f"it does not lie in {self._access.folder}, which is all that is seen here"
                if self._access.folder_here
                else "give folder_here in the site's table: where this machine sees the folder of the site"
            )
            raise FileNotFoundError(f"{path}: slurmrestd shows no files; {where}")
        return found

    def close(self) -> None:
        """Let go of connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    # ---- versions and clocks ----

    def _versions(self) -> _Speaks:
        with self._lock:
            if self._speaks is None:
                self._speaks = self._negotiate()
            return self._speaks

    def _negotiate(self) -> _Speaks:
        """The newest version that both sides speak, by the API's own description."""
        for path in ("/openapi/v3", "/openapi"):
            reply = self._ask(f"{self._url}{path}")
            if reply.status != 404:
                break
        if reply.status >= 400:
            raise EngineUnreachable(f"{self._url}{path} answers {reply.status}: {_plain(reply)}")
        try:
            paths = _PATHS.decode(reply.content).paths
        except (DecodeError, ValidationError) as error:
            raise EngineUnreachable(f"{self._url}{path} is no description of slurmrestd's API: {error}") from error
        of = {"slurm": set[str](), "slurmdb": set[str]()}
        for each in paths:
            if found := re.match(r"/(slurm|slurmdb)/(v\d+\.\d+\.\d+)/", each):
                of[found[1]].add(found[2])
        jobs = next((version for version in KNOWN if version in of["slurm"]), None)
        if jobs is None:
            raise EngineUnreachable(
                f"{self._url} speaks {', '.join(sorted(of['slurm'])) or 'no version'} of Slurm's API, and Watteau "
                f"{KNOWN[-1]} to {KNOWN[0]}: start slurmrestd with one of these (its option -s or -d)"
            )
        past = next((version for version in KNOWN if version in of["slurmdb"]), "")
        return _Speaks(jobs, past)

    def _cluster_now_s(self) -> float:
        """No later than what the cluster's clock shows now: "not changed since" must not miss what a clock hides."""
        now_ms = self._now_ms()
        clock = self._clock
        if clock is None or not 0 <= now_ms - clock[0] < _CLOCK_MS:
            said = self._read(self._get("/diag"), _DIAG, "/diag").statistics
            theirs = answers.whole(said.req_time) if said else 0
            # Ours from before it was asked would make theirs look ahead.
            after_ms = self._now_ms()
            clock = self._clock = (now_ms, theirs - after_ms / 1000 if theirs else -_CLOCK_MS / 1000)
        return now_ms / 1000 + clock[1] - _CLOCK_DOUBT_S

    # ---- asking ----

    def _at(self, path: str) -> str:
        return f"{self._url}/slurm/{self._versions().jobs}{path}"

    def _get(self, path: str, params: Mapping[str, str] | None = None) -> _Reply:
        reply = self._ask(self._at(path), params)
        if reply.status == 404 and not reply.is_json:
            # Another slurmrestd, perhaps, than the one that was asked what it speaks.
            with self._lock:
                self._speaks = None
            reply = self._ask(self._at(path), params)
        return reply

    def _ask(self, url: str, params: Mapping[str, str] | None = None) -> _Reply:
        """A question, asked again with another token when this one may be at fault."""
        token = self._tokens.current()
        reply = self._send("GET", url, token, params=params)
        errors = _errors(reply)
        if not _may_be_the_token(reply, errors):
            return reply
        if reply.took_s > _OUTAGE_S:
            # So late answers an outage. Should the token have ended as well, the next question brings another one.
            self._tokens.suspect(token)
            raise EngineUnreachable(f"{self._url}: slurmctld does not answer slurmrestd ({errors[0]})")
        other = self._tokens.other_than(token)
        if other is None:
            raise self._refused(token, errors)
        reply = self._send("GET", url, other, params=params)
        errors = _errors(reply)
        if _may_be_the_token(reply, errors):
            if reply.took_s > _OUTAGE_S:
                raise EngineUnreachable(f"{self._url}: slurmctld does not answer slurmrestd ({errors[0]})")
            raise self._refused(other, errors)
        return reply

    def _was_token(self, errors: Sequence[answers.Failure], token: Token) -> bool:
        """Whether a command failed because of the token, and nothing came of it: a second look with the same one."""
        numbers = {each.number for each in errors}
        if _NO_AUTH in numbers:
            return True
        if _NO_BYTES not in numbers:
            return False
        reply = self._send("GET", self._at("/ping"), token)
        return _may_be_the_token(reply, _errors(reply)) and reply.took_s <= _OUTAGE_S

    def _refused(self, token: Token, errors: Sequence[answers.Failure]) -> TokenRefused:
        said = f"{errors[0]} ({errors[0].number})" if errors else "401"
        user = self._access.user
        if token.user and token.user != user:
            why = f"it is for user {token.user!r}, and the site's table says user = {user!r}"
        elif token.ends_ms is not None and token.ends_ms <= self._now_ms():
            why = f"it ended at {datetime.fromtimestamp(token.ends_ms // 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
        else:
            why = "it has ended, is of another cluster, or was signed with another key"
        return TokenRefused(
            f"{self._url} does not accept the token from {self._tokens.source}: {said}; {why}. "
            f"Make one with `scontrol token username={user} lifespan=...` at the cluster"
        )

    def _not_submitted(
        self, submission: Submission, reply: _Reply, errors: Sequence[answers.Failure]
    ) -> LaunchRefused | InDoubt | EngineUnreachable:
        if not reply.is_json or not errors:
            said = _plain(reply)
            if reply.status in (400, 404, 405, 413, 415):
                return EngineUnreachable(f"{self._url} did not take the submission: {reply.status} {said}")
            return InDoubt(f"{self._url} answered the submission of {submission.name} with {reply.status}: {said}")
        numbers = {each.number for each in errors}
        for each in errors:
            if each.number in NOT_TAKEN:
                return EngineUnreachable(f"{self._url} did not take {submission.name}: {each} ({each.number})")
        for each in errors:
            if each.number is not None and (2000 <= each.number < 3000 or 9000 <= each.number < 10_000):
                # The description says where in slurmrestd it happened; Slurm's words are the error.
                return refusal(submission, self._access.user, each.number, each.error or str(each))
        if reply.status == 400:
            return LaunchRefused(f"slurmrestd refuses it: {errors[0]}")
        return InDoubt(f"{self._url} answered the submission of {submission.name} with {errors[0]} ({numbers})")

    def _post(self, path: str, body: object, token: Token) -> _Reply:
        return self._send("POST", self._at(path), token, body=body)

    def _send(
        self,
        method: Literal["GET", "POST", "DELETE"],
        url: str,
        token: Token,
        *,
        body: object = None,
        params: Mapping[str, str] | None = None,
    ) -> _Reply:
        headers = {"X-SLURM-USER-NAME": self._access.user, "X-SLURM-USER-TOKEN": token.text}
        try:
            with self._client.stream(method, url, headers=headers, json=body, params=params) as response:
                content = bytearray()
                for piece in response.iter_bytes():
                    content += piece
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
            raise EngineUnreachable(f"{self._url}: nobody answers there ({error or type(error).__name__})") from error
        except httpx.HTTPError as error:
            said = f"{self._url}: no whole answer to {method} {url[len(self._url) :]} ({error or type(error).__name__})"
            raise InDoubt(said) if method == "POST" else EngineUnreachable(said) from error
        is_json = response.headers.get("content-type", "").startswith("application/json")
        # As bytes it would be there twice; the decoder takes it as it is.
        return _Reply(response.status_code, content, is_json, response.elapsed.total_seconds())  # type: ignore[arg-type]

    def _read(self, reply: _Reply, decoder: Decoder[_A], path: str) -> _A:
        """A good answer. Raises EngineUnreachable for any other one."""
        if not reply.is_json:
            raise EngineUnreachable(f"{self._url}{path} answers {reply.status}: {_plain(reply)}")
        try:
            answer = decoder.decode(reply.content)
        except (DecodeError, ValidationError) as error:
            raise EngineUnreachable(
                f"{self._url}{path} answers in a shape that Watteau does not know of "
                f"{self._speaks.jobs if self._speaks else 'its API'}: {error}"
            ) from error
        if answer.errors or reply.status >= 400:
            said = f"{answer.errors[0]} ({answer.errors[0].number})" if answer.errors else _plain(reply)
            raise EngineUnreachable(f"{self._url}{path} answers {reply.status}: {said}")
        if answer.meta is not None and answer.meta.release:
            self.version = f"Slurm {answer.meta.release}, slurmrestd {self._speaks.jobs if self._speaks else '?'}"
        return answer

    def _past(self, since_s: int, until_s: int, **asked: str) -> list[SlurmJob]:
        """What the accounting has of a time, jobs that were only waiting in it included."""
        version = self._versions().accounting
        if not version:
            raise NoAccounting(
                f"{self._url} has no accounting: the site runs without slurmdbd, or slurmrestd was started without "
                "its plugin for it (-s openapi/dbv..., or openapi/slurmdbd)"
            )
        # A number alone is refused, and ISO 8601 would be of the server's own zone.
        span = {"start_time": f"uts{since_s}", "end_time": f"uts{until_s}"}
        params = {"skip_steps": "true", **span, **asked}
        path = f"/slurmdb/{version}/jobs"
        reply = self._ask(f"{self._url}{path}", params)
        if any(each.number == _NOTHING_FOUND for each in _errors(reply)):
            return []
        answer = self._read(reply, _PAST, path)
        return [answers.past_job_of(job) for job in answer.jobs or ()]


def _body(submission: Submission, version: str) -> dict[str, object]:
    """A submission in the words of one API version: the script moved into the job with v0.0.41."""
    job = _job_fields(submission, version)
    if KNOWN.index(version) <= KNOWN.index("v0.0.41"):
        return {"job": {**job, "script": submission.script}}
    return {"script": submission.script, "job": job}


def _job_fields(submission: Submission, version: str) -> dict[str, object]:
    plain = version == _PLAIN
    environment = dict(submission.environment) or {"PATH": "/usr/local/bin:/usr/bin:/bin"}  # never empty
    job: dict[str, object] = {
        "name": submission.name,
        "comment": submission.comment,
        "current_working_directory": submission.folder,
        "standard_input": "/dev/null",
        "standard_output": submission.stdout,
        "environment": environment if plain else [f"{name}={value}" for name, value in environment.items()],
        "nodes": str(submission.nodes),  # the array that is documented is ignored
        "tasks": submission.nodes,
        "tasks_per_node": 1,
        "cpus_per_task": submission.cpus_per_node,
        # A second run is Watteau's to decide.
        **({"no_requeue": True} if plain else {"requeue": False}),
    }
    if submission.stderr:
        job["standard_error"] = submission.stderr
    if submission.gpus_per_node:
        gres = ":".join(filter(None, ("gpu", submission.gpu_type, str(submission.gpus_per_node))))
        job["gres" if plain else "tres_per_node"] = gres if plain else f"gres/{gres}"
    if submission.constraint:
        job["constraints"] = submission.constraint
    if submission.memory_mib_per_node:
        job["memory_per_node"] = _number(submission.memory_mib_per_node, plain)
    if submission.time_limit_s:
        job["time_limit"] = _number(-(-submission.time_limit_s // 60), plain)  # minutes; 0 would be none
    for name, text in (
        ("partition", submission.partition),
        ("account", submission.account),
        ("qos", submission.qos),
    ):
        if text:
            job[name] = text
    return job


def _number(value: int, plain: bool) -> object:
    return value if plain else {"set": True, "infinite": False, "number": value}


def _decoded(reply: _Reply, decoder: Decoder[_A], otherwise: _A) -> _A:
    if not reply.is_json:
        return otherwise
    try:
        return decoder.decode(reply.content)
    except (DecodeError, ValidationError):
        return otherwise


def _errors(reply: _Reply) -> list[answers.Failure]:
    """What an answer that is no success says; a large one that is, is not read for it."""
    if reply.status == 200 and len(reply.content) > 100_000:
        return []
    return _decoded(reply, _ANY, answers.Answer()).errors or []


def _may_be_the_token(reply: _Reply, errors: Sequence[answers.Failure]) -> bool:
    return reply.status in (401, 403) or any(each.number in _MAYBE_TOKEN for each in errors)


def _plain(reply: _Reply) -> str:
    """An answer that is no JSON, for people."""
    text = bytes(reply.content[:300]).decode("utf-8", "replace")
    return " ".join(text.split()) or "nothing"
