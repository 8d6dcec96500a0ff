"""The `rulemill` command."""

from __future__ import annotations

import sys

import click

from api.cli.alarm import alarm
from api.cli.app import app
from api.cli.chain import chain
from api.cli.dead import dead
from api.cli.device import device
from api.cli.firmware import firmware
from api.cli.node import node
from api.cli.person import person
from api.cli.points import points
from api.cli.secret import secret
from api.cli.serve import api, up, worker
from api.cli.status import status
from api.cli.tail import tail
from api.cli.tenant import tenant
from engine.errors import InvalidDocument, RulemillError


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rulemill")
def rulemill() -> None:
    """A rule-engine-centric flow server for IoT.

    Start with `rulemill up --demo`: a whole server, with devices to try.

    \b
    The verbs that need a server find the one that runs on ./rulemill-data
    (or RULEMILL_DATA); RULEMILL_URL and RULEMILL_TOKEN name another one.
    """


COMMANDS = (
    up, api, worker, status, chain, node, device, points, alarm, dead, tail, firmware, tenant, app, person, secret,
)  # fmt: skip
for command in COMMANDS:
    rulemill.add_command(command)


def main() -> None:
    """Run the command; our own errors become one line each, never a traceback."""
    try:
        # Without standalone mode, click returns the code that a command ended with.
        code = rulemill(standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except InvalidDocument as error:
        for pointer, message in error.findings:
            click.echo(f"rulemill: {pointer or '/'}: {message}", err=True)
        sys.exit(2)
    except RulemillError as error:
        click.echo(f"rulemill: {error}", err=True)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)
