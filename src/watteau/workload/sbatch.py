"""Batch scripts with `#SBATCH` directives, read unchanged into a Request, and the same options as words.

Slurm's rules hold (slurm.schedmd.com/sbatch.html): directives stand before the first command; later ones win over
earlier ones, and options beside the script over both. What Watteau does not know is a Notice that names it, never an
error and never lost in silence. A value that cannot be read is a fault; all faults are raised together.

A worker of the Request is a node's share of the job: `--nodes` says how many there are, and the tasks, CPUs, GPUs and
memory of each node are what one worker gets. Without `--nodes` all tasks are kept together on one node.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar

from pydantic import ValidationError

from watteau.domain.errors import Fault, InputError
from watteau.domain.requests import MOST_SCRIPT_BYTES, ArraySpec, Dependency, JobId, Request
from watteau.domain.units import GPU_MILLI
from watteau.workload import slurm_values as values

__all__ = ["OPTIONS", "Notice", "Option", "Place", "is_secret", "read_command", "read_script"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that is not done as it was asked, and why. `line` is 0 for what stood beside the script."""

    line: int
    option: str
    text: str

    def __str__(self) -> str:
        place = f"line {self.line}: " if self.line else ""
        return f"{place}{self.option}: {self.text}"


@dataclass(frozen=True, slots=True)
class Place:
    """What a partition, feature or GPU type of Slurm means here: sites, GPU models, or a partition of Slurm sites."""

    sites: tuple[str, ...] = ()
    gpu_models: tuple[str, ...] = ()
    partition: str = ""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of sbatch. `why_not` says what becomes of one that is not acted on; it is "" for those that are."""

    name: str
    short: str = ""
    takes: Literal["no", "may", "must"] = "must"
    metavar: str = ""
    help: str = ""
    why_not: str = ""


def _not_used(names: str, why: str, takes: Literal["no", "may", "must"] = "must") -> list[Option]:
    """Options that share a reason; a letter after a colon is the short form."""
    return [
        Option(name, short, takes, "VALUE" if takes == "must" else "", "", why)
        for name, _, short in (word.partition(":") for word in names.split())
    ]


_BINDING = "not used: Watteau places whole cores and GPUs on nodes, and binds nothing within them"
_NODES = "not used: nodes are chosen by what they have, not by name or neighbour"
_SUBMITTING = "about sbatch itself, not about the job"

#: Every option of sbatch, those that are acted on first.
OPTIONS: tuple[Option, ...] = (
    Option("job-name", "J", "must", "NAME", "What the job is called; without it, the script's file name."),
    Option("account", "A", "must", "TENANT", "The tenant that pays."),
    Option("partition", "p", "must", "NAME[,NAME]", "A site of the fleet, or a partition of its Slurm sites."),
    Option("constraint", "C", "must", "NAME", "A GPU model or a site, where the fleet has one of that name."),
    Option("nodes", "N", "must", "N[-M]", "Nodes; of a range, the smallest number."),
    Option("ntasks", "n", "must", "N", "Tasks in all; without --nodes they are kept together on one node."),
    Option("ntasks-per-node", "", "must", "N", "Tasks on each node."),
    Option("cpus-per-task", "c", "must", "N", "CPU cores for each task."),
    Option("cpus-per-gpu", "", "must", "N", "CPU cores for each GPU."),
    Option("gres", "", "must", "gpu[:MODEL][:N]", "GPUs on each node."),
    Option("gpus", "G", "must", "[MODEL:]N", "GPUs in all; 0.5 is half of one."),
    Option("gpus-per-node", "", "must", "[MODEL:]N", "GPUs on each node."),
    Option("gpus-per-task", "", "must", "[MODEL:]N", "GPUs for each task."),
    Option("mem", "", "must", "SIZE", "Memory on each node: 16G, 500M, or megabytes."),
    Option("mem-per-cpu", "", "must", "SIZE", "Memory for each CPU core."),
    Option("mem-per-gpu", "", "must", "SIZE", "Memory for each GPU."),
    Option("time", "t", "must", "TIME", "Limit: 90 (minutes), 1:30:00, 2-12 (days-hours). It is ended then."),
    Option("array", "a", "must", "INDICES", "An array of jobs: 0-15, 1,3,5, 0-99:10%4 (at most 4 at once)."),
    Option("dependency", "d", "must", "LIST", "Wait for other jobs: afterok:17:18, after:17+10, singleton."),
    Option("begin", "b", "must", "TIME", "Not before: 16:00, now+1hour, 2027-01-20T12:34."),
    Option("deadline", "", "must", "TIME", "Cancelled when it has not ended by then."),
    Option("hold", "H", "no", "", "Keep it held until it is released."),
    Option("requeue", "", "may", "", "Start it again when it was lost through no fault of its own (the default)."),
    Option("no-requeue", "", "no", "", "Never start it again."),
    Option("output", "o", "must", "FILE", "Where its output goes; %j job, %A array, %a index, %x name."),
    Option("error", "e", "must", "FILE", "Where its error output goes; without it, together with the output."),
    Option("chdir", "D", "must", "DIRECTORY", "Where it runs; without it, where you are."),
    Option("export", "", "must", "ALL|NONE|NAME[=V],..", "Environment: of yours all, none, or those named."),
    Option("wrap", "", "must", "COMMAND", "Run this line of shell instead of a script."),
    *_not_used("priority", "ignored: the order of jobs follows from shares and waiting time"),
    *_not_used("nice", "ignored: the order of jobs follows from shares and waiting time", "may"),
    *_not_used("comment", "not kept; the job's name is"),
    *_not_used("exclusive", "not used: a job has its cores and GPUs to itself, not whole nodes", "may"),
    *_not_used("oversubscribe:s overcommit:O share", "not used: cores and GPUs are never shared in this way", "no"),
    *_not_used("qos:q", "not used: what a tenant may have hangs on the tenant (--account)"),
    *_not_used("reservation", "not used: Watteau has no reservations by name"),
    *_not_used("mail-type mail-user", "not used: Watteau sends no mail; `watteau wait` tells when a job has ended"),
    *_not_used("signal", "not used: before the limit ends a job, it gets SIGTERM and a short grace"),
    *_not_used("time-min", "not used: the limit that is given is the limit"),
    *_not_used("tmp licenses:L bb bbf", "not used: nothing is counted but cores, memory and GPUs"),
    *_not_used("network power gpu-freq cpu-freq", "not used: it is not for one job to set"),
    *_not_used("nodelist:w nodefile:F exclude:x switches", _NODES),
    *_not_used("contiguous spread-job use-min-nodes no-rotate:R", _NODES, "no"),
    *_not_used("prefer segment cluster-constraint clusters:M", _NODES),
    *_not_used("distribution:m hint gpu-bind mem-bind gres-flags tres-bind tres-per-task extra-node-info:B", _BINDING),
    *_not_used("cores-per-socket sockets-per-node threads-per-core ntasks-per-core ntasks-per-socket", _BINDING),
    *_not_used("ntasks-per-gpu gpus-per-socket mincpus core-spec:S thread-spec", _BINDING),
    *_not_used("container container-id", "not used: start the container from the script"),
    *_not_used("input:i", "not used: read the file from the script"),
    *_not_used("export-file", "not used: set the variables in the script, or name them with --export"),
    *_not_used("open-mode kill-on-invalid-dep", "not used: Watteau has one way of doing this"),
    *_not_used("acctg-freq profile wckey mcs-label extra uid gid jobid delay-boot wait-all-nodes", "not used"),
    *_not_used("propagate no-kill:k resv-ports oom-kill-step get-user-env", "not used", "may"),
    *_not_used("reboot stepmgr ignore-pbs", "not used", "no"),
    *_not_used("immediate:I", _SUBMITTING, "may"),
    *_not_used("wait:W parsable quiet:Q verbose:v test-only help:h usage version:V", _SUBMITTING, "no"),
)

_SAME = {"tasks": "ntasks", "tasks-per-node": "ntasks-per-node", "workdir": "chdir"}
_BY_NAME = {option.name: option for option in OPTIONS} | {
    old: next(option for option in OPTIONS if option.name == new) for old, new in _SAME.items()
}
_BY_LETTER = {option.short: option for option in OPTIONS if option.short} | {
    "U": _BY_NAME["account"],
    "P": _BY_NAME["dependency"],
}


def read_script(
    text: str,
    arguments: Sequence[str] = (),
    *,
    options: Sequence[str] = (),
    now: datetime | None = None,
    workdir: str = "",
    environment: Mapping[str, str] | None = None,
    name: str = "",
    resolve: Callable[[str], Place | None] | None = None,
    job_id: Callable[[str], JobId | None] | None = None,
    source: str = "script",
) -> tuple[Request, list[Notice]]:
    """The Request of a batch script, and what of it is not done as it was asked.

    `options` are words as on sbatch's command line and win over the script. `now` (aware) is what relative times are
    relative to, in its zone; `workdir` and `environment` are the caller's; `resolve` says what a partition or GPU type
    means here; `job_id` finds the id of a task like 17_3. Raises InputError with every fault.
    """
    reading = _Reading(source, now, workdir, environment or {}, name or "job", resolve, job_id)
    if fault := _not_a_script(text):
        reading.faults.append(fault)
    reading.take(_directives(text, reading), from_script=True)
    reading.take(_words(options, reading), from_script=False)
    return reading.request(script=text, arguments=tuple(arguments))


def read_command(
    command: Sequence[str],
    *,
    options: Sequence[str] = (),
    now: datetime | None = None,
    workdir: str = "",
    environment: Mapping[str, str] | None = None,
    name: str = "",
    resolve: Callable[[str], Place | None] | None = None,
    job_id: Callable[[str], JobId | None] | None = None,
    source: str = "command line",
) -> tuple[Request, list[Notice]]:
    """The same of a command (an argument list) and the options beside it; without a command, of `--wrap`."""
    named = name or (PurePosixPath(command[0]).name if command else "wrap")
    reading = _Reading(source, now, workdir, environment or {}, named, resolve, job_id)
    reading.take(_words(options, reading), from_script=False)
    return reading.request(command=tuple(command))


_SECRET = re.compile(
    r"(?:^|_)TOKENS?(?:_|$)|SECRET|PASSW|PASSPHRASE|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIAL|_PWD$", re.I
)


def is_secret(name: str) -> bool:
    """Whether an environment variable is one that is only sent when it is named, going by its own name."""
    return bool(_SECRET.search(name))


# --- From text to options -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class _Given:
    """An option with its value, and where it stood."""

    option: Option
    value: str
    line: int

    @property
    def label(self) -> str:
        return f"--{self.option.name}"


def _not_a_script(text: str) -> Fault | None:
    if len(text.encode(errors="surrogatepass")) > MOST_SCRIPT_BYTES:
        return Fault(0, "", "a script of more than 1 MiB", "a shorter one that calls the rest")
    if "\x00" in text:
        return Fault(text.count("\n", 0, text.index("\x00")) + 1, "", "a NUL", "text")
    if "\r\n" in text:
        line = text.count("\n", 0, text.index("\r\n")) + 1
        return Fault(line, "", "a DOS line break", "Unix line breaks (dos2unix converts a file)")
    if not text.startswith("#!"):
        first = text.partition("\n")[0][:80]
        return Fault(1, "", repr(first) if first else "an empty line", "#! and an interpreter, for example #!/bin/bash")
    return None


def _directives(text: str, reading: "_Reading") -> Iterator[_Word]:
    """The words of all `#SBATCH` lines before the first command."""
    past_end = other_system = False
    for number, line in enumerate(text.split("\n"), 1):
        if past_end:
            if line.startswith("#SBATCH"):
                reading.notice(number, "#SBATCH", "not read, as in Slurm: it stands after the first command")
        elif line.startswith("#SBATCH"):
            words = list(_split(line.removeprefix("#SBATCH"), number, reading))
            if any(word.text in ("hetjob", "packjob") for word in words):
                reading.notice(
                    number, "hetjob", "only the first component is read; Watteau's gangs are of equal workers"
                )
                return
            yield from words
        elif re.match(r"#(PBS|BSUB)\s", line) and not other_system:
            other_system = True
            reading.notice(number, line.split()[0], "directives of another system are not read")
        elif line.strip() and not line.lstrip().startswith("#"):
            past_end = True


def _split(text: str, line: int, reading: "_Reading") -> Iterator[_Word]:
    """Words as sbatch cuts them: quotes group, a backslash escapes, an open `#` begins a comment."""
    word: list[str] | None = None
    quote = ""
    letters = iter(text)
    for letter in letters:
        if letter == "\\":
            word = [*(word or []), next(letters, "")]
        elif quote:
            if letter == quote:
                quote = ""
            else:
                word = [*(word or []), letter]
        elif letter in "\"'":
            quote, word = letter, word or []
        elif letter == "#":
            break
        elif letter.isspace():
            if word:
                yield _Word("".join(word), line)
            word = None
        elif word is None:
            word = [letter]
        else:
            word.append(letter)
    if quote:
        reading.faults.append(
            Fault(line, "", f"{quote} without its end in {text.strip()[:80]!r}", f"a closing {quote}")
        )
    elif word:
        yield _Word("".join(word), line)


def _words(options: Sequence[str], reading: "_Reading") -> Iterator[_Word]:
    yield from (_Word(word, 0) for word in options)


def _pair(words: Iterator[_Word], reading: "_Reading") -> Iterator[_Given]:
    """Options with their values, as getopt_long pairs them: `--x=y`, `--x y`, `-xy`, `-x y`, unique abbreviations."""
    waiting: list[_Word] = list(words)
    waiting.reverse()

    def value_for(option: Option, shown: str, line: int) -> str | None:
        if waiting and not (waiting[-1].line != line and waiting[-1].text.startswith("-")):
            return waiting.pop().text
        reading.faults.append(Fault(line, shown, "no value", f"{shown} {option.metavar}"))
        return None

    while waiting:
        word = waiting.pop()
        if word.text.startswith("--") and len(word.text) > 2:
            name, equals, value = word.text[2:].partition("=")
            option = _long(name)
            if option is None:
                reading.notice(word.line, f"--{name}", "not an option that Watteau or sbatch knows; not used")
            elif option.takes == "must" and not equals:
                if (found := value_for(option, f"--{name}", word.line)) is not None:
                    yield _Given(option, found, word.line)
            else:
                yield _Given(option, value, word.line)
        elif word.text.startswith("-") and len(word.text) > 1:
            letters = word.text[1:]
            while letters:
                letter, letters = letters[0], letters[1:]
                option = _BY_LETTER.get(letter)
                if option is None:
                    reading.notice(word.line, f"-{letter}", "not an option that Watteau or sbatch knows; not used")
                    break
                if option.takes == "no":
                    yield _Given(option, "", word.line)
                    continue
                if letters or option.takes == "may":
                    yield _Given(option, letters, word.line)
                elif (found := value_for(option, f"-{letter}", word.line)) is not None:
                    yield _Given(option, found, word.line)
                break
        else:
            reading.notice(word.line, word.text[:40] or "''", "not an option; not used")


def _long(name: str) -> Option | None:
    if name in _BY_NAME:
        return _BY_NAME[name]
    meant = {option.name: option for known, option in _BY_NAME.items() if name and known.startswith(name)}
    return next(iter(meant.values())) if len(meant) == 1 else None


# --- From options to a Request --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Reading:
    """One script or command being read: what was given, what is wrong, what is not done."""

    source: str
    now: datetime | None
    workdir: str
    caller: Mapping[str, str]
    name: str
    resolve: Callable[[str], Place | None] | None
    job_id: Callable[[str], JobId | None] | None
    given: dict[str, _Given] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def notice(self, line: int, option: str, text: str) -> None:
        said = Notice(line, option, text)
        if said not in self.notices:
            self.notices.append(said)

    def take(self, words: Iterator[_Word], from_script: bool) -> None:
        """Later options replace earlier ones of their kind; those of memory and of requeuing replace each other."""
        for each in _pair(words, self):
            if each.option.why_not:
                self.notice(each.line, each.label, each.option.why_not)
                continue
            for group in _REPLACE_EACH_OTHER:
                if each.option.name in group:
                    for other in group - {each.option.name}:
                        if (lost := self.given.pop(other, None)) and from_script and "mem" in group:
                            self.notice(
                                lost.line, lost.label, f"not used: {each.label} comes later, and only one counts"
                            )
            self.given.pop(each.option.name, None)  # the order is that of the last time each was given
            self.given[each.option.name] = each

    def value(self, option: str, read: Callable[[str], T], default: T) -> T:
        """The option's value, or the default when it was not given or cannot be read, which is a fault."""
        each = self.given.get(option)
        if each is None:
            return default
        try:
            return read(each.value)
        except values.Unreadable as error:
            self.faults.append(Fault(each.line, each.label, _shown(each.value), str(error)))
            return default

    def note(self, option: str, text: str) -> None:
        each = self.given[option]
        self.notice(each.line, each.label, text)

    def request(self, **what: Any) -> tuple[Request, list[Notice]]:
        if wrapped := self.given.get("wrap"):
            what = self._wrapped(wrapped, what)
        fields: dict[str, Any] = {
            **what,
            "name": self._name(),
            **self._size(),
            **self._places(),
            **self._when(),
            **self._files(),
            "environment": self._environment(),
            "tenant": self.value("account", str, None) or None,
            "held": "hold" in self.given,
            "requeue": "no-requeue" not in self.given,
        }
        if self.faults:
            raise InputError(self.source, sorted(self.faults, key=lambda fault: fault.line))
        try:
            return Request(**fields), sorted(self.notices, key=lambda notice: notice.line)
        except ValidationError as error:
            raise InputError(self.source, [self._fault_of(each) for each in error.errors()]) from None

    def _wrapped(self, wrapped: _Given, what: dict[str, Any]) -> dict[str, Any]:
        if what.get("command") or what.get("script"):
            self.faults.append(Fault(wrapped.line, "--wrap", "a script or command as well", "one of the two"))
            return what
        return {"script": f"#!/bin/sh\n{wrapped.value}\n"}

    def _fault_of(self, error: Any) -> Fault:
        """What the Request says of a field, under the name of the option that it came from."""
        where = str(error["loc"][0]) if error["loc"] else ""
        options = [option for option in _OPTION_OF.get(where, ()) if option in self.given]
        each = self.given[options[0]] if options else None
        found = _shown(str(error.get("input", ""))) if where else "this request"
        label = each.label if each else where
        return Fault(each.line if each else 0, label, found, error["msg"].removeprefix("Value error, "))

    def _name(self) -> str:
        wanted = self.value("job-name", str, "") or self.name
        kept = re.sub(r"[\x00-\x1f\x7f/]", "-", wanted)[:128] or "job"
        if kept != wanted and "job-name" in self.given:
            self.note("job-name", f"kept as {kept!r}: no slash, no control character, at most 128 characters")
        return kept

    # Nodes, tasks, cores, GPUs and memory become workers.

    def _size(self) -> dict[str, Any]:
        fewest, most = self.value("nodes", values.nodes, (0, 0))
        tasks = self.value("ntasks", values.count, 0)
        per_node = self.value("ntasks-per-node", values.count, 0)
        none = values.GpuCount(-1)
        in_all = self.value("gpus", values.gpus, none)
        of_task = self.value("gpus-per-task", values.gpus, none)
        of_node = self._gpus_of_node(none)
        if not tasks and in_all.milli > 0 and of_task.milli > 0:
            tasks = max(1, in_all.milli // of_task.milli)
        workers = self._workers(fewest, most, tasks, per_node, in_all, of_node)
        tasks_each = -(-tasks // workers) if tasks else per_node or 1
        if tasks % workers and tasks > workers and "ntasks" in self.given:
            self.note("ntasks", f"{tasks} tasks on {workers} nodes: each node gets room for {tasks_each}")
        gpu_milli = self._gpu_milli(workers, tasks_each, in_all, of_node, of_task)
        gpus_each = -(-gpu_milli // GPU_MILLI)
        cores = tasks_each * self.value("cpus-per-task", values.count, 1)
        if "cpus-per-gpu" in self.given:
            of_gpu = self.value("cpus-per-gpu", values.count, 1)
            if "cpus-per-task" in self.given:
                self.note("cpus-per-gpu", "not used: --cpus-per-task says it already")
            else:
                cores = max(tasks_each, of_gpu * gpus_each)
        return {
            "workers": workers,
            "cpu_milli": cores * 1_000,
            "gpu_milli": gpu_milli,
            "memory_mib": self._memory(cores, gpus_each),
        }

    def _workers(
        self, fewest: int, most: int, tasks: int, per_node: int, in_all: values.GpuCount, of_node: values.GpuCount
    ) -> int:
        if fewest:
            if most > fewest:
                self.note("nodes", f"{fewest} nodes are asked for, the fewest: a gang has one size")
            if tasks and tasks < fewest:
                self.note("nodes", f"{tasks} {'node is' if tasks == 1 else 'nodes are'} asked for, one for each task")
                return tasks
            return fewest
        if tasks and per_node:
            return -(-tasks // per_node)
        if in_all.milli > 0 and of_node.milli > 0:
            return max(1, -(-in_all.milli // of_node.milli))
        if tasks > 1:
            self.note(
                "ntasks" if "ntasks" in self.given else "gpus",
                f"the {tasks} tasks are kept together on one node; give --nodes to spread them",
            )
        return 1

    def _gpus_of_node(self, none: values.GpuCount) -> values.GpuCount:
        of_node = self.value("gpus-per-node", values.gpus, none)
        nothing: tuple[values.GpuCount | None, list[str]] = (None, [])
        asked, others = self.value("gres", values.gres, nothing)
        for other in others:
            self.note("gres", f"{other!r} is not used: nothing is counted but cores, memory and GPUs")
        if asked is None:
            return of_node
        if of_node.milli < 0 or of_node == asked:
            return asked
        order = list(self.given)
        is_later = order.index("gpus-per-node") > order.index("gres")
        self.note("gres" if is_later else "gpus-per-node", "its GPUs are not used: the other option comes later")
        return of_node if is_later else asked

    def _gpu_milli(
        self,
        workers: int,
        tasks_each: int,
        in_all: values.GpuCount,
        of_node: values.GpuCount,
        of_task: values.GpuCount,
    ) -> int:
        if of_node.milli >= 0:
            if in_all.milli >= 0 and in_all.milli != of_node.milli * workers:
                self.note("gpus", f"not used: {of_node.milli / GPU_MILLI:g} on each node is asked for as well")
            return of_node.milli
        if of_task.milli >= 0 and in_all.milli < 0:
            return self._whole("gpus-per-task", of_task.milli * tasks_each)
        if in_all.milli < 0:
            return 0
        each = -(-in_all.milli // workers)
        if in_all.milli % (workers * GPU_MILLI) and workers > 1:
            each = -(-each // GPU_MILLI) * GPU_MILLI
            self.note("gpus", f"{in_all.milli / GPU_MILLI:g} GPUs on {workers} nodes: {each // GPU_MILLI} on each")
        return each

    def _whole(self, option: str, milli: int) -> int:
        if milli <= GPU_MILLI or milli % GPU_MILLI == 0:
            return milli
        whole = -(-milli // GPU_MILLI) * GPU_MILLI
        self.note(option, f"{milli / GPU_MILLI:g} GPUs on a node: {whole // GPU_MILLI}, whole ones")
        return whole

    def _memory(self, cores: int, gpus: int) -> int:
        for option, times in (("mem", 1), ("mem-per-cpu", cores), ("mem-per-gpu", gpus)):
            if option not in self.given:
                continue
            each = self.value(option, values.memory_mib, 0)
            if not each and not self.faults:
                self.note(option, "memory is not limited: all of a node's cannot be asked for")
            elif not times:
                self.note(option, "not used: the job asks for no GPU")
            return each * times
        return 0

    # Where it may run: a partition, a feature and a GPU type are names of places here.

    def _places(self) -> dict[str, Any]:
        sites: dict[str, None] = {}
        models: dict[str, None] = {}
        partition = ""
        for option in ("partition", "constraint"):
            for name in filter(None, re.split(r"[,|]" if option == "constraint" else ",", self._text(option))):
                place = self.resolve(name) if self.resolve else None
                if place is None:
                    known = (
                        f"{name!r} is no site and no partition of this fleet" if self.resolve else "no fleet is known"
                    )
                    self.note(option, f"not used: {known}")
                    continue
                if place.partition and (option != "partition" or partition):
                    why = "one is taken, the first" if partition else "a partition is no feature"
                    self.note(option, f"not used: {name!r}: {why}")
                    continue
                partition = partition or place.partition
                sites |= dict.fromkeys(place.sites)
                models |= dict.fromkeys(place.gpu_models)
        for option in ("gpus", "gpus-per-node", "gpus-per-task", "gres"):
            each = self.given.get(option)
            model = self._model(option) if each else ""
            if not model:
                continue
            place = self.resolve(model) if self.resolve else None
            models = dict.fromkeys((place.gpu_models if place else ()) or (model,))
        return {"sites": tuple(sites), "gpu_models": tuple(models), "partition": partition}

    def _model(self, option: str) -> str:
        try:
            asked = values.gres(self._text(option))[0] if option == "gres" else values.gpus(self._text(option))
        except values.Unreadable:
            return ""  # reported where it was counted
        return asked.model if asked else ""

    def _text(self, option: str) -> str:
        each = self.given.get(option)
        return each.value.strip() if each else ""

    # When it may run.

    def _when(self) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "time_limit_s": self.value("time", values.duration_s, 0),
            "begin_s": self.value("begin", lambda text: values.moment_s(text, self.now), None),
            "deadline_s": self.value("deadline", self._deadline_s, None),
        }
        if "array" in self.given:
            nothing: tuple[tuple[int, ...], int | None] = ((), None)
            indices, most = self.value("array", values.array, nothing)
            fields["array"] = ArraySpec(indices=indices, most_running=most) if indices else None
        wanted = self.value("dependency", values.dependencies, values.DependencyList((), False, False))
        found = [self._dependency(each) for each in wanted.conditions]
        fields["dependencies"] = tuple(each for each in found if each is not None)
        fields["singleton"] = wanted.singleton
        fields["dependency_mode"] = "any" if wanted.any_of else "all"
        return fields

    def _deadline_s(self, text: str) -> int:
        at_s = values.moment_s(text, self.now)
        if self.now is not None and at_s <= self.now.timestamp():
            raise values.Unreadable("a time that is still to come")
        return at_s

    def _dependency(self, each: values.Condition) -> Dependency | None:
        job = JobId(int(each.job)) if each.job.isdigit() else self.job_id(each.job) if self.job_id else None
        if job is None:
            line = self.given["dependency"].line
            self.faults.append(Fault(line, "--dependency", f"{each.job}, which is not known", "a job or an array"))
            return None
        return Dependency(after=each.after, job_id=job, delay_s=each.delay_s)

    # Its folder, output and environment.

    def _files(self) -> dict[str, Any]:
        workdir = self.workdir
        if "chdir" in self.given:
            wanted = self.given["chdir"].value
            joined = PurePosixPath(self.workdir or "/") / wanted
            workdir = str(joined)
            if not self.workdir and not wanted.startswith("/"):
                expected = "an absolute path, as no present folder is known"
                self.faults.append(Fault(self.given["chdir"].line, "--chdir", _shown(wanted), expected))
        return {"workdir": workdir, "stdout": self._file("output"), "stderr": self._file("error")}

    def _file(self, option: str) -> str:
        wanted = self._text(option)
        if wanted.lower() == "none":
            return "/dev/null"
        strange = [found[0] for found in re.finditer(r"%(?:\d*[A-Za-z]|\W)", wanted) if found[0] not in _REPLACED]
        if strange:
            listed = ", ".join(dict.fromkeys(strange))
            self.note(option, f"{listed} stays as it is; only %j, %A, %a, %x and %% are replaced")
        return wanted

    def _environment(self) -> dict[str, str]:
        wanted = [part.strip() for part in (self._text("export") or "ALL").split(",") if part.strip()]
        words = {part.upper() for part in wanted}
        kept: dict[str, str] = {}
        if words & {"NONE", "NIL"}:
            if len(wanted) > 1:
                self.note("export", "nothing can be named beside NONE; nothing is passed on")
            kept = {name: value for name, value in self.caller.items() if name.startswith("SLURM_")}
        else:
            for part in wanted:
                name, equals, value = part.partition("=")
                if part.upper() == "ALL":
                    continue
                if equals:
                    kept[name] = value
                elif name in self.caller:
                    kept[name] = self.caller[name]
                else:
                    self.note("export", f"{name} is not set here, and is left out")
            kept = self._with_all(kept) if "ALL" in words else kept
        bad = [name for name in kept if not _VARIABLE.fullmatch(name) or "\x00" in kept[name]]
        for name in [*bad, *(name for name in kept if name == _OWN_SECRET)]:
            kept.pop(name, None)
            if "export" in self.given:
                self.note("export", f"{name} is not passed on")
        return kept

    def _with_all(self, named: dict[str, str]) -> dict[str, str]:
        """The caller's variables beside the named ones; the caller's win, as in Slurm."""
        secret = sorted(name for name in self.caller if is_secret(name) and name not in named and name != _OWN_SECRET)
        if secret:
            line = self.given["export"].line if "export" in self.given else 0
            listed = ", ".join(secret)
            self.notice(line, "--export", f"{listed}: not passed on; to pass it, name it: --export=ALL,{secret[0]}")
        for name, value in named.items():
            if self.caller.get(name, value) != value:
                self.note("export", f"{name} is also set where you submit, and that value is used, as in Slurm")
        passed = {name: value for name, value in self.caller.items() if not is_secret(name) and _fits(name, value)}
        return named | passed | {name: self.caller[name] for name in named if name in self.caller}


_REPLACED = ("%j", "%A", "%a", "%x", "%%")
_REPLACE_EACH_OTHER = (frozenset({"mem", "mem-per-cpu", "mem-per-gpu"}), frozenset({"requeue", "no-requeue"}))
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}", re.A)
#: Never sent with a job, not even when it is named: whoever can read the job could act as its owner.
_OWN_SECRET = "WATTEAU_TOKEN"
_MOST_VALUE = 131_072

#: The options that a field of the Request comes from.
_OPTION_OF = {
    "name": ("job-name",),
    "tenant": ("account",),
    "workers": ("nodes", "ntasks"),
    "gpu_milli": ("gres", "gpus-per-node", "gpus-per-task", "gpus"),
    "cpu_milli": ("cpus-per-task", "cpus-per-gpu", "ntasks", "ntasks-per-node"),
    "memory_mib": ("mem", "mem-per-cpu", "mem-per-gpu"),
    "gpu_models": ("gres", "gpus", "gpus-per-node", "gpus-per-task", "partition"),
    "sites": ("partition",),
    "partition": ("partition",),
    "time_limit_s": ("time",),
    "workdir": ("chdir",),
    "stdout": ("output",),
    "stderr": ("error",),
    "environment": ("export",),
    "array": ("array",),
    "dependencies": ("dependency",),
    "begin_s": ("begin",),
    "deadline_s": ("deadline",),
    "script": ("wrap",),
}


def _fits(name: str, value: str) -> bool:
    """Whether a variable can be sent; shell functions, for example, have names that cannot."""
    return bool(_VARIABLE.fullmatch(name)) and "\x00" not in value and len(value) <= _MOST_VALUE


def _shown(value: str) -> str:
    return repr(value if len(value) <= 80 else f"{value[:77]}...")
