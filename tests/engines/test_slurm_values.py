"""What Slurm's own notations mean."""

from itertools import pairwise

import pytest

from watteau.domain.sites import Held
from watteau.engines.contract import EngineUnreachable
from watteau.engines.slurm.past import FIRST_S, pieces
from watteau.engines.slurm.values import (
    Tres,
    code_and_signal,
    epoch_s,
    gpu_count,
    gpu_kinds,
    how_ended,
    job_state,
    limit_s,
    memory_mib,
    names,
    node_state,
    reason_of,
    spread,
    tres,
    wait_status,
)


@pytest.mark.parametrize(
    ("gres", "kinds"),
    [
        ("gpu:8", (("", 8),)),
        ("gpu:h100:8(S:0-1)", (("h100", 8),)),
        ("gpu:a100:4(IDX:0,2-4),gpu:v100:1(IDX:5),tmp:3", (("a100", 4), ("v100", 1))),
        ("gpu:a100_3g.20gb:2(S:0,1),gpu:a100_3g.20gb:1(S:1)", (("a100_3g.20gb", 3),)),
        ("gres:gpu:4", (("", 4),)),
        ("gres/gpu:h100=2", (("h100", 2),)),
        ("gpu", (("", 1),)),
        ("gpu:h100", (("h100", 1),)),
        ("gpu:h100:no_consume:2", (("h100", 2),)),
        ("gpu:0", (("", 0),)),
        ("gpus:4,craynetwork:2", ()),
        ("(null)", ()),
        ("N/A", ()),
        ("", ()),
    ],
)
def test_gres_names_kinds_of_gpus(gres: str, kinds: tuple[tuple[str, int], ...]) -> None:
    assert gpu_kinds(gres) == kinds


def test_typed_gpus_are_not_counted_twice() -> None:
    assert gpu_count("cpu=1,gres/gpu=8,gres/gpu:h100=6,gres/gpu:a100=2") == 8
    assert gpu_count("cpu=1,gres/gpu:h100=6,gres/gpu:a100=2") == 8
    assert gpu_count("gpu:h100:6,gpu:a100:2") == 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("cpu=16,mem=128G,node=2,billing=16,gres/gpu=8", Tres(16, 131_072, 2, 8)),
        ("cpu=2,mem=1500M,node=1", Tres(2, 1_500, 1, 0)),
        ("cpu=1.5K,mem=1.50T", Tres(1_500, 1_572_864, 0, 0)),
        ("", Tres(0, 0, 0, 0)),
        ("N/A", Tres(0, 0, 0, 0)),
    ],
)
def test_tres_are_counted(text: str, said: Tres) -> None:
    assert tres(text) == said


@pytest.mark.parametrize(("text", "mib"), [("64G", 65_536), ("4000Mc", 4_000), ("2048K", 2), ("0", 0), ("?", 0)])
def test_memory_is_in_mib(text: str, mib: int) -> None:
    assert memory_mib(text) == mib


@pytest.mark.parametrize(
    ("words", "state", "flags"),
    [
        ("RUNNING", "RUNNING", set()),
        ("CANCELLED by 1000", "CANCELLED", set()),
        ("COMPLETING", "RUNNING", {"COMPLETING"}),
        ("CONFIGURING", "RUNNING", {"CONFIGURING"}),
        ("REQUEUE_HOLD", "PENDING", {"REQUEUE_HOLD"}),
        (["CANCELLED", "COMPLETING"], "CANCELLED", {"COMPLETING"}),
        (["PENDING", "REQUEUED"], "PENDING", {"REQUEUED"}),
        ("", "PENDING", {""}),
    ],
)
def test_a_jobs_state_is_told_from_what_happens_to_it(words: str | list[str], state: str, flags: set[str]) -> None:
    assert job_state(words) == (state, frozenset(flags))


@pytest.mark.parametrize(
    ("words", "state", "flags"),
    [
        (["idle"], "IDLE", set()),
        (["idle", "DRAIN"], "IDLE", {"DRAIN"}),
        (["MIXED", "DRAIN", "NOT_RESPONDING"], "MIXED", {"DRAIN", "NOT_RESPONDING"}),
        (["down*"], "DOWN", {"NOT_RESPONDING"}),
        (["idle~"], "IDLE", set()),
        (["alloc", "MAINT"], "ALLOCATED", {"MAINTENANCE"}),
        (["unk"], "UNKNOWN", set()),
        ([], "UNKNOWN", set()),
    ],
)
def test_a_nodes_state_is_told_from_what_happens_to_it(words: list[str], state: str, flags: set[str]) -> None:
    assert node_state(words) == (state, frozenset(flags))


def test_a_reason_is_a_word() -> None:
    assert reason_of("None") == ""
    assert reason_of("Priority") == "Priority"
    assert reason_of("ReqNodeNotAvail, UnavailableNodes:gpu[1-3]") == "ReqNodeNotAvail"
    sentence = "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions"
    assert reason_of(sentence) == "Resources"


@pytest.mark.parametrize(
    ("status", "said"), [(0, (0, None)), (768, (3, None)), (9, (None, 9)), (139, (None, 11)), (4021, (None, 53))]
)
def test_a_wait_status_is_a_code_or_a_signal(status: int, said: tuple[int | None, int | None]) -> None:
    assert wait_status(status) == said


def test_saccts_pairs_are_a_code_or_a_signal() -> None:
    assert code_and_signal("3:0") == (3, None)
    assert code_and_signal("0:9") == (None, 9)
    assert code_and_signal("") == (None, None)


def test_only_what_completed_exited_with_0() -> None:
    assert how_ended("COMPLETED", 0, None) == (0, None)
    assert how_ended("CANCELLED", 0, None) == (None, None)
    assert how_ended("FAILED", 7, None) == (7, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93_784), ("1:00:00", 3_600), ("30:00", 1_800), ("UNLIMITED", 0), ("Partition_Limit", 0)],
)
def test_limits_are_seconds(text: str, seconds: int) -> None:
    assert limit_s(text) == seconds


def test_times_that_are_none_are_none() -> None:
    assert [epoch_s(text) for text in ("1795778975", "0", "Unknown", "N/A", "None")] == [1_795_778_975, *[None] * 4]


def test_host_lists_are_expanded() -> None:
    assert names("gpu[001-003,010],login1") == ("gpu001", "gpu002", "gpu003", "gpu010", "login1")
    assert names("rack[1-2]n[1-2]") == ("rack1n1", "rack1n2", "rack2n1", "rack2n2")
    assert names("gpu7") == ("gpu7",)
    assert names("(null)") == names("") == names("None assigned") == ()
    with pytest.raises(EngineUnreachable, match=r"gpu\[1-"):
        names("gpu[1-")


def test_what_does_not_divide_evenly_is_all_given_out() -> None:
    held = spread(("a", "b", "c"), 4, 10, 100)
    assert held == (Held("a", 2, 4, 34), Held("b", 1, 3, 33), Held("c", 1, 3, 33))
    assert spread((), 0, 1, 0) == ()


def test_the_pieces_of_a_year_are_whole() -> None:
    found = list(pieces(1_700_000_000, 1_731_536_000, 86_400))
    assert found[0][0] == 1_700_000_000
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert found[-1][1] >= 1_731_536_000 + 31 * 86_400
    assert next(pieces(0, 1_700_000_000, 86_400))[0] == FIRST_S
    assert list(pieces(1_700_000_000, 1_700_000_000, 86_400)) == []
