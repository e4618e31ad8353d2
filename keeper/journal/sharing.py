"""How keepers divide the markets among themselves: evenly, with as few changes as that takes, and nobody steals.

Each keeper finds its own share from what all of them see: who runs, which markets there are, and who has which. It
gives back what it has too much of, and takes of what is nobody's as much as it lacks. Whoever sees the same finds
shares that do not overlap; for as long as they see different things the leases keep them apart.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping


def share_of(me: str, names: Collection[str], markets: Iterable[str], held: Mapping[str, str]) -> frozenset[str]:
    """The markets that the keeper `me` is to have. `names` are the keepers that can work, `markets` all that there are,
    `held` says whose each is that is somebody's. None for a keeper that is not among `names`.
    """
    everything = sorted(set(markets) | {market for market, holder in held.items() if holder == me})
    ranks = sorted(set(names))
    if me not in ranks:
        return frozenset()
    free = [market for market in everything if market not in held]
    for rank, name in enumerate(ranks):
        quota = len(everything) // len(ranks) + (rank < len(everything) % len(ranks))
        has = [market for market in everything if held.get(market) == name]
        taken, free = free[: max(0, quota - len(has))], free[max(0, quota - len(has)) :]
        if name == me:
            return frozenset(has[:quota] + taken)
    raise AssertionError("one of the names is this keeper's")
