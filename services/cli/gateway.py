"""``mrirecon gateway``: the steps of a file gateway's life, each of which may be repeated."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..contract.codes import MrireconError
from .exits import Exit

if TYPE_CHECKING:
    from ..cloud.operators.gateway import GatewaySteps


def register(parser: ArgumentParser) -> None:
    """Add the arguments of ``mrirecon gateway``."""
    steps = parser.add_subparsers(title="steps", required=True, metavar="STEP")

    def step(name: str, words: str, work: Callable[[GatewaySteps, Namespace], None]) -> ArgumentParser:
        made = steps.add_parser(name, help=words, description=words)
        made.set_defaults(command=_guarded(work))
        return made

    activate = step("activate", "activate a gateway, add its cache, print its ARN", _activate)
    machine = activate.add_mutually_exclusive_group(required=True)
    machine.add_argument(
        "--address", metavar="HOST", help="the machine, as this computer reaches its port 80"
    )
    machine.add_argument(
        "--function", metavar="NAME", help="output GatewayActivation: an appliance in the VPC"
    )
    activate.add_argument("--name", required=True, help="name of the gateway in Storage Gateway")
    activate.add_argument("--region", required=True, help="AWS region, as eu-central-1")
    activate.add_argument(
        "--endpoint",
        default="",
        metavar="DNS",
        help="name of the VPC's endpoint of Storage Gateway, when the machine reaches AWS through it alone",
    )
    activate.add_argument("--cache-device", default="/dev/sdb", metavar="PATH", help="cache disk (/dev/sdb)")

    join = step("join", "join an Active Directory domain", _join)
    _gateway(join)
    join.add_argument("--domain", required=True, help="as hospital.example")
    join.add_argument("--secret", required=True, metavar="ARN", help="secret with username and password")
    join.add_argument(
        "--controller", action="append", default=[], help="a domain controller (several: repeat)"
    )

    guest = step("guest", "set the password of the SMB guest", _guest)
    _gateway(guest)
    guest.add_argument("--secret", required=True, metavar="ARN", help="secret with the password")

    _gateway(step("status", "what the gateway is, and how much awaits upload", _status))
    _gateway(step("remove", "delete the gateway, unless data await upload", _remove))


def _gateway(parser: ArgumentParser) -> None:
    parser.add_argument("--gateway", required=True, metavar="ARN", help="ARN that `activate` printed")


def _guarded(work: Callable[[GatewaySteps, Namespace], None]) -> Callable[[Namespace], int]:
    def command(arguments: Namespace) -> int:
        from ..cloud.operators.gateway import GatewayError, connected

        try:
            with connected() as steps:
                work(steps, arguments)
        except (GatewayError, MrireconError) as error:
            print(f"mrirecon gateway: {error}", file=sys.stderr)
            return Exit.FAILED
        return Exit.OK

    return command


def _activate(steps: GatewaySteps, arguments: Namespace) -> None:
    if arguments.function:
        ask = steps.key_of_function(arguments.function)
    else:
        ask = steps.key_of_machine(arguments.address, arguments.region, arguments.endpoint)
    arn = steps.activate(arguments.name, arguments.region, ask)
    steps.add_cache(arn, arguments.cache_device)
    print(arn)


def _join(steps: GatewaySteps, arguments: Namespace) -> None:
    steps.join(arguments.gateway, arguments.domain, arguments.secret, controllers=tuple(arguments.controller))


def _guest(steps: GatewaySteps, arguments: Namespace) -> None:
    steps.set_guest_password(arguments.gateway, arguments.secret)


def _status(steps: GatewaySteps, arguments: Namespace) -> None:
    found = steps.look(arguments.gateway)
    dirty = "unknown" if found.dirty_percent is None else f"{found.dirty_percent:g} % of the cache"
    print(f"name             {found.name}")
    print(f"state            {found.state}")
    print(f"directory        {found.directory or 'none'}")
    print(f"awaits upload    {dirty}")


def _remove(steps: GatewaySteps, arguments: Namespace) -> None:
    steps.remove(arguments.gateway)
    print("deleted; its machine stays as it is")
