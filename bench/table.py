"""The README's table, from `results.json`: the goal beside what was measured, met or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

Row = tuple[str, str, str]


def table(results: dict[str, Any]) -> str:
    """GitHub's Markdown. A part that was not run has no rows."""
    machine = results["machine"]
    lines = ["| | goal | measured |", "|---|---|---|"]
    for rows in _ROWS:
        try:
            lines += [f"| {what} | {goal} | {measured} |" for what, goal, measured in rows(results)]
        except KeyError:
            continue
    lines += [
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, Python "
        f"{machine['python']}; a signature takes {machine['signature_us']} us, an fsync {machine['fsync_us']} us; the "
        "chain runs on the same machine.",
    ]
    return "\n".join(lines)


def with_table(readme: str, results: dict[str, Any]) -> str:
    """The README with the table between its marks. Raises ValueError when they are missing."""
    begin, end = "<!-- figures -->\n", "<!-- /figures -->"
    before, found, rest = readme.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError("README.md lacks the marks <!-- figures --> and <!-- /figures -->")
    return f"{before}{begin}{table(results)}\n{end}{after}"


def _tick(results: dict[str, Any]) -> Iterator[Row]:
    goals = {"100000": "p50 < 1.8 ms, p99 < 6 ms", "1000000": "p50 within 2 x that at 1,000"}
    for size, figures in results["tick_to_sent_ms"].items():
        measured = f"p50 {figures['p50']:.2f} ms, p99 {figures['p99']:.1f} ms"
        yield f"tick to bytes on the wire, nothing armed, {int(size):,} orders resting", goals.get(size, ""), measured
    for size, figures in results.get("tick_to_sent_armed_ms", {}).items():
        hits = 100 * results["armed_hit_rate"][size]
        measured = f"p50 {figures['p50']:.2f} ms, p99 {figures['p99']:.1f} ms; {hits:.0f} % left armed"
        yield f"the same, armed, {int(size):,} orders resting", "p50 < 0.5 ms, p99 < 2 ms", measured
    for size, figures in results["trigger_to_confirmed_ms"].items():
        measured = f"p50 {figures['p50']:.0f} ms, p99 {figures['p99']:.0f} ms"
        yield f"trigger to confirmed (400 ms slots), {int(size):,} resting", "", measured


def _walk(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["walk"]
    hits, sent = 100 * figures["armed_hit_rate"], figures["tick_to_sent_ms"]
    what = f"a walk of the demo's markets, {figures['executions']:,} executions"
    yield f"{what}: left armed", "> 95 %", f"{hits:.1f} %"
    yield f"{what}: tick to bytes on the wire", "", f"p50 {sent['p50']:.2f} ms, p99 {sent['p99']:.1f} ms"


def _arming(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["arming"]
    per_s = figures["signatures_per_s"]
    share = f"{100 * figures['core_share']:.1f} %, {figures['armed']:.0f} armed, {per_s:.0f}/s renewed"
    yield f"what arming costs at {figures['orders']:,} orders over 50 walking markets", "< 3 % of a core", share
    journal = figures["journal"]
    sizes = f"{journal['file_mb_first_third']:.1f} MB, then {journal['file_mb_last_third']:.1f} MB"
    yield f"the journal's file, {journal['hours']:.1f} hours of renewals", "flat", sizes


def _killed(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["killed"]
    first, twice = figures["ready_to_sent_s"], figures["executed_twice"]
    said = f"p50 {first['p50']:.2f} s, most {first['max']:.2f} s; {twice} executed twice"
    yield f"kill -9 with {figures['armed']:,} armed: from ready to the first execution", "< 1 s", said


def _instant(results: dict[str, Any]) -> Iterator[Row]:
    for name, what in (("default", "8 armed"), ("most_armed", "256 armed")):
        figures = results["instant"][name]
        rates, lags = figures["executions_per_s_runs"], figures["loop_lag_p99_ms_runs"]
        measured = (
            f"{rates['median']:,.0f}/s ({rates['min']:,.0f} to {rates['max']:,.0f}), "
            f"loop lag p99 {lags['median']:.0f} ms ({lags['min']:.0f} to {lags['max']:.0f})"
        )
        goal = ">= 2,000/s, lag p99 < 30 ms" if name == "default" else ""
        yield f"burst of {results['instant']['orders']:,}, a node that answers at once, {what}", goal, measured


def _burst(results: dict[str, Any]) -> Iterator[Row]:
    for size, figures in results["burst"].items():
        measured = (
            f"{figures['executions_per_s']:,.0f}/s, last confirmed after {figures['last_confirmed_s']:.2f} s, "
            f"{figures['duplicates']:.0f} duplicates, {figures['positions']:,.0f} positions"
        )
        yield f"burst of {int(size):,} on one tick", ">= 1,000/s" if size == "2000" else "", measured
    yield "oracle asked, as a share of prices read", "<= 5 %", f"{100 * results['oracle_ask_ratio']:.2f} %"


def _capacity(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["capacity_1m"]
    name = f"{figures['orders']:,} orders over 50 markets"
    yield f"{name}: resident memory", "< 500 MB", f"{figures['rss_mb']:,} MB"
    yield f"{name}: loaded", "< 15 s", f"{figures['load_s']:.1f} s"
    yield f"{name}: an update", "< 20 us", f"{figures['update_us']:.1f} us"
    yield f"{name}: a tick that triggers nothing", "< 50 us", f"{figures['idle_tick_us']:.1f} us"


def _naive(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["naive"]
    rate = f"{figures['burst_ratio']:,.0f} x (theirs: {figures['naive_executions_per_s']:.1f}/s)"
    yield "executions a second, against the naive keeper", ">= 50 x", rate
    both = f"{figures['latency_p50_ms']:,} ms, theirs {figures['naive_latency_p50_ms']:,} ms"
    latency = f"1/{1 / figures['latency_ratio']:.0f} ({both})"
    yield "trigger to confirmed, against the naive keeper", "<= 1/20", latency


def _decode(results: dict[str, Any]) -> Iterator[Row]:
    yield "decoding, against anchorpy", ">= 100 x", f"{results['decode_ratio']:.0f} x"


def _stream(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["stream"]["per_core_s"]["median"]
    yield "a Yellowstone stream: updates into the book, on one core", ">= 10,000/s", f"{figures:,.0f}/s"


def _journal(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["journal"]
    yield "journal: intents a second, fsynced", "", f"{figures['intents_per_s']:,.0f}"
    yield "journal of 1,000,000 executions: the slowest query", "p50 < 5 ms", f"p50 {figures['query_ms_p50']:.2f} ms"


def _explain(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["explain_s"]
    measured = f"p50 {figures['p50']:.2f} s, least {figures['min']:.2f} s"
    yield "`keeper explain` at 1,000,000 executions, start to end", "< 1 s", measured


def _placing(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["place_order_ms"]
    yield (
        "placing over HTTP, 100/s",
        "p50 < 20 ms, p99 < 100 ms",
        f"p50 {figures['p50']:.1f} ms, p99 {figures['p99']:.0f} ms",
    )


def _readers(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["stream_readers"]
    measured = f"executions a second: {figures['executions_ratio']:.2f}, tick to sent: {figures['sent_p50_ratio']:.2f}"
    yield f"{figures['readers']:,} stream readers, what they cost", "<= 1.10", measured


def _strangers(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["strangers"]
    without, beside = (figures[f"tick_to_sent_ms_{side}"] for side in ("without", "with"))
    rate = sum(figures["requests_per_s"]) / len(figures["requests_per_s"])
    measured = (
        f"{figures['sent_p50_ratio']:.2f} at {rate:,.0f}/s (p50 {without['p50']:.2f} and {beside['p50']:.2f} ms, "
        f"p99 {without['p99']:.1f} and {beside['p99']:.1f} ms)"
    )
    yield "tick to sent, 1,000 requests a second of ten strangers, a node of 50 calls/s", "<= 1.20", measured


def _replay(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["replay"]
    what = f"{figures['seconds']:,} s of {figures['markets']} markets and {figures['orders']:,} orders"
    yield f"{what}: replayed", "< 300 s", f"{figures['replay_s']:.0f} s"
    yield (
        f"{what}: recorded",
        "",
        f"{figures['mb_an_hour']:.1f} MB an hour, {figures['tape_us']['median']:.1f} us a price",
    )


def _scale(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["scale"]
    for name, what, goal in (
        ("killed_s", "kill -9 of the working keeper to the next execution (lease 3 s)", "p99 < 4 s"),
        ("stopped_s", "the longest that an order waits while another takes over, after SIGTERM", "p99 < 0.3 s"),
        ("drained_s", "the same, after `keeper drain`", "p99 < 0.3 s"),
        ("stopped_with_many_s", "the same, after SIGTERM, with 20,000 more orders resting", ""),
    ):
        if name in figures:
            yield what, goal, f"p50 {figures[name]['p50']:.2f} s, p99 {figures[name]['p99']:.2f} s"
    yield "burst of 2,000, PostgreSQL against SQLite", ">= 60 %", f"{100 * figures['burst_ratio']['median']:.0f} %"
    later = f"{figures['tick_later_ms']['median']:.2f} ms"
    yield "tick to sent p50, PostgreSQL later than SQLite", "< 1 ms", later


def _sharing(results: dict[str, Any]) -> Iterator[Row]:
    figures = results["scale"]["shared"]
    many = f"{figures['orders']:,} orders over {figures['markets']} markets on {figures['keepers']} keepers"
    yield (
        f"{many}: the share with the most orders, above the mean",
        "<= 20 %",
        f"{100 * figures['uneven']['max']:.0f} %",
    )
    for word, what in (
        ("joined", "a keeper comes"),
        ("stopped", "one is told to stop"),
        ("killed", "one was killed, and its leases are over"),
    ):
        took, waited = figures[f"{word}_s"], figures[f"{word}_wait_s"]
        yield (
            f"the same, {what}: until all work on even shares",
            "< 2 s",
            f"p50 {took['p50']:.2f} s, at most {took['max']:.2f} s; an order waited at most {waited['max']:.2f} s",
        )
    yield "the same: markets with two holders", "never", f"{figures['two_holders']} of {figures['takings']:,} takings"


_ROWS: tuple[Callable[[dict[str, Any]], Iterator[Row]], ...] = (
    _tick,
    _walk,
    _arming,
    _killed,
    _burst,
    _instant,
    _capacity,
    _naive,
    _decode,
    _stream,
    _journal,
    _explain,
    _placing,
    _readers,
    _strangers,
    _replay,
    _scale,
    _sharing,
)
