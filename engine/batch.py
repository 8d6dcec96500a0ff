"""Runs a batch that a worker has in hand: groups it by tenant and deployment, and composes the partitions' commits."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from engine import metrics
from engine.bus import notice
from engine.commit import Commit, bury, compose, join_lane, lane_lines, point_lines
from engine.deployments import Deployments, Plans
from engine.effects import DeadLetter
from engine.entries import Item, LaneItem
from engine.errors import RulemillError
from engine.message import now_ms
from engine.node import Product
from engine.plan import PlanNode
from engine.runner import run
from engine.state import State
from engine.tail import Tail
from engine.view import View

log = logging.getLogger("rulemill.batch")


@dataclass(slots=True)
class _Group:
    """Items of one tenant and deployment, with their positions in the batch."""

    tenant: str
    deployment: int
    placed: list[tuple[int, Item]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class BatchRunner:
    """Turns items into commits; writes nothing itself."""

    plans: Plans
    deployments: Deployments
    state: State
    product: Callable[[str, str], Awaitable[Product | None]]
    secret: Callable[[str, str], str | None]
    progress: Callable[[], None]
    room: Callable[[str, PlanNode], int]
    tail: Tail

    async def run(self, items: list[Item], where: list[int], commits: dict[int, Commit]) -> None:
        """Run items (each of partition `where[i]`) and complete `commits` with all that came of it."""
        await self.into(items, where, commits)
        self.complete(commits)

    async def into(self, items: list[Item], where: list[int], commits: dict[int, Commit], in_lane: str = "") -> None:
        """Run items, but those aside whose lane is open (unless it is the lane being run)."""
        current: dict[str, int] = {}
        placed: list[tuple[int, Item, int]] = []
        for position, item in enumerate(items):
            message = item.message
            commit = commits[where[position]]
            if message.originator != in_lane and message.originator in commit.owned.lanes:
                join_lane(commit, LaneItem(*item))
                continue
            deployment = message.deployment or current.get(message.tenant, 0)
            if not deployment:
                deployment = current[message.tenant] = await self._current(message.tenant)
            placed.append((position, item, deployment))
        views: dict[str, View] = {}
        for group in _groups(placed):
            view = views.get(group.tenant)
            if view is None:
                view = views[group.tenant] = self._view(group.tenant)
            await self._group(group, view, where, commits)

    def _view(self, tenant: str) -> View:
        return View(
            tenant, self.state.load, product=lambda name: self.product(tenant, name),
            secret=lambda name: self.secret(tenant, name), progress=self.progress,
        )  # fmt: skip

    async def _current(self, tenant: str) -> int:
        try:
            return await self.deployments.current(tenant)
        except RulemillError:
            return -1

    async def _group(self, group: _Group, view: View, where: list[int], commits: dict[int, Commit]) -> None:
        tenant, deployment, placed = group.tenant, group.deployment, group.placed
        try:
            plan = await self.plans.plan_for(tenant, deployment)
        except RulemillError as error:
            log.error("tenant %s has no deployment %d: %s", tenant, deployment, error)
            for position, item in placed:
                self.bury_unrun(commits[where[position]], item, f"deployment {deployment} cannot be run: {error}")
            return
        placed = [entry for entry in placed if not self._behind(entry[1], commits[where[entry[0]]])]
        traced = self.tail.wants(tenant)
        effects = await run(plan, placed, view, trace=traced, room=lambda node: self.room(tenant, node))
        compose(commits, where, placed, effects)
        for _, letter in effects.dead:
            kind = plan.nodes[plan.index[letter.node]].node.spec.kind if letter.node in plan.index else "none"
            metrics.DEAD.labels(kind).inc()
        for position, step in effects.steps:
            commits[where[position]].steps.append(step)

    def _behind(self, item: Item, commit: Commit) -> bool:
        """Join the lane that an earlier group of this very batch has opened for the originator."""
        if item.message.originator not in commit.lanes:
            return False
        join_lane(commit, LaneItem(*item))
        return True

    def bury_unrun(self, commit: Commit, item: Item, reason: str) -> None:
        """Dead-letter an item that no node has seen."""
        message = item.message
        id = f"{message.id}{message.copy}:{message.hops}"
        metrics.DEAD.labels("none").inc()
        bury(commit, DeadLetter(id, message, message.node, "", 0, reason, now_ms(), item.resumed))
        if message.awaited and message.reply_to:
            commit.lines.append(notice(message.reply_to, "end", None, reason))

    def complete(self, commits: dict[int, Commit]) -> None:
        """Add to each commit what is only known at the end: its lanes and its points."""
        for commit in commits.values():
            commit.lines += lane_lines(commit)
            commit.lines = point_lines(commit) + commit.lines
            if not commit.points:
                # Nobody has to wait for a store that gets nothing.
                commit.lines += [awaiting.line() for awaiting in commit.after_store]
                commit.after_store = []


def _groups(placed: Sequence[tuple[int, Item, int]]) -> list[_Group]:
    """What can be run in one go: items of one tenant and deployment, in an order of groups that is every device's own.

    A device whose messages are of several deployments never has a later one run in an earlier group.
    """
    groups: list[_Group] = []
    newest: dict[tuple[str, int], int] = {}
    last: dict[str, int] = {}
    mixed = any(item.message.deployment for _, item, _ in placed)
    for position, item, deployment in placed:
        message = item.message
        at = newest.get((message.tenant, deployment), -1)
        if at < 0 or (mixed and last.get(message.originator, -1) > at):
            at = newest[message.tenant, deployment] = len(groups)
            groups.append(_Group(message.tenant, deployment))
        if mixed:
            last[message.originator] = at
        groups[at].placed.append((position, item))
    return groups
