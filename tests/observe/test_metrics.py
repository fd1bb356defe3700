"""What is counted, how the counts of many processes become one, and the text that Prometheus reads."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from presign_proxy.core.decision import Deny, Facts
from presign_proxy.errors import STATUS
from presign_proxy.observe.audit_record import Outcome
from presign_proxy.observe.meter import LIMITS, Meter
from presign_proxy.observe.metrics import BUCKETS, FAMILIES, MAX_CONNECTIONS, OTHER, Snapshot, Totals, add
from presign_proxy.observe.process import process_figures
from presign_proxy.observe.prometheus import render
from support.deciding import ask, connection, registry, request, sent, signed
from support.documents import DOCS
from support.places import ROOT

SAMPLE = re.compile(r"\b((?:presign|process)_[a-z_]+)\b")


def samples(snapshot: Snapshot) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What Prometheus itself makes of the text."""
    text = render(snapshot).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def shown(snapshot: Snapshot, name: str, **labels: str) -> float:
    return samples(snapshot)[name, tuple(sorted(labels.items()))]


def refusal(name: str | None = None, code: str = "expired", *, verified: bool = True, **more: Any) -> Deny:
    facts = Facts("req_x", "GET", "10.0.0.1", "presign", "query", verified=verified)
    facts.known = connection(name) if name else None
    return Deny(code, "why", "json", facts, **more)


def test_a_granted_request_is_counted_with_its_bytes_and_times() -> None:
    meter = Meter()
    outcome = Outcome(200, 200, bytes_in=7, bytes_out=11, duration=0.3, upstream_duration=0.02)
    meter.count(sent(request(signed())), outcome)
    taken = meter.snapshot()
    labels = {"decision": "forward", "code": "", "scheme": "presign", "carrier": "query", "status": "2xx"}
    assert shown(taken, "presign_requests_total", **labels) == 1
    assert (
        shown(taken, "presign_connection_requests_total", connection="conn", decision="forward", code="") == 1
    )
    assert shown(taken, "presign_bytes_total", direction="in") == 7
    assert shown(taken, "presign_bytes_total", direction="out") == 11
    assert shown(taken, "presign_request_duration_seconds_sum") == 0.3
    assert shown(taken, "presign_request_duration_seconds_bucket", le="0.25") == 0
    assert shown(taken, "presign_request_duration_seconds_bucket", le="0.5") == 1
    assert shown(taken, "presign_request_duration_seconds_bucket", le="+Inf") == 1
    assert shown(taken, "presign_upstream_response_seconds_bucket", le="0.025") == 1


def test_a_refused_request_is_no_latency_and_names_its_code() -> None:
    meter = Meter()
    meter.count(refusal("conn"), Outcome(403, duration=5))
    taken = meter.snapshot()
    assert shown(taken, "presign_request_duration_seconds_count") == 0
    assert (
        shown(taken, "presign_connection_requests_total", connection="conn", decision="deny", code="expired")
        == 1
    )


@pytest.mark.parametrize(
    ("limit", "kind"), [("rate-60s-client", "rate"), ("uses", "uses"), ("../evil", "other")]
)
def test_a_limit_is_counted_by_its_kind(limit: str, kind: str) -> None:
    meter = Meter()
    meter.count(refusal("conn", "limited", limit=limit), Outcome(429))
    assert shown(meter.snapshot(), "presign_limited_total", kind=kind) == 1


def test_guessing_names_of_connections_makes_no_series() -> None:
    """Whoever has no key cannot fill the places that connections have, nor the memory."""
    meter = Meter()
    known = registry(*(connection(f"conn{number}") for number in range(50)))
    for number in range(50):
        target = f"/api/proxy/conn{number}/v1/x?" + signed().partition("?")[2]
        decision = ask(request(target), known)
        assert isinstance(decision, Deny)
        meter.count(decision, Outcome(403))
    taken = meter.snapshot()
    assert taken["presign_connection_requests_total"] == []
    assert len(taken["presign_requests_total"]) == 1


def test_labels_do_not_explode_with_the_connections() -> None:
    meter = Meter()
    grant = sent(request(signed()))
    for number in range(3 * MAX_CONNECTIONS):
        facts = replace(grant.facts, known=connection(f"c{number}"))
        meter.count(grant._replace(facts=facts), Outcome(200))
    series = meter.snapshot()["presign_connection_requests_total"]
    assert len(series) == MAX_CONNECTIONS + 1
    assert [[OTHER, "forward", ""], 2 * MAX_CONNECTIONS] in series


def test_labels_do_not_explode_with_what_clients_and_upstreams_say() -> None:
    meter = Meter()
    facts = [
        Facts("r", method, scheme=s, carrier=c)
        for method in ("GET", "X" * 32)
        for s, c in ((None, None), ("presign", "key"), ("source", "path"))
    ]
    for status in (None, 0, 99, 100, 204, 302, 404, 599, 600, 999, 65000):
        for code in STATUS:
            for one in facts:
                meter.count(Deny(code, f"detail {status}", "json", one), Outcome(status))
    found = meter.snapshot()["presign_requests_total"]
    assert len(found) <= len(STATUS) * 3 * 7


def test_counting_costs_a_request_next_to_nothing() -> None:
    """Measured 1.5 µs; the bound leaves room for a busy machine."""
    meter, grant = Meter(), sent(request(signed()))
    outcome = Outcome(200, 200, 10, 10, 0.01, upstream_duration=0.01)
    best = 1.0
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(1000):
            meter.count(grant, outcome)
        best = min(best, (time.perf_counter() - begun) / 1000)
    assert best < 5e-6


# -- adding up ------------------------------------------------------------------------------------------


def counted(connections: int = 1, gauge: int = 0) -> Snapshot:
    meter = Meter()
    grant = sent(request(signed()))
    for number in range(connections):
        meter.count(grant._replace(facts=replace(grant.facts, known=connection(f"c{number}"))), Outcome(200))
    return meter.snapshot() | {
        "presign_in_flight": [[[], gauge]],
        "presign_config_stale": [[[], gauge]],
        "presign_store_up": [[["sqlite"], gauge]],
    }


def test_counters_are_added_and_gauges_each_in_its_way() -> None:
    total = add([counted(gauge=1), counted(gauge=0), counted(gauge=1)])
    labels = {"connection": "c0", "decision": "forward", "code": ""}
    assert shown(total, "presign_connection_requests_total", **labels) == 3
    assert shown(total, "presign_request_duration_seconds_count") == 3
    assert shown(total, "presign_in_flight") == 2
    assert shown(total, "presign_config_stale") == 1
    assert shown(total, "presign_store_up", store="sqlite") == 0


def test_what_a_worker_of_another_release_says_is_left_out() -> None:
    assert add([{"presign_of_tomorrow": [[[], 1]]}]) == {}
    assert render({"presign_of_tomorrow": [[[], 1]]}) == b""


def test_snapshots_survive_the_way_to_another_process() -> None:
    taken = counted() | process_figures()
    assert add([json.loads(json.dumps(taken))]) == add([taken])
    assert render(json.loads(json.dumps(taken))) == render(taken)


values = st.integers(0, 10**6)
snapshots = st.fixed_dictionaries(
    {},
    optional={
        "presign_passed_total": values.map(lambda value: [[[], value]]),
        "presign_limited_total": st.dictionaries(st.sampled_from(LIMITS), values).map(
            lambda found: [[[kind], value] for kind, value in found.items()]
        ),
        "presign_in_flight": values.map(lambda value: [[[], value]]),
        "presign_request_duration_seconds": st.lists(
            values, min_size=len(BUCKETS) + 1, max_size=len(BUCKETS) + 1
        ).map(lambda counts: [[[], [counts, sum(counts)]]]),
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(snapshots, max_size=5), st.lists(snapshots, max_size=5))
def test_it_does_not_matter_in_which_order_or_groups_figures_are_added(
    some: list[Snapshot], others: list[Snapshot]
) -> None:
    assert samples(add([*some, *others])) == samples(add([add(others), add(some)]))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["count", "die"])), max_size=40))
def test_a_worker_that_is_restarted_takes_no_counter_back(story: list[tuple[str, str]]) -> None:
    totals, lives, counts, before = Totals(), dict.fromkeys("abc", 0), dict.fromkeys("abc", 0), 0
    for worker, happens in story:
        if happens == "die":
            totals.lost((worker, lives[worker]))
            lives[worker], counts[worker] = lives[worker] + 1, 0
        else:
            counts[worker] += 1
            taken: Snapshot = {"presign_passed_total": [[[], counts[worker]]], "presign_in_flight": [[[], 1]]}
            totals.update((worker, lives[worker]), taken)
        total = totals.total()
        now = total.get("presign_passed_total", [[[], 0]])[0][1]
        assert now >= before
        before = now
        in_flight = total.get("presign_in_flight", [[[], 0]])[0][1]
        assert in_flight == sum(count > 0 for count in counts.values())
    assert before == sum(happens == "count" for _, happens in story)


def test_no_counter_goes_back_when_a_worker_dies_that_named_more_than_there_is_room_for() -> None:
    """Prometheus takes that for a restart, and adds all of it once more."""
    totals = Totals()

    def update(worker: str, names: range, count: int) -> None:
        series = [[[f"c{number}", "forward", ""], count] for number in names]
        totals.update(worker, {"presign_connection_requests_total": series})

    def total() -> dict[tuple[str, ...], int]:
        return {tuple(labels): value for labels, value in totals.total()["presign_connection_requests_total"]}

    update("a", range(MAX_CONNECTIONS - 10), 5)
    totals.lost("a")
    update("b", range(MAX_CONNECTIONS - 10, MAX_CONNECTIONS + 500), 7)
    update("c", range(MAX_CONNECTIONS + 400, MAX_CONNECTIONS + 600), 9)
    before = total()
    assert len(before) <= MAX_CONNECTIONS + 1
    for worker in ("b", "c"):
        totals.lost(worker)
        after = total()
        assert {name: value for name, value in before.items() if after.get(name, 0) < value} == {}
        before = after


def test_workers_that_die_for_ever_leave_a_bounded_memory() -> None:
    totals = Totals()
    for worker in range(5):
        meter, grant = Meter(), sent(request(signed()))
        for number in range(600):
            facts = replace(grant.facts, known=connection(f"w{worker}c{number}"))
            meter.count(grant._replace(facts=facts), Outcome(200))
        totals.update(worker, meter.snapshot())
        totals.lost(worker)
    series = totals.total()["presign_connection_requests_total"]
    assert len(series) <= MAX_CONNECTIONS + 1
    assert sum(value for _, value in series) == 5 * 600


# -- the text, and who reads it -------------------------------------------------------------------------


def test_a_name_cannot_end_its_label() -> None:
    taken: Snapshot = {"presign_connection_requests_total": [[['a"} 1\nevil 1', "forward", ""], 1]]}
    assert samples(taken) == {
        (
            "presign_connection_requests_total",
            (("code", ""), ("connection", 'a"} 1\nevil 1'), ("decision", "forward")),
        ): 1
    }


def test_every_metric_is_documented_with_its_labels() -> None:
    rows = re.findall(r"^\| `(\w+)(?: \{([\w, ]*)\})?` \| (\w+) \|", DOCS["observing.md"], re.MULTILINE)
    documented = {
        name: (kind, tuple(filter(None, labels.replace(" ", "").split(",")))) for name, labels, kind in rows
    }
    assert documented == {name: (family.kind, family.labels) for name, family in FAMILIES.items()}


def test_names_are_as_prometheus_wants_them() -> None:
    for name, family in FAMILIES.items():
        assert (family.kind == "counter") == name.endswith("_total")
        assert family.help.endswith(".")


def known_samples() -> set[str]:
    suffixes = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + end for name, family in FAMILIES.items() for end in suffixes.get(family.kind, ("",))}


def dashboard_queries() -> list[str]:
    board = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text("utf-8"))
    panels = [inner for panel in board["panels"] for inner in (panel, *panel.get("panels", ()))]
    variables = [str(one.get("query", "")) for one in board["templating"]["list"]]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())] + variables


def alert_rules() -> list[dict[str, Any]]:
    rules = yaml.safe_load((ROOT / "deploy/alerts.yaml").read_text("utf-8"))
    return [rule for group in rules["groups"] for rule in group["rules"]]


def test_the_dashboard_asks_for_nothing_that_is_not_there() -> None:
    queries = dashboard_queries()
    assert len(queries) > 10
    for query in queries:
        assert set(SAMPLE.findall(query)) <= known_samples(), query
    used = set(SAMPLE.findall(" ".join(queries)))
    assert {"presign_requests_total", "presign_request_duration_seconds_bucket"} <= used


def test_alerts_ask_for_nothing_that_is_not_there_and_are_documented() -> None:
    rules = alert_rules()
    assert len(rules) > 5
    for rule in rules:
        names = set(SAMPLE.findall(rule["expr"]))
        assert names or "up{" in rule["expr"]
        assert names <= known_samples(), rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert f"`{rule['alert']}`" in DOCS["observing.md"]


def test_labels_in_queries_exist() -> None:
    """Each `{label=…}` and `by (label)` of the dashboard and the alerts is of the metric it stands at."""
    for query in [*dashboard_queries(), *(rule["expr"] for rule in alert_rules())]:
        names = [re.sub(r"_(bucket|sum|count)$", "", name) for name in SAMPLE.findall(query)]
        allowed = {
            label for name in names for label in (FAMILIES.get(name) or FAMILIES[name + "_count"]).labels
        }
        allowed |= {"instance", "job", "le"}
        said = {
            label
            for inner in re.findall(r"\{([^}]*)\}", query)
            for label in re.findall(r"(\w+)\s*[=!]", inner)
        }
        said |= {one.strip() for inner in re.findall(r"\bby \(([^)]*)\)", query) for one in inner.split(",")}
        assert said <= allowed, query
