"""Alerts and dashboard: of metrics that a real keeper has, and firing from the metrics of a really broken one."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from prometheus_client.parser import text_string_to_metric_families
from solders.keypair import Keypair

from tests.support import BOUND_S, KeeperConfig, KeeperProcess, World, until

pytestmark = pytest.mark.anyio

CONFIG = Path(__file__).parents[2] / "config"
ALERTS = CONFIG / "prometheus" / "alerts.yml"
ALERTMANAGER = CONFIG / "alertmanager" / "alertmanager.yml"
DASHBOARD = CONFIG / "grafana" / "dashboards" / "keeper.json"
RUNBOOK = CONFIG.parent / "docs" / "runbook.md"
NAME = re.compile(r"\b(?:keeper|process)_[a-z0-9_]+")
Samples = dict[str, float]

ALERTMANAGER_PROGRAM = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool (Prometheus) is not installed")


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def scrape(keeper: KeeperProcess) -> Samples:
    """The exposition as a scraper reads it: by series."""
    async with httpx.AsyncClient(base_url=keeper.url) as api:
        text = (await api.get("/metrics")).text
    return {
        sample.name
        + "{"
        + ",".join(f"{k}={json.dumps(v)}" for k, v in {"instance": "k", **sample.labels}.items())
        + "}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def well(keeper: KeeperProcess) -> Samples:
    """What is scraped once the gauges tell of a keeper that is ready, and of its balance."""
    with anyio.fail_after(BOUND_S):
        while True:
            samples = await scrape(keeper)
            if samples['keeper_ready{instance="k"}'] and samples['keeper_balance_lamports{instance="k"}']:
                return samples
            await anyio.sleep(0.1)


async def fired_by(keeper: KeeperProcess, before: Samples, wanted: set[str], folder: Path) -> set[str]:
    """The alerts that fire by what is scraped, as soon as those that are wanted do."""
    with anyio.fail_after(BOUND_S):  # the balance is read every ten seconds
        while True:
            fired = await anyio.to_thread.run_sync(firing, before, await scrape(keeper), folder)
            if wanted <= fired:
                return fired
            await anyio.sleep(0.2)


def firing(before: Samples, after: Samples, folder: Path) -> set[str]:
    """The alerts that fire five minutes after the series went from `before` to `after`, and stayed there."""
    series = [
        {"series": name, "values": f"{before.get(name, 0):.17g}x20 {value:.17g}x100"} for name, value in after.items()
    ]
    series.append({"series": 'up{job="keeper",instance="k"}', "values": "1x120"})

    nothing = {"expr": 'count by (alertname) (ALERTS{alertstate="firing"})', "eval_time": "10m", "exp_samples": []}
    test = {"interval": "15s", "input_series": series, "promql_expr_test": [nothing]}
    # JSON is YAML; and promtool says what it got where it expected nothing.
    file = folder / "test.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "15s", "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "got:" in said, said
    return set(re.findall(r'alertname=\\?"(\w+)', said.partition("got:")[2]))


def pages(fired: set[str]) -> set[str]:
    """Those of the alerts, all of one keeper, that wake somebody: Alertmanager's rules leave out the consequences."""

    def fits(alert: str, matchers: list[str]) -> bool:
        for matcher in matchers:
            name, kind, value = re.fullmatch(r'(\w+)(=~|!=|=)"(.*)"', matcher).groups()  # type: ignore[union-attr]
            assert name == "alertname"
            if (re.fullmatch(value, alert) is not None) is (kind == "!="):
                return False
        return True

    rules = yaml.safe_load(ALERTMANAGER.read_text())["inhibit_rules"]
    assert all(rule["equal"] == ["instance"] for rule in rules)
    left_out = {
        alert
        for rule in rules
        if any(fits(cause, rule["source_matchers"]) for cause in fired)
        for alert in fired
        if fits(alert, rule["target_matchers"])
    }
    severities = dict(re.findall(r"- alert: (\w+)\n(?:.*\n)*? +labels: \{severity: (\w+)\}", ALERTS.read_text()))
    return {alert for alert in fired - left_out if severities[alert] == "page"}


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", ALERTS.read_text())


@needs_promtool
def test_promtool_checks_the_rules() -> None:
    promtool("check", "rules", str(ALERTS))


@needs_promtool
def test_promtool_runs_the_rules_tests() -> None:
    promtool("test", "rules", str(ALERTS.with_name("alerts_test.yml")))


def test_every_alert_has_a_section_in_the_runbook_and_a_link_to_it() -> None:
    text, runbook = ALERTS.read_text(), RUNBOOK.read_text()
    for alert in alerts():
        assert f"{{{{ $externalLabels.runbook }}}}#{alert.lower()}" in text
        section = re.search(rf"^## {alert}\n(.*?)(?=^## |\Z)", runbook, re.M | re.S)
        assert section is not None, f"no section for {alert}"
        assert all(f"**{part}.**" in section[1] for part in ("Means", "Look", "Do")), alert


def test_one_fault_wakes_somebody_once() -> None:
    assert pages({"KeeperDown", "KeeperNotReady", "KeeperRpcDown"}) == {"KeeperDown"}
    assert pages({"KeeperJournalFailing", "KeeperNotReady", "KeeperSendingStopped"}) == {"KeeperJournalFailing"}
    assert pages({"KeeperFillWithoutPosition", "KeeperNotReady"}) == {"KeeperFillWithoutPosition", "KeeperNotReady"}


@pytest.mark.skipif(ALERTMANAGER_PROGRAM is None, reason="Alertmanager (Debian: prometheus-alertmanager) is not there")
async def test_alertmanager_itself_leaves_out_what_follows_from_another_fault(tmp_path: Path) -> None:
    """What `pages` says of the rules is what the program does with them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"127.0.0.1:{port}"
    flags = [f"--web.listen-address={address}", "--cluster.listen-address=", f"--storage.path={tmp_path}"]
    assert ALERTMANAGER_PROGRAM is not None
    process = await anyio.open_process([ALERTMANAGER_PROGRAM, f"--config.file={ALERTMANAGER}", *flags])
    fired = {"KeeperRpcDown", "KeeperNotReady", "KeeperWatchSilent", "KeeperPriceStale"}
    try:
        async with httpx.AsyncClient(base_url=f"http://{address}/api/v2") as api:
            active: set[str] = set()
            with anyio.fail_after(BOUND_S):
                while active != {"KeeperRpcDown", "KeeperDown"}:
                    with contextlib.suppress(httpx.HTTPError):
                        told = [{"labels": {"alertname": name, "instance": "a", "severity": "page"}} for name in fired]
                        told.append({"labels": {"alertname": "KeeperDown", "instance": "b", "severity": "page"}})
                        (await api.post("/alerts", json=told)).raise_for_status()
                        answer = (await api.get("/alerts", params={"inhibited": "false"})).json()
                        active = {alert["labels"]["alertname"] for alert in answer}
                    await anyio.sleep(0.1)
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
    assert active == pages(fired) | pages({"KeeperDown"})


async def test_every_metric_that_is_named_is_in_a_real_scrape(world: World, tmp_path: Path) -> None:
    config = KeeperConfig.beside(world, tmp_path)
    market, trader = world.market(), world.trader()
    world.place(trader, market, stop_price_1e6=95_000_000)
    order = world.place(trader, market, stop_price_1e6=98_000_000)
    async with KeeperProcess.running(config) as keeper:
        world.set_price(market, 97_000_000)
        await until(lambda: world.position(order))
        await anyio.sleep(2.2)
        async with httpx.AsyncClient(base_url=keeper.url) as api:
            text = (await api.get("/metrics")).text
    # A labelled metric without a sample has its name in the text all the same.
    there = {name for family in text_string_to_metric_families(text) for name in _names(family.name, family.type)}
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    expressions += [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    rules = [line for line in ALERTS.read_text().splitlines() if line.lstrip().startswith("expr:")]
    named = {name for expression in (*expressions, *rules) for name in NAME.findall(expression)}
    assert named - there == set()
    assert "_created" not in text


async def test_health_and_metrics_are_everybodys_and_do_not_tell_where_the_nodes_are(
    world: World, tmp_path: Path
) -> None:
    """A provider's host may name its customer. The log tells the operator which is which."""
    rpc = {"fallbacks": [{"url": "http://127.0.0.1:1"}], "probe_every_s": 0.2}
    async with (
        KeeperProcess.running(KeeperConfig.beside(world, tmp_path, rpc=rpc)) as keeper,
        httpx.AsyncClient(base_url=keeper.url) as api,
    ):

        async def told() -> str:
            paths = ("/metrics", "/healthz", "/readyz?verbose", "/livez?verbose")
            return "".join([(await api.get(path)).text for path in paths])

        with anyio.fail_after(20):
            while "fallback-1: " not in (text := await told()):  # noqa: ASYNC110 - it is another process
                await anyio.sleep(0.1)
    for host in ("127.0.0.1:1", world.net.rpc_url.removeprefix("http://")):
        assert host not in text
        assert host in keeper.config.log.read_text()


def _names(family: str, kind: str) -> list[str]:
    match kind:
        case "counter":
            return [f"{family}_total"]
        case "histogram":
            return [f"{family}{end}" for end in ("_bucket", "_count", "_sum")]
        case "info":
            return [f"{family}_info"]
    return [family]


# -- really broken keepers


@needs_promtool
async def test_a_node_that_is_gone_fires(tmp_path: Path) -> None:
    """RPC down and the watch silent."""
    async with World.open() as world:
        config = KeeperConfig.beside(world, tmp_path, rpc={"deadline_s": 0.5, "silence_s": 1.0, "probe_every_s": 0.3})
        keeper = await KeeperProcess.start(config)
        await keeper.ready()
        before = await well(keeper)
    wanted = {"KeeperRpcDown", "KeeperWatchSilent", "KeeperNotReady"}
    try:  # the chain is gone
        fired = await fired_by(keeper, before, wanted, tmp_path)
    finally:
        keeper.kill()
        await keeper.stop()
    assert "KeeperBalanceBelowFloor" not in fired
    assert pages(fired) == {"KeeperRpcDown"}


@needs_promtool
async def test_an_old_price_an_empty_purse_and_failures_fire(world: World, tmp_path: Path) -> None:
    """Price stale, balance low, failures rising; and the same keeper, well, fires nothing."""
    key = Keypair()
    world.bank.airdrop(key.pubkey(), 1_000_000_000)
    settings = {"min_balance_lamports": 100_000_000}
    config = KeeperConfig.beside(world, tmp_path, key=key, fees=settings, execution={"retry_budget": 1})
    market, stale = world.market(), world.market()
    poor = [world.trader(collateral_1e6=0) for _ in range(7)]
    trader = world.trader()
    world.place(trader, stale, stop_price_1e6=50_000_000)
    async with KeeperProcess.running(config) as keeper:
        before = await well(keeper)
        for one in poor:
            world.place(one, market, stop_price_1e6=98_000_000)
        world.set_price(market, 97_000_000)
        with config.reading() as journal:
            await until(lambda: len(journal.failures(limit=10)) == len(poor))
        world.bank.set_account(key.pubkey(), None)
        world.bank.airdrop(key.pubkey(), 50_000_000)
        world.bank.advance_clock(200)
        world.set_price(market, 97_000_000)
        wanted = {"KeeperPriceStale", "KeeperBalanceBelowFloor", "KeeperFailuresRising"}
        fired = await fired_by(keeper, before, wanted, tmp_path)
    # How long the loop and the disk are held up is the machine's doing, which runs other tests, too.
    calm = await anyio.to_thread.run_sync(firing, before, before, tmp_path)
    assert calm - {"KeeperLoopLag", "KeeperJournalSlow", "KeeperSlow"} == set()
    assert "KeeperRpcDown" not in fired
