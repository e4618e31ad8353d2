"""A worker: plays its share of the episodes on a stage of its own, and prints a line of JSON for each."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from keeper.demo.validator import Validator
from tests.chaos.embedded import EmbeddedStage
from tests.chaos.episode import Episode, Outcome
from tests.chaos.scenario import Scenario, Sharing, draw
from tests.chaos.stage import Stage
from tests.chaos.validator import ValidatorStage

EPISODES_PER_JOURNAL: Final = 40
_ALPENGLOW_FROM: Final = (2_000, None, 0)
"""By worker: one's chain turns to Alpenglow after 40 s, the next one's never does, the third's is so from the start."""


async def work(
    seed: int,
    episodes: Sequence[int],
    evidence: Path,
    *,
    keep_going: bool,
    validator: Validator | None,
    keepers: int = 1,
    planted: Sequence[str] = (),
    sharing: Sharing = Sharing.DRAWN,
) -> None:
    """Play these episodes, on the embedded chain or on a real validator, with several keepers on the former. What a
    violation leaves behind is copied into `evidence`.
    """
    with tempfile.TemporaryDirectory(prefix="keeper-chaos-") as folder:
        turns = _ALPENGLOW_FROM[min(episodes, default=0) % len(_ALPENGLOW_FROM)]
        if keepers > 1:
            # Not before: it needs psycopg.
            from tests.chaos.several import SeveralStage

            first = draw(seed, min(episodes, default=0), keepers=keepers, sharing=sharing)
            opened = SeveralStage.several(
                Path(folder), keepers, planted, seed=str(seed), alpenglow_from=turns, like=first
            )
        elif validator is None:
            opened = EmbeddedStage.open(Path(folder), seed=str(seed), alpenglow_from=turns)
        else:
            opened = ValidatorStage.open(Path(folder), validator, seed=str(seed))
        async with opened as stage:
            for n, episode in enumerate(episodes, 1):
                scenario = draw(seed, episode, keepers=stage.keepers, lease_s=stage.lease_s, sharing=sharing)
                kind = scenario.markets, scenario.forgotten
                if n % EPISODES_PER_JOURNAL == 0 or kind != (stage.shared_markets, stage.forgotten):
                    await stage.new_journal(scenario.markets, forgotten=scenario.forgotten)
                outcome = await _one(stage, scenario, seed, episode, evidence)
                if outcome.violations and not keep_going:
                    return
                if outcome.violations:
                    # What is broken stays broken: the next episode must not be blamed for it.
                    stage.witness.violations.clear()
                    stage.lives.bad_end = None
                    await stage.new_journal(stage.shared_markets, forgotten=stage.forgotten)


async def _one(stage: Stage, scenario: Scenario, seed: int, episode: int, evidence: Path) -> Outcome:
    before = _counters(stage)
    begun = time.monotonic()
    outcome = await Episode(stage, scenario).play()
    # A journal that is damaged or contradicts itself is found here, while the keeper goes on writing it.
    outcome.violations += [
        f"the journal: {finding.what}: {finding.subject} {finding.detail}" for finding in stage.home.verify()
    ]
    counts = outcome.counts + (_counters(stage) - before)
    counts["episodes with shared markets"] += scenario.markets > 1
    counts["episodes in which one does not share"] += scenario.forgotten
    line = {
        "episode": episode,
        "orders": outcome.orders,
        "seconds": round(time.monotonic() - begun, 3),
        "converge_s": round(outcome.converge_s, 3),
        "counts": dict(counts),
        "violations": outcome.violations,
    }
    if outcome.violations:
        line["evidence"] = str(_keep(stage, scenario, outcome, evidence / f"seed-{seed}-episode-{episode}"))
    print(json.dumps(line), flush=True)
    return outcome


def _counters(stage: Stage) -> Counter[str]:
    counts: Counter[str] = Counter()
    for proxy in stage.proxies:
        counts.update({f"fault {kind}": n for kind, n in proxy.injected.items()})
        counts["requests"] += proxy.requests
    counts.update({f"chain {name}": n for name, n in stage.chain_faults.items()})
    counts.update({f"kill {point}": n for point, n in stage.lives.kills.items()})
    counts.update(stage.counts())
    counts["lives"] = stage.lives.lives
    counts["starts refused"] = stage.lives.refused_starts
    counts["sends"] = len(stage.witness.sends)
    return counts


def _keep(stage: Stage, scenario: Scenario, outcome: Outcome, folder: Path) -> Path:
    """The journal, the keeper's log, the plan and every send, for whoever looks into it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(stage.evidence, folder, ignore=shutil.ignore_patterns("key.json"))
    (folder / "journal.jsonl").write_bytes(b"".join(stage.home.export()))
    for log in stage.folder.glob("*.log"):
        shutil.copy(log, folder)  # the validator's own
    (folder / "scenario.json").write_text(json.dumps(dataclasses.asdict(scenario), indent=1, default=str))
    (folder / "sends.json").write_text("\n".join(json.dumps(send) for send in stage.witness.sends))
    (folder / "violations.txt").write_text("\n".join(outcome.violations))
    return folder


def share(episodes: range, worker: int, workers: int) -> list[int]:
    """Every `workers`-th episode. Pairs stay together: an even one has a crash point, the odd one mostly not."""
    return [episode for episode in episodes if episode // 2 % workers == worker]
