"""Every setting of the keeper, in one frozen model.

Order of precedence: flags, then `KEEPER_*` in the environment (`__` between levels), then the TOML file, then
the defaults here. Every number has its unit in its name or its description. Secrets (RPC URLs may hold a key)
are `SecretStr`: they show as stars wherever the settings are printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal, Self, cast

from pydantic import BaseModel, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from keeper.config.crank import CrankSettings
from keeper.config.fields import Address, Digest, Network, Origin, PostgresUrl, Section, Share
from keeper.config.senders import tip_problem
from keeper.config.sources import PriceSettings, RpcSettings

CALLS_A_TURN: Final = 5
"""A loop may wait for so many calls, each up to its deadline, and still counts as slow, not as stuck."""


class ProgramSettings(Section):
    """The program that the keeper serves."""

    idl: str = Field("0.2", description='"0.1" or "0.2" for a packaged IDL, or the path of an IDL file')
    id: Address | None = Field(None, description="program id; by default the address in the IDL")
    accept_fills_without_position: bool = Field(
        False,
        description="execute on a revision whose fills create no position (0.1). A trader's order is then marked "
        "filled with nothing behind it; say yes only if something else opens the position",
    )


class KeySettings(Section):
    """The keeper's own key: it pays the fees and signs the executions."""

    file: Path | None = Field(None, description="keypair file, the JSON that solana-keygen writes")


class JournalSettings(Section):
    """The journal: what was attempted, durable before it is sent."""

    path: Path = Field(Path("keeper.sqlite"), description="SQLite file; one keeper at a time")
    url: PostgresUrl | None = Field(
        None,
        description="instead of a file: the URL of a PostgreSQL database, as libpq takes it; it may name several hosts",
    )
    retention_days: float = Field(
        30, ge=0.001, description="ended orders and attempts are removed after so many days, or parts of one"
    )
    inline_below_ms: float = Field(
        8.0,
        ge=0,
        le=100,
        description="a lone order is committed on the event loop's thread while commits take no longer; 0: never. "
        "With a URL it is not",
    )

    @property
    def place(self) -> Path | str:
        """The database's URL with its password, or the file when there is none: for whoever opens it."""
        return self.path if self.url is None else self.url.get_secret_value()


class TriggerSettings(Section):
    """When the keeper acts."""

    max_price_age_s: float = Field(
        60.0,
        gt=0,
        le=300,
        description="a price older than so many seconds decides nothing (the program refuses at 300)",
    )
    trailing_step_ppm: int = Field(
        1_000,
        ge=1,
        le=1_000_000,
        description="a trailing stop is moved on chain in steps of at least so many millionths",
    )
    breaker_trip: Share | None = Field(
        0.05, description="a price that jumps by more than this share between updates pauses its market"
    )
    breaker_settle: Share = Field(0.02, description="updates that differ by less than this share let it settle")


class ExecutionSettings(Section):
    """How the keeper sends, and how often it tries."""

    dry_run: bool = Field(False, description="do everything but send, and record what would have been sent")
    retry_budget: int = Field(5, ge=1, le=100, description="failed attempts that an order may cost")
    first_pause_s: float = Field(1.0, gt=0, description="pause before the first retry, in seconds; it doubles")
    longest_pause_s: float = Field(60.0, gt=0, description="longest pause between retries, in seconds")
    attempts_per_hour: int = Field(30, ge=1, description="ceiling on all attempts at one order within an hour")
    max_in_flight: int = Field(4_096, ge=1, le=100_000, description="attempts that may be open at once")
    resend_every_s: float = Field(2.0, gt=0, description="how often the same bytes are sent again, in seconds")
    finality_every_s: float = Field(
        2.0, gt=0, description="how often finality, and the height that expiry is judged by, is asked for, in seconds"
    )
    armed_a_side: int = Field(
        8,
        ge=0,
        le=256,
        description="executions that are signed and journaled before the price comes: so many of each market for a "
        "falling and for a rising price, of the orders nearest to their triggers; 0: none",
    )
    armed_signatures_per_s: float = Field(
        50.0, gt=0, le=1_000, description="signatures a second for that at most; each is renewed every 20 seconds"
    )
    account_every_s: float = Field(
        5.0, gt=0, description="how often the accounts of users who could not pay are read again, in seconds"
    )


class FeeSettings(Section):
    """What a transaction may cost, and what may leave the keeper's key."""

    unit_limit: int = Field(120_000, ge=1_000, le=1_400_000, description="compute units until a limit is learnt")
    unit_margin: float = Field(0.15, ge=0, le=2, description="share of units requested on top of the most seen")
    unit_price_micro_lamports: int = Field(1_000, ge=0, description="priority fee, micro-lamports per compute unit")
    percentile: int | None = Field(
        None,
        ge=1,
        le=99,
        description="pay at least this percentile of the recent priority fees for the markets; unset: a fixed price",
    )
    retry_factor: float = Field(1.5, ge=1, le=10, description="the price is multiplied by it at each retry")
    cap_lamports: int = Field(
        1_000_000, ge=5_000, description="most that the fee of one transaction may be, in lamports, its tip included"
    )
    tip_lamports: int = Field(
        0,
        ge=0,
        description="what an execution pays a sender that wants a tip (rpc.senders), in lamports, when it lands "
        "without an error; within fees.cap_lamports",
    )
    tip_from_attempt: int = Field(
        1, ge=1, le=100, description="the first attempt at an order that pays it, of those that fail; 1: every one"
    )
    daily_outflow_cap_lamports: int = Field(
        20_000_000_000,
        ge=5_000,
        description="most that may leave the keeper's key on a UTC day, in lamports: fees, tips, and the rent of the "
        "positions that fills create (about 3,720,000 each)",
    )
    min_balance_lamports: int = Field(
        50_000_000,
        ge=0,
        description="what would take the balance of the keeper's key below this is not sent, in lamports; what is in "
        "flight counts",
    )


class HttpSettings(Section):
    """The API."""

    host: str = Field("127.0.0.1", description="address to listen on; loopback unless you put a proxy before it")
    port: int = Field(8080, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    public_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/]+$",
        description="where users reach the API, if not directly: links and icons of Solana Actions begin with it",
    )
    requests_per_s: float = Field(
        1_000.0,
        ge=0,
        description="requests a second from one client, by its token, else by its address; 0: any number. One that "
        "prepares or relays a transaction counts as 50. Behind a proxy name it in http.trusted_proxies, or all clients "
        "count as one",
    )
    burst: int = Field(2_000, ge=1, description="requests that one client may send at once")
    node_calls_per_s: float = Field(
        10.0,
        gt=0,
        description="calls a second that all of the API's users together may cost the node; each has an equal share. "
        "The keeper's own calls come on top, and are never made to wait for users'",
    )
    max_priority_fee_micro_lamports_per_unit: int = Field(
        5_000_000,
        ge=0,
        le=20_000_000,
        description="the most that a user may have put into a prepared transaction as its price, in micro-lamports a "
        "compute unit; 5 million make 0.0003 SOL for an order",
    )
    streams: int = Field(2_000, ge=1, le=4_000, description="open streams and long polls, of all clients together")
    streams_per_client: int = Field(
        200, ge=1, description="open streams and long polls of one client, by its token, else by its address"
    )
    connections: int = Field(
        5_000,
        ge=16,
        le=50_000,
        description="connections in all; better above http.streams + 100. With fewer descriptors than 272 more than "
        "that, it takes so many less: the chain's sockets and the journal's files come first",
    )
    connections_per_address: int = Field(
        500, ge=1, description="connections from one address (of IPv6: from one /64); trusted proxies have any number"
    )
    trusted_proxies: tuple[Network, ...] = Field(
        (),
        description="addresses or networks of the proxies before the API, such as 127.0.0.1 or 10.0.0.0/8: from them, "
        "the client is who X-Forwarded-For says. config/caddy/Caddyfile is one that fits",
    )
    cors_origins: tuple[Origin, ...] = Field(
        ("*",),
        description="pages that may call what is public under /v1 from a browser, such as https://app.example; * is "
        "any, which gives a page nothing that its user's wallet does not sign. Empty: none",
    )
    hosts: tuple[str, ...] = Field(
        (),
        description="names, beside http.public_url's, by which requests may come: another domain as Host is "
        "refused, because a page of that domain could be reading a keeper on its visitor's machine. Addresses and "
        "names without a dot need no mention; * allows any",
    )
    admin_token_sha256: Digest | None = Field(
        None,
        description="SHA-256 (hex) of the token for pause, resume, retry and drain; unset: there are no such routes. "
        "`keeper admin-token FILE` makes one",
    )


class ManagedWalletSettings(Section):
    """A wallet whose key the keeper holds: its orders need no signature of a user's. Custodial."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,32}$")
    key_file: Path
    markets: tuple[str, ...] = Field(min_length=1)
    max_size: str = Field(pattern=r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,6})?$")
    orders_per_day: int = Field(ge=1)
    token_sha256: tuple[Digest, ...] = Field(min_length=1)


class ManagedSettings(Section):
    """Managed wallets; without any, the keeper never signs for a user."""

    wallets: tuple[ManagedWalletSettings, ...] = Field(
        (),
        description="wallets whose keys the keeper holds (custodial), each a [[managed.wallets]] table with name, "
        "key_file, markets, max_size (base units), orders_per_day and token_sha256 (hashes of the tokens that may use "
        "it)",
    )

    @field_validator("wallets")
    @classmethod
    def _apart(cls, value: tuple[ManagedWalletSettings, ...]) -> tuple[ManagedWalletSettings, ...]:
        if len({wallet.name for wallet in value}) < len(value):
            raise ValueError("two wallets have one name")
        return value


class HealthSettings(Section):
    """When the keeper says that it is ill."""

    stalled_after_s: float = Field(
        60.0,
        gt=0,
        description="a loop that does not go round for so many seconds is stuck: /livez fails and the supervisor's "
        "watchdog bites. It must be above 5 x rpc.deadline_s and above rpc.silence_s; better above rpc.silence_s + 35, "
        "so that a silent socket is replaced before it counts as a loop that is stuck",
    )
    exit_when_stuck: bool = Field(
        False,
        description="end the process when a loop is stuck, or the event loop: for a supervisor that starts again what "
        "ends, and takes no pings (a container's)",
    )


class LogSettings(Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is written")
    format: Literal["auto", "json", "console"] = Field("auto", description="auto: console on a terminal, else JSON")


class RecordSettings(Section):
    """A recording of what came in and what was decided, for `keeper replay` (docs/record.md)."""

    folder: Path | None = Field(None, description="where to write it, a file a UTC day; unset: nothing is recorded")
    keep_days: int = Field(7, ge=1, le=3_650, description="files are removed after so many days")
    max_bytes: int = Field(
        4_000_000_000,
        ge=1_000_000,
        description="most that all files may take together, in bytes: the oldest go first, and a day that takes more "
        "by itself is recorded up to there",
    )


class ClusterSettings(Section):
    """Several keepers on one PostgreSQL journal: one works and the others stand by, or they share the markets."""

    name: str = Field(
        "", max_length=64, pattern=r"^[\w.:-]*$", description="this keeper's name among them; by default the host's"
    )
    lease_s: float = Field(
        3.0, ge=1, le=60, description="another takes over from a keeper that was not heard of for so many seconds"
    )
    share_markets: bool = Field(
        False,
        description="divide the markets among the keepers, instead of having one work on all of them; the same in each",
    )
    url: str = Field(
        "",
        max_length=200,
        pattern=r"^(https?://[^\s/?#@]+)?$",
        description="where the others reach this one's API (http://10.0.0.1:8080); by default http.host and port",
    )


class Settings(BaseSettings):
    """All settings. See each section's fields."""

    model_config = SettingsConfigDict(
        env_prefix="KEEPER_",
        env_nested_delimiter="__",
        frozen=True,
        extra="forbid",
        nested_model_default_partial_update=True,
    )

    rpc: RpcSettings = RpcSettings()
    program: ProgramSettings = ProgramSettings()
    key: KeySettings = KeySettings()
    journal: JournalSettings = JournalSettings()
    prices: PriceSettings = PriceSettings()
    crank: CrankSettings = CrankSettings()
    cluster: ClusterSettings = ClusterSettings()
    trigger: TriggerSettings = TriggerSettings()
    execution: ExecutionSettings = ExecutionSettings()
    fees: FeeSettings = FeeSettings()
    http: HttpSettings = HttpSettings()
    managed: ManagedSettings = ManagedSettings()
    health: HealthSettings = HealthSettings()
    record: RecordSettings = RecordSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _slow_is_not_stuck(self) -> Self:
        """A turn of a loop waits for a few calls, each up to its deadline, and the watch's for news of a slot."""
        stalled_s = self.health.stalled_after_s
        for least_s, said, what, setting in (
            (CALLS_A_TURN * self.rpc.deadline_s, f"{CALLS_A_TURN} x rpc.deadline_s", "slow endpoint", "rpc.deadline_s"),
            (self.rpc.silence_s, "rpc.silence_s", "silent socket", "rpc.silence_s"),
        ):
            if stalled_s <= least_s:
                raise ValueError(
                    f"health.stalled_after_s ({stalled_s:g}) must be above {said} ({least_s:g}), or a {what} is taken "
                    f"for a stuck loop: raise health.stalled_after_s, or lower {setting}"
                )
        return self

    @model_validator(mode="after")
    def _pays_tips(self) -> Self:
        signatures = 2 if self.crank.markets else 1
        problem = tip_problem(self.rpc.senders, self.fees.tip_lamports, self.fees.cap_lamports, signatures)
        if problem is not None:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _may_post(self) -> Self:
        t, cap_lamports = self.trigger, self.fees.cap_lamports
        problem = self.crank.problem(self.prices, t.max_price_age_s, t.breaker_trip, cap_lamports)
        if problem is not None:
            raise ValueError(problem)
        return self


def setting_names() -> list[str]:
    """Every setting as `section.name`, in the model's order."""
    sections = {name: cast(type[BaseModel], field.annotation) for name, field in Settings.model_fields.items()}
    return [f"{section}.{name}" for section, model in sections.items() for name in model.model_fields]
