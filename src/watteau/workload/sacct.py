"""Slurm's `sacct --parsable2` export: which lines are jobs, and what their times, resources and limits mean."""

import re
import zoneinfo
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl

from watteau.domain.jobs import Shape, Workload
from watteau.domain.units import BoolArray, Int64Array
from watteau.workload.accounting import NEVER_STARTED, TIMED_OUT, UNFINISHED, shape_of, tenant_of, workload_of_ended
from watteau.workload.columns import Columns, Numbering, check_unique_ids, no_jobs
from watteau.workload.text import (
    GPUS_MAX,
    MEMORY_MAX_MIB,
    TIME_MAX_S,
    Batch,
    Faults,
    Progress,
    Table,
    check_no_duplicates,
    integers,
    read_batches,
)

#: Each group needs at least one of its columns; the first one that is there is used.
NEEDED: tuple[tuple[str, ...], ...] = (
    ("JobID",),
    ("Submit",),
    ("Start",),
    ("ElapsedRaw", "Elapsed", "End"),
    ("AllocTRES", "ReqTRES"),
    ("TimelimitRaw", "Timelimit"),
    ("State",),
    ("Account", "User"),
)
#: Epoch seconds (SLURM_TIME_FORMAT) stand above time zones and the change of the clocks.
COMMAND = (
    "SLURM_TIME_FORMAT=%s sacct --allusers --allocations --parsable2 --starttime=2026-01-01 --endtime=now "
    "--format=JobIDRaw,JobID,Submit,Eligible,Start,End,ElapsedRaw,AllocTRES,ReqTRES,TimelimitRaw,State,Account,User"
)
_OPTIONAL = ("JobIDRaw", "Eligible", "End")

#: The job is over, so its run time is known.
ENDED = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "LAUNCH_FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "RECONFIG_FAIL",
    "TIMEOUT",
)
#: The job has started, or will start again, and its run time is not known yet.
NOT_ENDED = (
    "COMPLETING",
    "CONFIGURING",
    "PENDING",
    "REQUEUED",
    "REQUEUE_FED",
    "REQUEUE_HOLD",
    "RESIZING",
    "RESV_DEL_HOLD",
    "REVOKED",
    "RUNNING",
    "SIGNALING",
    "SPECIAL_EXIT",
    "STAGE_OUT",
    "STOPPED",
    "SUSPENDED",
)
_TAKEN = ("submit_s", "eligible_s", "start_s", "runtime_s", "limit_s", "shape", "tenant")
_NO_TIME = ("", "Unknown", "None", "N/A")
_NO_RUN = ("0", "00:00:00")
_NO_LIMIT = ("UNLIMITED", "Partition_Limit", "0", "")
_JOB_ID = r"^\d+(_(\d+|\[.*\]))?(\+\d+)?$"
_DURATION = r"^(?:(\d{1,7})-)?(?:(\d{1,9}):)?(\d{1,9}):(\d{1,9})(?:\.\d+)?$"
_DURATION_WORDS = "[days-]hours:minutes:seconds"
_MIG = r"gres/gpu:[^=,]*\dg\.\d+gb"
_UNITS_MIB = {"K": 1 / 1024, "M": 1.0, "G": 1024.0, "T": 1024.0**2, "P": 1024.0**3}


def read_sacct(
    path: Path, header: tuple[str, ...], header_line: int, timezone: str, progress: Progress | None = None
) -> Workload:
    """Read a `sacct --parsable2` export with its header; COMMAND makes one that holds all that is used.

    - A job step (`123.batch`, `123.0`) is part of its job's line: passed over and counted. An array task (`123_4`)
      and a component of a heterogeneous job (`123+1`) is a job. job_id is JobIDRaw, else JobID where all are plain
      numbers, else the row number of the job from 0.
    - A job that has not ended (pending, running, requeued …) and one that was cancelled or refused before it started
      has no known run time: left out and counted.
    - The run time is ElapsedRaw, else Elapsed, else End less Start. A TIMEOUT job would have run longer than it did.
    - The limit is the Timelimit; UNLIMITED, Partition_Limit and 0 mean none. The estimate is the limit, else the run
      time. A job that ended beyond its limit (Slurm's OverTimeLimit) is cut there in a replay.
    - AllocTRES, or ReqTRES where it is empty, gives nodes (the workers), GPUs, CPUs and memory; what does not divide
      among the nodes makes a divisible shape. GPU models are those of ReqTRES when the column is there: what a user
      was given says nothing about what else would have done.
    - A job arrives when it was Eligible, where the column is there: see `workload_of_ended`.
    - Times are local to `timezone` (IANA name), or epoch seconds (SLURM_TIME_FORMAT=%s). A time that the clock skips
      in spring is a fault; one that it shows twice in autumn is taken as its first pass and counted. Submit times are
      then moved so that the first job is at 0; the notes say by how much.
    - Tenants are `account/user`, or the one that is there.

    Raises InputError with every fault.
    """
    faults = Faults(str(path))
    _check_header(faults, header_line, header)
    _check_timezone(faults, timezone)
    table = Table(header, separator="|", header_line=header_line)
    columns, shapes, tenants = Columns(), Numbering(_shape), Numbering(tenant_of)
    left_out, remarks = Counter[str](), Counter[str]()
    id_column = "JobIDRaw" if "JobIDRaw" in header else "JobID"
    names = [name for name in ("Account", "User") if name in header]
    plain_ids = True
    for batch in read_batches(path, table, faults, progress):
        batch = _ended_jobs(batch, faults, left_out)
        times = {
            name: _epoch_s(batch, name, timezone, faults, remarks)
            for name in ("Submit", "Start", *(("End",) if _first(header, NEEDED[3]) == "End" else ()))
        }
        number = batch.frame[id_column].cast(pl.Int64, strict=False)
        plain_ids = plain_ids and not number.null_count()
        columns.add(
            line=batch.line,
            job_id=number.fill_null(-1).to_numpy(),
            submit_s=times["Submit"],
            eligible_s=(
                _epoch_s(batch, "Eligible", timezone, faults, remarks, unknown=times["Submit"])
                if "Eligible" in header
                else times["Submit"]
            ),
            start_s=times["Start"],
            runtime_s=_runtime_s(batch, times, faults),
            limit_s=_limit_s(batch, faults),
            shape=shapes.indices(_resources(batch, faults, remarks)),
            tenant=tenants.indices(batch.frame.select(names)),
        )
        _remark(batch, remarks)
    if columns.rows:
        ids, line = columns.take("job_id"), columns.take("line")
        if plain_ids:
            check_unique_ids(ids, line, faults, id_column, "each job once (sacct without --duplicates)")
        else:
            ids = np.arange(columns.rows, dtype=np.int64)
            remarks["jobs are numbered by their row: without the column JobIDRaw array tasks have no number"] = len(ids)
    faults.raise_if_any()
    if not columns.rows:
        raise no_jobs(
            faults, "; ".join(["no job that ended", *(f"{count} {what}" for what, count in left_out.items() if count)])
        )
    used = {name for group in NEEDED for name in group} | set(_OPTIONAL)
    unused = sorted(set(header) - used)
    return workload_of_ended(
        {"job_id": ids, **{name: columns.take(name) for name in _TAKEN}},
        source=f"sacct {path.name}",
        shapes=shapes.values,
        tenants=tenants.values,
        left_out=left_out,
        remarks=remarks,
        how_read=f"times are read as {timezone}; ",
        notes=[f"columns that are not used: {', '.join(unused)}"] if unused else [],
    )


def _check_header(faults: Faults, line: int, header: tuple[str, ...]) -> None:
    if not header[-1]:
        raise faults.fail(line, "", "a | at the end of the header, as --parsable writes it", "sacct --parsable2")
    if re.match(_JOB_ID, header[0]):
        raise faults.fail(line, "", "a job where the header should be", f"what `{COMMAND}` writes (no --noheader)")
    check_no_duplicates(faults, line, header)
    for group in NEEDED:
        if not set(group) & set(header):
            expected = "that one, too" if faults.total else f"what `{COMMAND}` writes"
            faults.add(line, " or ".join(group), f"no such column among {', '.join(header)}", expected)
    faults.raise_if_any()


def _check_timezone(faults: Faults, timezone: str) -> None:
    try:
        zoneinfo.ZoneInfo(timezone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        raise faults.fail(0, "timezone", repr(timezone), "an IANA time zone, for example Europe/Paris") from None


def _first(header: Iterable[str], group: tuple[str, ...]) -> str:
    """The first column of a group that the file has."""
    return next(name for name in group if name in header)


def _ended_jobs(batch: Batch, faults: Faults, left_out: "Counter[str]") -> Batch:
    """The lines of jobs whose run time is known; the others are counted by their first reason."""
    batch = Batch(batch.frame.with_columns(pl.all().str.strip_chars()), batch.line)
    frame = batch.frame
    is_step = frame["JobID"].str.contains(".", literal=True).to_numpy()
    is_job = frame["JobID"].str.contains(_JOB_ID).to_numpy()
    faults.add_rows(batch, "JobID", ~is_step & ~is_job, "a number, 12_3 for an array task, 12+1 for a component")
    state = frame["State"].str.extract(r"^([A-Z_]+)\+?(?: .*)?$").fill_null("")
    ended = state.is_in(ENDED).to_numpy()
    known = ended | state.is_in(NOT_ENDED).to_numpy()
    faults.add_rows(batch, "State", is_job & ~known, f"one of {', '.join(ENDED + NOT_ENDED)}")
    keep = is_job | is_step
    for what, passed_over in (
        ("lines are job steps, which are part of their job's line", is_step),
        (UNFINISHED, ~ended),
        (NEVER_STARTED, (frame["Start"].is_in(_NO_TIME) | _had_nothing(frame)).to_numpy()),
    ):
        left_out[what] += int(np.count_nonzero(keep & passed_over & (known | is_step)))
        keep &= ~passed_over
    return batch.where(keep & known)


def _had_nothing(frame: pl.DataFrame) -> pl.Series:
    """[row] whether a job never had a node: one that Slurm refused after it was submitted has a start all the same."""
    if "AllocTRES" not in frame.columns:
        return pl.Series([False]).new_from_index(0, frame.height)
    column = _first(frame.columns, NEEDED[3])
    no_time = frame["End"] == frame["Start"] if column == "End" else frame[column].is_in(_NO_RUN)
    return (frame["AllocTRES"] == "") & no_time


def _epoch_s(
    batch: Batch,
    column: str,
    timezone: str,
    faults: Faults,
    remarks: "Counter[str]",
    unknown: Int64Array | None = None,
) -> Int64Array:
    """[row] epoch seconds of a local time, or of a number, which is one already; `unknown` where there is no time."""
    text = batch.frame[column]
    if unknown is not None:
        text = text.zip_with(~text.is_in(_NO_TIME), pl.Series(unknown).cast(pl.String))
    local = text.str.to_datetime("%Y-%m-%dT%H:%M:%S", strict=False, time_unit="ms")
    first = local.dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
    sure = local.dt.replace_time_zone(timezone, ambiguous="null", non_existent="null")
    is_epoch = text.str.contains(r"^\d{1,11}$")
    epoch_s = first.dt.epoch("s").fill_null(text.set(~is_epoch, None).cast(pl.Int64, strict=False))
    skipped: BoolArray = (local.is_not_null() & first.is_null()).to_numpy()
    faults.add_rows(
        batch, column, skipped, f"a time that exists in {timezone} (the clock skips this one: is the time zone right?)"
    )
    wrong: BoolArray = (local.is_null() & ~is_epoch).to_numpy()
    faults.add_rows(batch, column, wrong, "YYYY-MM-DDTHH:MM:SS or epoch seconds")
    twice = int((first.is_not_null() & sure.is_null()).sum())
    remarks[f"{column} times fall in an hour that the clock of {timezone} shows twice: taken as the first pass"] += (
        twice
    )
    result: Int64Array = epoch_s.fill_null(0).to_numpy().copy()
    early = (result < 0) & ~wrong & ~skipped
    faults.add_rows(batch, column, early, "a time since 1970")
    return result


def _runtime_s(batch: Batch, times: dict[str, Int64Array], faults: Faults) -> Int64Array:
    if "ElapsedRaw" in batch.frame.columns:
        return integers(batch, "ElapsedRaw", faults)
    if "Elapsed" in batch.frame.columns:
        return _duration_s(batch, "Elapsed", faults, words=())
    runtime_s = times["End"] - times["Start"]
    faults.add_rows(batch, "End", runtime_s < 0, "a time after Start (ElapsedRaw does not depend on the clock)")
    return runtime_s


def _limit_s(batch: Batch, faults: Faults) -> Int64Array:
    """[row] the time limit, 0 where there is none."""
    if "TimelimitRaw" not in batch.frame.columns:
        return _duration_s(batch, "Timelimit", faults, words=_NO_LIMIT)
    minutes = batch.frame["TimelimitRaw"]
    named = Batch(batch.frame.with_columns(TimelimitRaw=minutes.set(minutes.is_in(_NO_LIMIT), "0")), batch.line)
    return integers(named, "TimelimitRaw", faults, maximum=TIME_MAX_S // 60) * 60


def _duration_s(batch: Batch, column: str, faults: Faults, words: tuple[str, ...]) -> Int64Array:
    """[row] seconds of `[days-][hours:]minutes:seconds`; the given words are 0."""
    text = batch.frame[column]
    parts = text.str.extract_groups(_DURATION).struct.unnest().cast(pl.Int64, strict=False)
    days, hours, minutes, seconds = parts.get_columns()
    total = days.fill_null(0) * 86_400 + hours.fill_null(0) * 3_600 + minutes * 60 + seconds
    total = total.set(text.is_in(words), 0) if words else total
    wrong: BoolArray = (total.is_null() | (total > TIME_MAX_S)).to_numpy()
    faults.add_rows(batch, column, wrong, " or ".join([_DURATION_WORDS, *filter(None, words)]))
    result: Int64Array = total.fill_null(0).to_numpy().copy()
    return result


def _resources(batch: Batch, faults: Faults, remarks: "Counter[str]") -> pl.DataFrame:
    """[row] nodes, GPUs, CPUs, MiB and GPU models of each job, from trackable resources such as `cpu=8,gres/gpu=2`."""
    frame = batch.frame
    column = _first(frame.columns, NEEDED[4])
    tres = frame[column]
    if column == "AllocTRES" and "ReqTRES" in frame.columns:
        tres = tres.set(tres == "", None).fill_null(frame["ReqTRES"])
    asked = frame["ReqTRES"] if "ReqTRES" in frame.columns else tres
    wrong = ~tres.str.contains(r"^[^=,]+=[^=,]*(,[^=,]+=[^=,]*)*$")
    amounts = {
        "nodes": _amount(tres, "node", r"(\d+)"),
        "gpus": _amount(tres, "gres/gpu", r"(\d+)"),
        "cpus": _amount(tres, "cpu", r"(\d+)"),
        "mem": _amount(tres, "mem", r"(\d+(?:\.\d+)?)[KMGTP]?"),
    }
    typed = tres.str.extract_all(r"(?:^|,)gres/gpu:[^=,]+=\d+")
    typed_gpus = pl.DataFrame({"t": typed}).select(
        pl.col("t").list.eval(pl.element().str.extract(r"=(\d{1,8})$").cast(pl.Int64)).list.sum()
    )["t"]
    for key, amount in (("node", "nodes"), ("gres/gpu", "gpus"), ("cpu", "cpus"), ("mem", "mem")):
        wrong |= tres.str.contains(f"(^|,){key}=") & amounts[amount].is_null()
    wrong |= tres.str.count_matches(r"(^|,)gres/gpu:") != typed.list.len()
    unit = (
        tres.str.extract(r"(?:^|,)mem=[\d.]+([KMGTP])")
        .fill_null("M")
        .replace_strict(_UNITS_MIB, return_dtype=pl.Float64)
    )
    nodes = amounts["nodes"].fill_null(1)
    gpus = amounts["gpus"].fill_null(typed_gpus)
    memory_mib = (amounts["mem"].fill_null(0.0) * unit).ceil()
    cpus = amounts["cpus"].fill_null(0.0)
    wrong |= (nodes < 1) | (nodes > GPUS_MAX) | (gpus > GPUS_MAX) | (cpus > GPUS_MAX) | (memory_mib > MEMORY_MAX_MIB)
    wrong = wrong.fill_null(True)
    shown = Batch(frame.with_columns(tres.alias(column)), batch.line)
    faults.add_rows(
        shown, column, wrong.to_numpy(), "name=amount,… with amounts such as cpu=8,mem=64G,node=1,gres/gpu=2"
    )
    models = asked.str.extract_all(r"gres/gpu:[^=,]+").list.eval(pl.element().str.slice(len("gres/gpu:")))
    remarks["jobs were given MIG slices: each counts as a whole GPU"] += int(tres.str.contains(_MIG).sum())
    if "ReqTRES" not in frame.columns:
        remarks["jobs allow only the GPU model that they were given: the column ReqTRES would say what they asked"] += (
            int((models.list.len() > 0).sum())
        )
    resources = pl.DataFrame({"nodes": nodes, "gpus": gpus, "cpus": cpus, "memory_mib": memory_mib})
    resources = resources.select(pl.when(wrong).then(1).otherwise(pl.all()).cast(pl.Int64).name.keep())
    return resources.with_columns(models=models.list.unique().list.sort().list.join("|"))


def _amount(tres: pl.Series, key: str, number: str) -> pl.Series:
    """[row] the amount of one resource, null where it is not named or not a number."""
    return tres.str.extract(f"(?:^|,){key}={number}(?:,|$)").cast(pl.Float64, strict=False)


def _shape(nodes: int, gpus: int, cpus: int, memory_mib: int, models: str) -> Shape:
    return shape_of(nodes, gpus, cpus, memory_mib, tuple(models.split("|")) if models else ())


def _remark(batch: Batch, remarks: "Counter[str]") -> None:
    remarks[TIMED_OUT] += int(batch.frame["State"].str.starts_with("TIMEOUT").sum())
    remarks["jobs are components of heterogeneous jobs: each is replayed alone"] += int(
        batch.frame["JobID"].str.contains("+", literal=True).sum()
    )
