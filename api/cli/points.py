"""`rulemill points`: what devices have measured."""

from __future__ import annotations

import click

from api.cli.points_delete import delete
from api.cli.points_files import export, import_
from api.cli.points_live import tail
from api.cli.points_move import move
from api.cli.points_plot import plot
from api.cli.points_query import latest, query


@click.group()
def points() -> None:
    """Points: look at them, watch them, draw them, take them elsewhere, forget them.

    \b
    DEVICE is a name, an external id or an id, or a pattern of names
    such as 'boiler-*' (in quotes, or the shell takes it for files).
    Keys are named with -k; without, it is about every key.
    TIME is ISO (local, unless it has an offset), -90m, -1h, -7d or now.
    """


for verb in (latest, query, tail, plot, export, import_, move, delete):
    points.add_command(verb)
