"""`rulemill points delete`: forgetting the points of a time."""

from __future__ import annotations

import click

from api.cli.arguments import confirm, moment
from api.cli.client import Server, with_server
from api.cli.output import local_time
from api.cli.points_named import DEVICES, KEYS, check_range, in_parts, named


@click.command()
@DEVICES
@KEYS
@click.option("--from", "start_ms", type=moment, required=True, metavar="TIME", help="First time.")
@click.option("--to", "end_ms", type=moment, required=True, metavar="TIME", help="First time that stays.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_server()
def delete(
    server: Server, devices: tuple[str, ...], keys: tuple[str, ...], start_ms: int, end_ms: int, yes: bool
) -> None:
    """Forget the points of a time, for good.

    \b
    What a product's devices are to keep for so many days only goes by itself:
    its facet retention_days.
    Examples:
      rulemill points delete boiler-1 -k temperature --from 2026-01-01 --to 2026-02-01
      rulemill points delete 'test-*' --from 2020-01-01 --to now --yes
    """
    check_range(start_ms, end_ms)
    wanted = named(server, devices)
    what = f"all points of {', '.join(keys)}" if keys else "all points"
    from_, to = local_time(start_ms) or "1970", local_time(end_ms) or "1970"
    whose = devices[0] if len(wanted) == 1 else f"{len(wanted)} devices"
    confirm(f"Forget {what} of {whose} from {from_} to {to} for good?", yes)
    for part in in_parts(wanted):
        query = {"device": part, "key": list(keys), "start_ms": start_ms, "end_ms": end_ms}
        server.call("DELETE", server.of_tenant("points"), query=query, answer_s=600)
    click.echo(f"Forgot {what} of {whose} from {from_} to {to}.")
