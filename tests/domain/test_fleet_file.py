"""A fleet file is either a fleet, or every fault at once with its line."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from watteau.domain.errors import Fault, InputError
from watteau.domain.fleet import Engine, Fleet, Mode, Technology
from watteau.domain.fleet_file import MAX_BYTES, MAX_FAULTS, parse_fleet

EXAMPLES = Path(__file__).parents[2] / "examples"
FRANCE = (EXAMPLES / "france.toml").read_text(encoding="utf-8")

SMALL = """\
name = "Small"
[[sites]]
id = "north"
name = "North"
latitude = 60.0
longitude = 20.0
power_limit_kw = 100
pue = 1.2
engine = "simulated"
mode = "drive"
[[sites.pools]]
id = "north-h100"
gpu_model = "H100"
gpus_per_node = 8
cpu_cores = 112
memory_gib = 2048
mig_capable = true
node_idle_w = 2000
node_typical_w = 6000
node_max_w = 9000
nodes_per_block = 32
[[sites.phases]]
name = "Hall 1"
opens = 2026-03-01
nodes = { "north-h100" = 10 }
[[sites.outages]]
start = 2026-05-01T20:00:00+02:00
end = 2026-05-02
pools = ["north-h100"]
[[contracts]]
id = "sun"
technology = "solar"
capacity_mw = 1
price_eur_per_mwh = 50.5
start = 2026-01-01
end = 2046-01-01
[[tenants]]
id = "all"
quota_gpus = 80
[[tenants]]
id = "team"
name = "The team"
parent = "all"
share = 3
quota_gpus = 40
"""


def line_of(text: str, needle: str) -> int:
    """The line, from 1, on which a text first has the needle."""
    return text[: text.index(needle)].count("\n") + 1


def faults_of(text: str) -> tuple[Fault, ...]:
    with pytest.raises(InputError) as caught:
        parse_fleet(text, "fleet.toml")
    assert caught.value.source == "fleet.toml"
    return caught.value.faults


def the_fault(text: str) -> Fault:
    faults = faults_of(text)
    assert len(faults) == 1, [str(fault) for fault in faults]
    return faults[0]


def test_a_right_file_becomes_the_fleet_that_it_describes() -> None:
    fleet = parse_fleet(SMALL, "small.toml")
    site = fleet.sites[0]
    assert (fleet.name, site.id, site.engine, site.mode) == ("Small", "north", Engine.SIMULATED, Mode.DRIVE)
    assert site.pue.is_constant
    assert site.pue.value == (1.2,)
    assert (site.pools[0].mig_capable, site.pools[0].nodes_per_block) == (True, 32)
    assert fleet.gpus(datetime(2026, 2, 28, 23, tzinfo=UTC)) == 0
    assert fleet.gpus(datetime(2026, 3, 1, tzinfo=UTC)) == 80
    assert fleet.contracts[0].technology is Technology.SOLAR
    assert fleet.contracts[0].capacity_mw == 1.0
    assert [(tenant.id, tenant.name, tenant.share) for _, tenant in fleet.tenants.walk()] == [
        ("all", "all", 1),
        ("team", "The team", 3),
    ]


def test_a_date_means_midnight_utc_and_an_offset_is_taken_to_utc() -> None:
    outage = parse_fleet(SMALL, "").sites[0].outages[0]
    assert outage.start == datetime(2026, 5, 1, 18, tzinfo=UTC)
    assert outage.end == datetime(2026, 5, 2, tzinfo=UTC)
    assert outage.start.tzinfo is UTC


def test_a_file_without_tenants_has_one_tenant_everyone() -> None:
    fleet = parse_fleet(SMALL[: SMALL.index("[[tenants]]")], "")
    assert [tenant.id for tenant in fleet.tenants.leaves()] == ["everyone"]
    assert fleet.tenants.quota_gpus is None


def test_a_site_without_power_is_allowed() -> None:
    assert parse_fleet(SMALL.replace("power_limit_kw = 100", "power_limit_kw = 0"), "").sites[0].power_limit_kw == 0


def test_a_draw_that_the_hourly_books_could_not_add_up_is_refused_here() -> None:
    """There it would show when a replay of hours is over."""
    large = SMALL.replace("power_limit_kw = 100", "power_limit_kw = 99_000_000").replace(
        "max_w = 9000", "max_w = 10**9"
    )
    large = large.replace("10**9", "1_000_000_000")
    assert parse_fleet(large.replace("typical_w = 6000", "typical_w = 150_000_000"), "").gpus() == 80
    fault = the_fault(large.replace("typical_w = 6000", "typical_w = 150_000_001"))
    assert (fault.path, fault.line) == ("sites[0]", line_of(SMALL, "[[sites]]"))
    assert (fault.found, fault.expected[:32]) == (
        "1,500 MW when all nodes are busy",
        "at most 1,500 MW at one site, fo",
    )
    large = large.replace("typical_w = 6000", "typical_w = 130_000_000")
    second = large[large.index("[[sites]]") : large.index("[[contracts]]")].replace("north", "south")
    fault = the_fault(large.replace("[[contracts]]", second + "[[contracts]]"))
    assert fault.found == "3,120 MW when all nodes of all sites are busy, PUE included"


def test_a_pue_may_be_a_curve_by_temperature() -> None:
    curve = "pue = [{ temperature_c = 10, pue = 1.1 }, { temperature_c = 30, pue = 1.3 }]"
    pue = parse_fleet(SMALL.replace("pue = 1.2", curve), "").sites[0].pue
    assert (pue.temperature_c, pue.value) == ((10.0, 30.0), (1.1, 1.3))


def test_windows_line_ends_and_a_byte_order_mark_do_not_matter() -> None:
    assert parse_fleet("\ufeff" + SMALL.replace("\n", "\r\n"), "") == parse_fleet(SMALL, "")


def test_the_nouns_refuse_what_the_file_would_refuse() -> None:
    """A fleet that code builds or changes is held to the same rules as one that is read."""
    fleet = parse_fleet(SMALL, "")
    site, contract = fleet.sites[0], fleet.contracts[0]
    wrong: list[tuple[object, dict[str, object]]] = [
        (site, {"latitude": float("nan")}),
        (site, {"power_limit_kw": -1}),
        (site, {"pools": ()}),
        (site, {"pools": site.pools * 2}),
        (site.phases[0], {"nodes": ()}),
        (site.phases[0], {"opens": datetime(2026, 3, 1)}),
        (site.outages[0], {"end": site.outages[0].start}),
        (site.pue, {"temperature_c": (float("inf"),)}),
        (contract, {"end": contract.start}),
        (contract, {"capacity_mw": float("nan")}),
    ]
    for noun, change in wrong:
        with pytest.raises(ValueError, match=r"\w"):
            replace(noun, **change)  # type: ignore[type-var]


# --- The examples ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def france() -> Fleet:
    return parse_fleet(FRANCE, "france.toml")


def test_france_is_exactly_25_000_gpus_when_all_phases_are_open(france: Fleet) -> None:
    assert france.gpus() == 25_000
    assert france.gpus(datetime(2027, 6, 1, tzinfo=UTC)) == 25_000
    assert [site.id for site in france.sites] == ["paris", "marseille", "mulhouse"]


def test_france_has_power_for_every_node_at_its_maximum_on_the_hottest_day(france: Fleet) -> None:
    for site in france.sites:
        it_w = sum(site.nodes(pool.id) * pool.node_max_w for pool in site.pools)
        assert it_w * max(site.pue.value) / 1_000 <= site.power_limit_kw


def test_the_contracts_of_france_cover_its_years_at_least_to_2040(france: Fleet) -> None:
    assert {contract.technology for contract in france.contracts} == set(Technology) - {Technology.BASELOAD}
    assert all(contract.start <= datetime(2025, 1, 1, tzinfo=UTC) for contract in france.contracts)
    assert all(contract.end >= datetime(2040, 1, 1, tzinfo=UTC) for contract in france.contracts)


def test_france_has_12_to_20_leaf_tenants(france: Fleet) -> None:
    assert 12 <= len(france.tenants.leaves()) <= 20


@pytest.mark.parametrize(("name", "gpus"), [("one-machine-256", 256), ("pai-160", 160)])
def test_a_reference_machine_is_one_node_without_contracts(name: str, gpus: int) -> None:
    fleet = parse_fleet((EXAMPLES / f"{name}.toml").read_text(encoding="utf-8"), name)
    assert (fleet.gpus(), fleet.sites[0].nodes(fleet.sites[0].pools[0].id)) == (gpus, 1)
    assert fleet.contracts == ()
    assert [tenant.id for tenant in fleet.tenants.leaves()] == ["everyone"]


# --- One wrong thing, one fault, on its line ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "path", "expected"),
    [
        ("latitude = 60.0", "latitude = 91", "sites[0].latitude", "-90 to 90"),
        ("longitude = 20.0", "longitude = -180.5", "sites[0].longitude", "-180 to 180"),
        ("longitude = 20.0", "longitude = nan", "sites[0].longitude", "-180 to 180"),
        ("latitude = 60.0", "latitude = 1" + "0" * 400, "sites[0].latitude", "-90 to 90"),
        ("power_limit_kw = 100", "power_limit_kw = -1", "sites[0].power_limit_kw", "at least 0"),
        ("power_limit_kw = 100", "power_limit_kw = 1e2", "sites[0].power_limit_kw", "whole number"),
        ("power_limit_kw = 100", "power_limit_kw = 23", "sites[0].power_limit_kw", "at least 24 kW"),
        ("pue = 1.2", "pue = 0.99", "sites[0].pue", "from 1.0 to 3.0"),
        ("pue = 1.2", "pue = 3.1", "sites[0].pue", "from 1.0 to 3.0"),
        ("pue = 1.2", "pue = []", "sites[0].pue", "from 1.0 to 3.0"),
        ("pue = 1.2", "pue = true", "sites[0].pue", "from 1.0 to 3.0"),
        ('engine = "simulated"', 'engine = "slrum"', "sites[0].engine", "slurm"),
        ('mode = "drive"', "mode = 1", "sites[0].mode", "observe, shadow, drive"),
        ('id = "north"', 'id = "no rth"', "sites[0].id", "a short id"),
        ('name = "North"', 'name = "\\u001b[31m"', "sites[0].name", "printable"),
        ("gpus_per_node = 8", "gpus_per_node = 8.0", "sites[0].pools[0].gpus_per_node", "whole number"),
        ("gpus_per_node = 8", "gpus_per_node = true", "sites[0].pools[0].gpus_per_node", "whole number"),
        ("cpu_cores = 112", 'cpu_cores = "112"', "sites[0].pools[0].cpu_cores", "whole number"),
        ("mig_capable = true", "mig_capable = 1", "sites[0].pools[0].mig_capable", "true or false"),
        ("node_idle_w = 2000", "node_idle_w = 0", "sites[0].pools[0].node_idle_w", "above 0"),
        ("node_typical_w = 6000", "node_typical_w = 1999", "sites[0].pools[0].node_typical_w", "node_idle_w, 2000"),
        ("node_max_w = 9000", "node_max_w = 5999", "sites[0].pools[0].node_max_w", "node_typical_w, 6000"),
        ("opens = 2026-03-01", "opens = 2026-03-01T08:00:00", "sites[0].phases[0].opens", "2026-03-01T08:00:00Z"),
        ("opens = 2026-03-01", 'opens = "2026-03-01"', "sites[0].phases[0].opens", "without quotes"),
        ("opens = 2026-03-01", "opens = 08:00:00", "sites[0].phases[0].opens", "a date"),
        ("opens = 2026-03-01", "opens = 0001-01-01T00:00:00+14:00", "sites[0].phases[0].opens", "1970 to 2199"),
        ('{ "north-h100" = 10 }', "{}", "sites[0].phases[0].nodes", "numbers of nodes"),
        ('{ "north-h100" = 10 }', '{ "north-h100" = 0 }', "sites[0].phases[0].nodes.north-h100", "each from 1"),
        ('{ "north-h100" = 10 }', '{ "north-h10" = 10 }', "sites[0].phases[0].nodes.north-h10", "'north-h100'?"),
        ('{ "north-h100" = 10 }', "{ x = 10 }", "sites[0].phases[0].nodes.x", "a pool of this site: north-h100"),
        ("end = 2026-05-02", "end = 2026-05-01T18:00:00Z", "sites[0].outages[0].end", "after the start"),
        ('pools = ["north-h100"]', 'pools = ["south"]', "sites[0].outages[0].pools[0]", "north-h100"),
        ('pools = ["north-h100"]', "pools = []", "sites[0].outages[0].pools", "no such key for all pools"),
        ('technology = "solar"', 'technology = "fusion"', "contracts[0].technology", "hydro_run_of_river"),
        ("capacity_mw = 1", "capacity_mw = inf", "contracts[0].capacity_mw", "above 0"),
        ("capacity_mw = 1", "capacity_mw = 0", "contracts[0].capacity_mw", "above 0"),
        ("price_eur_per_mwh = 50.5", "price_eur_per_mwh = -1", "contracts[0].price_eur_per_mwh", "from 0"),
        ("end = 2046-01-01", "end = 2026-01-01", "contracts[0].end", "after the start"),
        ("quota_gpus = 40", "quota_gpus = 81", "tenants[1].quota_gpus", "the 80 GPUs of all"),
        ("quota_gpus = 40", "quota_gpus = -1", "tenants[1].quota_gpus", "at least 0"),
        ("share = 3", "share = 0", "tenants[1].share", "at least 1"),
        ('parent = "all"', 'parent = "al"', "tenants[1].parent", "'all'?"),
    ],
)
def test_a_wrong_value_is_reported_on_its_line(old: str, new: str, path: str, expected: str) -> None:
    text = SMALL.replace(old, new, 1)
    fault = the_fault(text)
    assert (fault.line, fault.path) == (line_of(text, new), path)
    assert expected in fault.expected
    assert len(str(fault)) < 400


@pytest.mark.parametrize(
    ("old", "key", "meant", "path"),
    [
        ("power_limit_kw", "power_limit", "power_limit_kw", "sites[0].power_limit"),
        ("gpu_model", "gpu_modle", "gpu_model", "sites[0].pools[0].gpu_modle"),
        ("share", "shares", "share", "tenants[1].shares"),
        ("opens", "open", "opens", "sites[0].phases[0].open"),
    ],
)
def test_a_misspelled_key_is_one_fault_and_names_the_nearest_known_key(
    old: str, key: str, meant: str, path: str
) -> None:
    text = SMALL.replace(f"{old} =", f"{key} =", 1)
    fault = the_fault(text)
    assert (fault.line, fault.path, fault.found) == (line_of(text, f"{key} ="), path, "unknown key")
    assert fault.expected.startswith(f"{meant!r}, or one of ")


def test_no_fault_repeats_a_control_character_to_the_terminal() -> None:
    text = SMALL.replace('id = "north-h100"', 'id = "\\u001b[31m"').replace('id = "north"', 'id = "\\u0000"')
    faults = faults_of(text + '[[tenants]]\nid = "\\u0007"\nparent = "\\u0007"\n')
    assert len(faults) == 6
    assert all(str(fault).isprintable() for fault in faults)


def test_an_unlike_key_is_answered_with_all_known_keys() -> None:
    fault = the_fault(SMALL.replace("share = 3", "zzz = 3"))
    assert fault.expected == "one of id, name, parent, share, quota_gpus"


def test_a_missing_key_is_reported_on_the_header_of_its_table() -> None:
    text = SMALL.replace("latitude = 60.0\n", "")
    fault = the_fault(text)
    assert (fault.line, fault.path, fault.found) == (line_of(text, "[[sites]]"), "sites[0].latitude", "missing")


@pytest.mark.parametrize("kind", ["sites", "sites.pools", "contracts", "tenants"])
def test_a_duplicate_id_names_the_line_of_the_first(kind: str) -> None:
    start = SMALL.index(f"[[{kind}]]")
    end = {"sites": SMALL.index("[[contracts]]"), "sites.pools": SMALL.index("[[sites.phases]]")}.get(
        kind, SMALL.index("[[tenants]]") if kind == "contracts" else len(SMALL)
    )
    block = SMALL[start:end]
    if kind == "tenants":
        block = '[[tenants]]\nid = "team"\nparent = "all"\n'
        end = len(SMALL)
    text = SMALL[:end] + block + SMALL[end:]
    first = text.index('id = "team"') if kind == "tenants" else text.index("id = ", start)
    duplicates = [fault for fault in faults_of(text) if "is already the" in fault.found]
    second = text.index("id = ", end)
    assert duplicates[0].line == text[:second].count("\n") + 1
    assert duplicates[0].found.endswith(f"on line {text[:first].count(chr(10)) + 1}")


def test_two_phases_of_one_site_need_two_names() -> None:
    phase = SMALL[SMALL.index("[[sites.phases]]") : SMALL.index("[[sites.outages]]")]
    fault = the_fault(SMALL.replace(phase, phase + phase))
    assert fault.path == "sites[0].phases[1].name"


def test_a_pue_curve_must_rise_in_temperature() -> None:
    curve = "pue = [\n  { temperature_c = 10, pue = 1.1 },\n  { temperature_c = 10, pue = 1.3 },\n]"
    fault = the_fault(SMALL.replace("pue = 1.2", curve))
    assert (fault.line, fault.path) == (10, "sites[0].pue[1].temperature_c")


def test_a_pool_of_another_site_is_named_as_such() -> None:
    site = SMALL[SMALL.index("[[sites]]") : SMALL.index("[[contracts]]")].replace("north", "south")
    text = SMALL.replace("[[contracts]]", site.replace('{ "south-h100"', '{ "north-h100"') + "[[contracts]]")
    assert the_fault(text).found == "a pool of site north"


def test_a_second_root_a_circle_and_a_too_deep_tree_are_faults() -> None:
    assert the_fault(SMALL + '[[tenants]]\nid = "b"\n').path == "tenants[2].parent"
    circle = '[[tenants]]\nid = "x"\nparent = "y"\n[[tenants]]\nid = "y"\nparent = "x"\n'
    fault = the_fault(SMALL + circle + '[[tenants]]\nid = "z"\nparent = "x"\n')
    assert (fault.line, fault.found) == (line_of(SMALL + circle, 'parent = "y"'), "a circle: x > y > x")
    deep = "".join(f'[[tenants]]\nid = "d{n}"\nparent = "{f"d{n - 1}" if n else "all"}"\n' for n in range(40))
    assert all("levels of tenants" in fault.found for fault in faults_of(SMALL + deep))


def test_a_quota_is_held_against_the_nearest_ancestor_that_has_one() -> None:
    middle = SMALL.replace('id = "team"\nname = "The team"\nparent = "all"', 'id = "mid"\nparent = "all"')
    text = middle.replace("quota_gpus = 40\n", "") + '[[tenants]]\nid = "leaf"\nparent = "mid"\nquota_gpus = 81\n'
    assert the_fault(text).path == "tenants[2].quota_gpus"


def test_a_fleet_that_no_array_can_hold_is_refused() -> None:
    text = SMALL.replace('"north-h100" = 10 }', '"north-h100" = 1000000 }').replace(
        "gpus_per_node = 8", "gpus_per_node = 1000"
    )
    assert any("1,000,000,000 GPUs" in fault.found for fault in faults_of(text))


# --- Every fault at once --------------------------------------------------------------------------------------------


def test_every_fault_of_a_file_is_reported_at_once_in_the_order_of_lines() -> None:
    text = SMALL
    changes = [
        ("latitude = 60.0", "latitude = 91"),
        ('engine = "simulated"', 'engine = "none"'),
        ("node_typical_w = 6000", "node_typical_w = 1"),
        ("nodes_per_block = 32", "nodes_per_bloc = 32"),
        ("opens = 2026-03-01", "opens = 2026-03-01T08:00:00"),
        ('{ "north-h100" = 10 }', '{ "other" = 10 }'),
        ("end = 2026-05-02", "end = 2026-04-02"),
        ('technology = "solar"', 'technology = "fusion"'),
        ("end = 2046-01-01", "end = 2016-01-01"),
        ("quota_gpus = 40", "quota_gpus = 400"),
    ]
    for old, new in changes:
        text = text.replace(old, new, 1)
    faults = faults_of(text)
    assert [fault.line for fault in faults] == [line_of(text, new) for _, new in changes]


def test_faults_beyond_the_thousandth_are_counted_and_not_hidden() -> None:
    keys = "".join(f"k{n} = 1\n" for n in range(MAX_FAULTS + 500))
    faults = faults_of(keys + SMALL)
    assert len(faults) == MAX_FAULTS + 1
    assert faults[-1].found == "500 more faults"


# --- Text that is not a fleet ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("", 1, "an empty file"),
        (" \n\t\n", 1, "an empty file"),
        ('name = "x"\nsites = [\n', 2, "the end of the file"),
        ('name = "x"\n\nsites = = 3\n', 3, "column 9"),
        ('name = "x"\nname = "y"\n', 2, "overwrite"),
        ('name = "x"\nwhen = 2026-02-30\n', 2, "date"),
        ('name = "\x00"', 1, "column 9"),
        ('name = "x"\nkey = "\ud800"', 2, "surrogate"),
        ("name = 1\nn = " + "1" * 5_000, 2, "thousands of digits"),
    ],
)
def test_broken_toml_is_one_fault_with_its_line(text: str, line: int, found: str) -> None:
    fault = the_fault(text)
    assert fault.line == line
    assert found in fault.found


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 50_000,
        "a = " + "[" * 50_000 + "]" * 50_000,
        "a = " + "[\n" * 50_000,
        "a = " + "{a = " * 20_000,
        "a." * 50_000 + "a = 1",
        "[" + "a." * 50_000 + "a]",
        "[[" + "a." * 50_000 + "a]]",
    ],
)
def test_deep_nesting_is_refused_without_going_down(text: str) -> None:
    assert "levels of nesting" in the_fault(text).found


def test_a_text_beyond_the_limit_is_refused_unread() -> None:
    assert the_fault("#" * (MAX_BYTES + 1)).found == "more than 2 MiB"


def test_keys_in_every_toml_spelling_have_their_lines() -> None:
    text = SMALL.replace('{ "north-h100" = 10 }', "{ 'north-h\\100' = 10 }")
    assert the_fault(text).line == line_of(text, "nodes = {")
    dotted = SMALL.replace("nodes = {", 'nodes."zz\\u0041" = 3 # \'x\nnodes.north-h100 = 10 #')
    fault = the_fault(dotted)
    assert (fault.line, fault.path) == (line_of(dotted, "zz"), "sites[0].phases[0].nodes.zzA")


# --- Whatever comes, nothing but InputError -------------------------------------------------------------------------


def _parses_or_refuses(text: str) -> None:
    refusal: InputError | None = None
    try:
        assert parse_fleet(text, "any").sites
    except InputError as error:
        refusal = error
    if refusal is not None:
        assert refusal.faults
        assert all(0 <= fault.line <= text.count("\n") + 1 for fault in refusal.faults)
        assert all(fault.found and fault.expected for fault in refusal.faults)
        assert str(refusal).replace("\n", "").isprintable()


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(
        st.text(),
        st.text(alphabet='ab.=[]{}"\n,#1-: ', max_size=80),
        st.binary().map(lambda data: data.decode("latin-1")),
    )
)
def test_any_text_is_a_fleet_or_an_input_error(text: str) -> None:
    _parses_or_refuses(text)


_SNIPPETS = st.sampled_from(
    [
        *("", "[", "]", "{", "}", '"', "\n", "=", ".", "-", "0", "9" * 30, "0x" + "f" * 4_000, "nan", "inf", "1e999"),
        *("true", "2026-01-01", "07:00:00", "[]", "{}", '""', "'''", "[[sites]]\n", "[[tenants]]\n", "\\u0000", "\x00"),
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_mutated_fleet_file_is_a_fleet_or_an_input_error(data: st.DataObject) -> None:
    text = SMALL if data.draw(st.booleans(), label="small") else FRANCE
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        end = min(len(text), start + data.draw(st.integers(0, 30)))
        text = text[:start] + data.draw(_SNIPPETS | st.text(max_size=5)) + text[end:]
    _parses_or_refuses(text)


_VALUES = ["1", "-1", "0", "nan", "-inf", '""', '"all"', "[]", "[1]", "{}", "{a = 1}", "2026-01-01", "true", "1.5"]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, SMALL.count("\n") - 1), st.sampled_from(_VALUES)), max_size=6))
def test_values_of_any_type_in_any_place_are_a_fleet_or_an_input_error(changes: list[tuple[int, str]]) -> None:
    lines = SMALL.splitlines()
    for position, value in changes:
        key, equals, _ = lines[position].partition(" = ")
        lines[position] = f"{key}{equals}{value}" if equals else lines[position]
    _parses_or_refuses("\n".join(lines))
