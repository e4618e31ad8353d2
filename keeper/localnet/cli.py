"""Running a localnet as a command."""

from __future__ import annotations

import errno
import logging
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack

import anyio
import msgspec

from keeper.localnet.config import LocalnetConfig
from keeper.localnet.localnet import Localnet, ProgramError
from keeper.localnet.options import UsageError, parse_options

EXIT_USAGE = 2

Markets = Callable[[str], AbstractAsyncContextManager[Mapping[str, str]]]
"""Opens markets on the chain at a URL and keeps them alive until the end of its block: their addresses by symbol."""


def main(
    arguments: Sequence[str] | None = None,
    *,
    program: str = "python -m keeper.localnet",
    markets: Markets | None = None,
) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code: 0, or 2 for what cannot be served.

    With `markets` there is the flag --with-markets. What they raise is passed on.
    """
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    # A port scan or a browser on the wrong port is no error of ours.
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    try:
        given = sys.argv[1:] if arguments is None else arguments
        options = parse_options(given, program=program, has_markets=markets is not None)
        announce = {"text": _announce, "json": _announce_json, "nothing": lambda *_: None}[options.announce]
        wanted = markets if options.with_markets else None
        anyio.run(lambda: run_localnet(options.config, announce=announce, markets=wanted))
    except UsageError as exc:
        print(f"{program}: {exc}", file=sys.stderr)
        return EXIT_USAGE
    return 0


async def run_localnet(
    config: LocalnetConfig,
    *,
    announce: Callable[[Localnet, Mapping[str, str]], None],
    markets: Markets | None,
) -> None:
    """Serve until SIGINT or SIGTERM; `announce` is called once requests are taken and the markets are there.

    Raises UsageError when a port is taken or a program cannot be loaded.
    """
    # Before anything else: a signal that comes while starting is a wish to stop, too.
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with AsyncExitStack() as stack:
            try:
                net = await stack.enter_async_context(Localnet(config))
            except OSError as exc:
                raise UsageError(_remedy(exc)) from exc
            except ProgramError as exc:
                raise UsageError(f"--bpf-program {exc}") from exc
            announce(net, {} if markets is None else await stack.enter_async_context(markets(net.rpc_url)))
            async for _ in signals:
                return


def _remedy(exc: OSError) -> str:
    if exc.errno in (errno.EADDRINUSE, errno.EACCES):
        return f"{exc.strerror}; choose another with --rpc-port (or --geyser-port), or 0 for free ones"
    return f"{exc.strerror}; give an address of this machine with --bind-address"


def _announce_json(net: Localnet, markets: Mapping[str, str]) -> None:
    ready: dict[str, object] = {
        "rpc_url": net.rpc_url,
        "ws_url": net.ws_url,
        **({} if net.geyser_url is None else {"geyser_url": net.geyser_url}),
        "program_id": str(net.program_id) if net.has_program else None,
        "genesis_hash": str(net.bank.chain.genesis_hash),
        "identity": str(net.bank.identity.pubkey()),
    }
    if markets:
        ready["markets"] = markets
    print(msgspec.json.encode(ready).decode(), flush=True)


def _announce(net: Localnet, markets: Mapping[str, str]) -> None:
    lines = [
        "An embedded Solana chain, in memory: it starts fresh and is gone when it stops (Ctrl-C).",
        f"  JSON-RPC   {net.rpc_url}",
        f"  WebSocket  {net.ws_url}",
        *([] if net.geyser_url is None else [f"  gRPC       {net.geyser_url}  (Yellowstone)"]),
        f"  genesis    {net.bank.chain.genesis_hash}",
    ]
    if net.has_program:
        lines.append(f"  program    {net.program_id}  (the reference perpetuals program)")
    lines += [f"  program    {program_id}  ({path})" for program_id, path in net.config.programs]
    lines += [f"  market     {address}  ({symbol}; its price walks)" for symbol, address in markets.items()]
    lines += [
        "Get 10 SOL for an address, with curl:",
        f"  curl {net.rpc_url} -H 'Content-Type: application/json' -d "
        '\'{"jsonrpc":"2.0","id":1,"method":"requestAirdrop","params":["ADDRESS",10000000000]}\'',
    ]
    if markets:
        lines += [
            "Get SOL, and collateral for these markets, for a key:",
            f"  keeper faucet KEYFILE --rpc-url {net.rpc_url}",
        ]
    print("\n".join(lines), flush=True)
