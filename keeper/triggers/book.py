"""The book of resting orders: a price touches only the orders that it triggers.

Per market and direction the orders lie sorted by trigger price, so that the question "does this price trigger
anything" looks at one number. Trailing stops lie in a second order as well, by the price from which their stop is
worth moving (`conditions.threshold`): the high-water mark is on chain, in each order's stop price, so that the
threshold changes only when the order does, and a new high touches only the orders that it moves. One more order,
by `expires_at`, makes expiry cost only the expired.

    upsert, remove, suspend, resume, get    O(log n)
    crossed, ratchets, expired              O(1) when there is nothing, else O(k log n) for k orders
    orders, depth, nearest                  O(log n) plus what is read

Measured with 1,000,000 orders over 50 markets, a fifth of them trailing stops and a third with an expiry, on two
busy cores of an AMD EPYC (CPython 3.11, process time; best and median of 25 runs of 2,000 orders): 230 MB resident
for the book; a new order 28 and 36 us, a removal 24 and 36 us, a price that triggers nothing 2 us, 7 to 11 us for each
order that it triggers. A plain loop ran up to 1.7 times slower then than at rest. Loading takes 5 to 6 us of CPU an
order (`loading`).

The book is not thread-safe, and has no opinion on when to act: that is `decision`.
"""

from __future__ import annotations

import enum
import heapq
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Final

from solders.pubkey import Pubkey

from keeper.domain.orders import OnchainStatus, Order, OrderFields, OrderType, fields_of, order_of
from keeper.triggers.conditions import REVISION_0_2, Fires, is_earlier_stop, ratchet_threshold, ratcheted_stop
from keeper.triggers.loading import Loading, MarketRows, Shelf
from keeper.triggers.records import Records, pack, pack_fields, same_but_for_slot, same_order, slot_of, terms_of, unpack
from keeper.triggers.sorted_rows import SortedRows
from keeper.triggers.tombstones import DEFAULT_CAPACITY, Tombstones
from keeper.triggers.watchlist import Posture, Watchlist

__all__ = ["Book", "Change", "Level", "Posture"]


class Change(enum.StrEnum):
    """What a piece of news about an order did to the book."""

    NEW = "new"
    """It was not known, and is now."""
    CHANGED = "changed"
    """Something other than its slot is different now."""
    SAME = "same"
    """Nothing but the slot is newer."""
    STALE = "stale"
    """Ignored: the book knows of a newer slot, or of a removal that this news is older than."""
    UNEXECUTABLE = "unexecutable"
    """Known from now on, new or changed, but of a type that the program does not execute."""
    GONE = "gone"
    """It is no longer pending, so it is not in the book any more, if it ever was."""


@dataclass(frozen=True, slots=True)
class Level:
    """The armed orders of one market that share a trigger."""

    fires: Fires
    trigger_1e6: int
    orders: int
    size_1e6: int


_PREFIX: Final = struct.Struct(">Q")

# A name is several times faster to reach than an enum's member.
_ARMED: Final = Posture.ARMED
_TRAILING_STOP: Final = OrderType.TRAILING_STOP
_PENDING: Final = OnchainStatus.PENDING
_SAME: Final = Change.SAME
_CHANGED: Final = Change.CHANGED


class Book:
    """The pending orders that the keeper knows, those of unexecutable types included.

    `executable` are the types that the program's revision executes. `trailing_step_ppm` is the smallest step, in
    parts per million of the stop, by which a trailing stop is worth moving.
    """

    def __init__(
        self,
        executable: frozenset[OrderType] = REVISION_0_2,
        trailing_step_ppm: int = 1_000,
        *,
        tombstones: int = DEFAULT_CAPACITY,
    ) -> None:
        self._step_ppm = trailing_step_ppm
        self._records = Records()
        self._by_address = SortedRows()
        self._by_user = SortedRows()
        self._watch = Watchlist(executable, trailing_step_ppm)
        self._markets: list[MarketRows] = []
        self._numbers: dict[Pubkey, int] = {}
        self._postures: dict[bytes, Posture] = {}  # only those that are not ARMED
        self._tombstones = Tombstones(tombstones)

    def __len__(self) -> int:
        return len(self._records)

    def __contains__(self, address: Pubkey) -> bool:
        return self._row(bytes(address)) is not None

    def __repr__(self) -> str:
        return (
            f"Book(orders={len(self)}, watched={self._watch.watched}, markets={len(self._markets)}, "
            f"not_armed={len(self._postures)}, tombstones={len(self._tombstones)})"
        )

    # -- news

    def upsert(self, order: Order) -> Change:
        """Take in an order account as of its slot. What the book knows never goes back in slots.

        At equal slots the later news wins, with two exceptions that what arrives late can't undo: no order
        becomes pending again within a slot, and no trailing stop goes back. A suspended order is updated and
        stays suspended.
        """
        address = bytes(order.address)
        row = self._row(address)
        if row is None:
            return self._insert(address, order)
        known = self._records[row]
        slot, known_slot = order.slot, slot_of(known)
        if slot < known_slot:
            return Change.STALE
        if order.status is not _PENDING:
            self.close(order.address, slot)
            return Change.GONE
        terms = terms_of(known)
        # Comparing an address is cheaper than hashing one.
        number = terms[0] if self._markets[terms[0]].address == order.market else self._market(order.market).number
        record = pack(address, order, number)
        if slot == known_slot and is_earlier_stop(order, terms[5]):
            return Change.STALE
        if same_but_for_slot(known, record):
            self._records.set_slot(row, slot)
            return _SAME
        if not same_order(known, record):
            self._drop(row, address)
            return self._insert(address, order)
        self._records[row] = record
        posture = self._postures.get(address, _ARMED) if self._postures else _ARMED
        if posture is _ARMED:
            executes = self._watch.rekey(row, terms, order)
        else:
            self._watch.move(row, self._watch.places(known, posture), self._watch.places(record, posture))
            executes = self._watch.executes(order.order_type, order.side)
        return _CHANGED if executes else Change.UNEXECUTABLE

    def load(self, orders: Iterable[Order]) -> int:
        """Take in many orders, as `upsert` does one by one but in a fifth of the time when the book is empty; how many
        it knows then. See `loading`.
        """
        loading = self.loading()
        for order in orders:
            if order.pending:
                loading.add([(bytes(order.address), fields_of(order))], order.slot)
            else:
                self.upsert(order)
        loading.finish()
        return len(self)

    def loading(self) -> Loading:
        """Begin to take in many orders from their accounts' fields; one load at a time."""
        return Loading(
            Shelf(
                records=self._records,
                by_address=self._by_address,
                by_user=self._by_user,
                watch=self._watch,
                postures=self._postures,
                tombstones=self._tombstones,
                market=lambda address: self._market(Pubkey.from_bytes(address)),
                placed=self._loaded,
                upsert=lambda address, fields, slot: self.upsert(order_of(Pubkey.from_bytes(address), fields, slot)),
            )
        )

    def still(self, address: Pubkey, fields: OrderFields, slot: int) -> bool:
        """Whether the book holds this order exactly so, as of `slot` or earlier; then that is noted, and `upsert` would
        do no more. A fifth of its time: what a snapshot says of nearly every order.
        """
        raw = bytes(address)
        row = self._row(raw)
        number = self._numbers.get(Pubkey.from_bytes(fields[1]))
        if row is None or number is None or fields[9] != OnchainStatus.PENDING:
            return False
        known = self._records[row]
        if slot < slot_of(known) or not same_but_for_slot(known, pack_fields(raw, fields, number, slot)):
            return False
        self._records.set_slot(row, slot)
        return True

    def remove(self, address: Pubkey, slot: int) -> bool:
        """The account does not exist as of `slot`. True if the order was known and is not any more.

        News of the order from the same slot or a later one stands against it: an account can be created in a
        slot after that slot was first looked at, and an order that is forgotten is worse than one kept too long.
        """
        raw = bytes(address)
        row = self._row(raw)
        if row is None:
            self._tombstones.put(raw, slot)
            return False
        if slot <= slot_of(self._records[row]):
            return False
        self._drop(row, raw)
        self._tombstones.put(raw, slot)
        return True

    def close(self, address: Pubkey, slot: int) -> bool:
        """The order is not pending as of `slot`. True if it was known and is not any more.

        Unlike an absence this outweighs pending news of its own slot: the status never goes back to pending.
        """
        raw = bytes(address)
        row = self._row(raw)
        if row is not None:
            if slot < slot_of(self._records[row]):
                return False
            self._drop(row, raw)
        self._tombstones.put(raw, slot + 1)
        return row is not None

    # -- postures

    def posture(self, address: Pubkey) -> Posture:
        """What is watched of the order. ARMED for one that the book does not know and nobody suspended."""
        return self._postures.get(bytes(address), _ARMED) if self._postures else _ARMED

    def suspend(self, address: Pubkey) -> None:
        """Watch nothing of this order until `resume`.

        It may be unknown: then it is suspended from the moment it becomes known. A suspension outlives the
        order's removal, because a fork can bring an order back while the attempt at it may still land.
        """
        self._set_posture(bytes(address), Posture.SUSPENDED)

    def park(self, address: Pubkey) -> None:
        """Watch only this order's expiry until `resume`."""
        self._set_posture(bytes(address), Posture.PARKED)

    def expire(self, address: Pubkey) -> None:
        """The order is past its expiry: it stays known while its account exists, and nothing of it is watched."""
        self._set_posture(bytes(address), Posture.EXPIRED)

    def resume(self, address: Pubkey) -> None:
        """Watch everything of this order again."""
        self._set_posture(bytes(address), Posture.ARMED)

    # -- questions

    def get(self, address: Pubkey) -> Order | None:
        """The order, if it is known, whatever its posture."""
        row = self._row(bytes(address))
        return None if row is None else self._order(row)

    def slot(self, address: Pubkey) -> int | None:
        """The slot as of which the order is known, if it is."""
        row = self._row(bytes(address))
        return None if row is None else self._records.slot(row)

    def crossed(self, market: Pubkey, price_1e6: int, limit: int | None = None) -> list[Order]:
        """The armed orders whose condition this price meets, in the order in which the price passed them."""
        number = self._numbers.get(market)
        if number is None:
            return []
        return [self._order(row) for row in islice(self._watch.crossed(number, price_1e6), limit)]

    def ratchets(self, market: Pubkey, price_1e6: int, limit: int | None = None) -> list[tuple[Order, int]]:
        """The armed trailing stops that this price moves by a step or more, each with its new stop price."""
        number = self._numbers.get(market)
        if number is None:
            return []
        orders = (self._order(row) for row in islice(self._watch.ratchets(number, price_1e6), limit))
        return [(order, ratcheted_stop(price_1e6, order.trailing_distance_ppm, order.side)) for order in orders]

    def meets(self, order: Order, price_1e6: int) -> bool:
        """Whether this price meets the order's condition, whatever its posture."""
        return self._watch.meets(order, price_1e6)

    def ratchet(self, order: Order, price_1e6: int) -> int | None:
        """The stop to which this price moves the order, if that is a step worth making; else None."""
        if order.order_type is not _TRAILING_STOP or not self._watch.executes(order.order_type, order.side):
            return None
        new_stop_1e6 = ratcheted_stop(price_1e6, order.trailing_distance_ppm, order.side)
        if not is_earlier_stop(order, new_stop_1e6):
            return None  # not even in the order's favour: so it is for nearly all
        ratchet = ratchet_threshold(order, self._step_ppm)
        return new_stop_1e6 if ratchet is not None and ratchet.fires.met(price_1e6, ratchet.price_1e6) else None

    def expired(self, chain_time_s: float, limit: int | None = None) -> list[Order]:
        """The watched orders that are past `expires_at`, the longest past first."""
        return [self._order(row) for row in islice(self._watch.expired(chain_time_s), limit)]

    def counts(self) -> dict[tuple[Pubkey, OrderType], int]:
        """How many pending, unexpired orders there are, by market and type. Kept as orders come and go."""
        return {
            (market.address, order_type): count
            for market in self._markets
            for order_type, count in zip(OrderType, market.counts, strict=True)
            if count
        }

    def nearest(self, market: Pubkey, price_1e6: int, n: int) -> list[Order]:
        """The `n` armed orders that the price has to move least to trigger, up or down; those it meets first."""
        number = self._numbers.get(market)
        if number is None:
            return []
        falling = ((price_1e6 - key, row) for key, row in self._watch.falling(number))
        rising = ((key - price_1e6, row) for key, row in self._watch.rising(number))
        return [self._order(row) for _, row in islice(heapq.merge(falling, rising), n)]

    def depth(self, market: Pubkey) -> Iterator[Level]:
        """The market's armed orders by trigger, those that fire on a fall from the highest down, then the others
        from the lowest up. Take a page of it in one go: the book must not change in between.
        """
        for fires in Fires:
            yield from self.levels(market, fires)

    def levels(self, market: Pubkey, fires: Fires) -> Iterator[Level]:
        """One side of `depth`, from the trigger that the price meets first."""
        number = self._numbers.get(market)
        if number is None:
            return
        walk = self._watch.falling(number) if fires is Fires.AT_OR_BELOW else self._watch.rising(number)
        for trigger_1e6, pairs in groupby(walk, key=lambda pair: pair[0]):
            sizes = [self._order(row).size_1e6 for _, row in pairs]
            yield Level(fires, trigger_1e6, len(sizes), sum(sizes))

    def orders(
        self,
        *,
        user: Pubkey | None = None,
        market: Pubkey | None = None,
        after: Pubkey | None = None,
        limit: int = 100,
    ) -> list[Order]:
        """A page of the known orders, by address; the next one begins `after` the last address of this one."""
        start = -1 if after is None else _prefix(bytes(after))
        if user is not None:
            return self._orders_of(user, market, start, limit)
        index = self._by_address
        if market is not None:
            number = self._numbers.get(market)
            if number is None:
                return []
            index = self._markets[number].members
        return [self._order(row) for _, row in islice(index.ascending(start + 1), limit)]

    def older_than(self, slot: int, *, start: int = 0, scan: int = 5_000) -> tuple[list[Pubkey], int | None]:
        """Orders that nothing of `slot` or newer is known of: after a snapshot of that slot, the ones it lacks.

        Looks at about `scan` orders, from the cursor `start` on; the second value is the cursor to go on with, None
        at the end. A million are gone through in steps of a few milliseconds.
        """
        found: list[Pubkey] = []
        last = -1
        for looked, (prefix, row) in enumerate(self._by_address.ascending(start)):
            # Addresses that share a prefix are looked at together, or the cursor would step over the rest of them.
            if looked >= scan and prefix != last:
                return found, prefix
            last = prefix
            if self._records.slot(row) < slot:
                found.append(Pubkey.from_bytes(self._records.address(row)))
        return found, None

    # -- inside

    def _orders_of(self, user: Pubkey, market: Pubkey | None, start: int, limit: int) -> list[Order]:
        raw = bytes(user)
        mine = (self._order(row) for row in self._by_user.equal(_prefix(raw)) if self._records.user(row) == raw)
        picked = (o for o in mine if _prefix(bytes(o.address)) > start and market in (None, o.market))
        return heapq.nsmallest(limit, picked, key=lambda order: bytes(order.address))

    def _row(self, address: bytes) -> int | None:
        for row in self._by_address.equal(_PREFIX.unpack_from(address)[0]):
            if self._records.is_of(row, address):
                return row
        return None

    def _order(self, row: int) -> Order:
        record = self._records[row]
        return unpack(record, self._markets[terms_of(record)[0]].address)

    def _market(self, address: Pubkey) -> MarketRows:
        number = self._numbers.get(address)
        if number is None:
            number = self._numbers[address] = len(self._markets)
            self._markets.append(MarketRows(address, number))
            self._watch.add_market()
        return self._markets[number]

    def _loaded(self, twins: list[int]) -> None:
        """A load is in the indices, every order of it as armed: what was suspended meanwhile is not watched, and of an
        order that came twice the newer reading stays. `twins` are the rows whose prefix another one has.
        """
        again: list[Order] = []
        for row in twins:
            address = self._records.address(row)
            if self._row(address) != row:
                again.append(self._order(row))
                self._take_out(row, address, _ARMED)
        for address, posture in self._postures.items():
            known = self._row(address)
            if known is not None:
                record = self._records[known]
                self._watch.move(known, self._watch.places(record, _ARMED), self._watch.places(record, posture))
        for order in again:
            self.upsert(order)

    def _insert(self, address: bytes, order: Order) -> Change:
        if self._tombstones.refuses(address, order.slot):
            return Change.STALE
        if not order.pending:
            self.close(order.address, order.slot)
            return Change.GONE
        market = self._market(order.market)
        record = pack(address, order, market.number)
        row = self._records.add(record)
        prefix = _prefix(address)
        self._by_address.add(prefix, row)
        self._by_user.add(_prefix(bytes(order.user)), row)
        market.members.add(prefix, row)
        market.counts[order.order_type] += 1
        for index, key in self._watch.places(record, self._postures.get(address, _ARMED)):
            index.add(key, row)
        return Change.NEW if self._watch.executes(order.order_type, order.side) else Change.UNEXECUTABLE

    def _drop(self, row: int, address: bytes) -> None:
        posture = self._postures.get(address, _ARMED)
        self._take_out(row, address, posture)
        if posture is not Posture.SUSPENDED:
            self._postures.pop(address, None)

    def _take_out(self, row: int, address: bytes, posture: Posture) -> None:
        record = self._records[row]
        number, order_type = terms_of(record)[:2]
        market = self._markets[number]
        for index, key in self._watch.places(record, posture):
            index.remove(key, row)
        prefix = _prefix(address)
        self._by_address.remove(prefix, row)
        self._by_user.remove(_prefix(self._records.user(row)), row)
        market.members.remove(prefix, row)
        self._records.discard(row)
        if posture is not Posture.EXPIRED:
            market.counts[order_type] -= 1

    def _set_posture(self, address: bytes, posture: Posture) -> None:
        before = self._postures.get(address, _ARMED)
        row = self._row(address)
        if row is None and posture is not Posture.SUSPENDED:
            posture = _ARMED  # only a suspension means anything for an order that isn't known
        if posture is _ARMED:
            self._postures.pop(address, None)
        else:
            self._postures[address] = posture
        if row is None or before is posture:
            return
        record = self._records[row]
        self._watch.move(row, self._watch.places(record, before), self._watch.places(record, posture))
        if Posture.EXPIRED in (before, posture):
            number, order_type = terms_of(record)[:2]
            self._markets[number].counts[order_type] += -1 if posture is Posture.EXPIRED else 1


def _prefix(address: bytes) -> int:
    """The first eight bytes as a number that sorts as the bytes do: the key of an address in an index."""
    prefix: int = _PREFIX.unpack_from(address)[0]
    return prefix
