"""Runs a batch that a worker has in hand: groups it by tenant and deployment, and composes the partitions' commits."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from engine import metrics
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
        groups: dict[tuple[str, int, int], list[tuple[int, Item]]] = {}
        current: dict[str, int] = {}
        part = 0
        last = None
        for position, item in enumerate(items):
            message = item.message
            commit = commits[where[position]]
            if message.originator != in_lane and message.originator in commit.owned.lanes:
                join_lane(commit, LaneItem(*item))
                continue
            deployment = message.deployment or current.get(message.tenant, 0)
            if not deployment:
                deployment = current[message.tenant] = await self._current(message.tenant)
            if in_lane and deployment != last:
                # A lane is one device's order: messages of different deployments must not be sorted apart.
                part, last = part + 1, deployment
            groups.setdefault((message.tenant, deployment, part), []).append((position, item))
        for (tenant, deployment, _), placed in groups.items():
            await self._group(tenant, deployment, placed, where, commits)

    async def _current(self, tenant: str) -> int:
        try:
            return await self.deployments.current(tenant)
        except RulemillError:
            return -1

    async def _group(
        self, tenant: str, deployment: int, placed: list[tuple[int, Item]], where: list[int], commits: dict[int, Commit]
    ) -> None:
        try:
            plan = await self.plans.plan_for(tenant, deployment)
        except RulemillError as error:
            log.error("tenant %s has no deployment %d: %s", tenant, deployment, error)
            for position, item in placed:
                self.bury_unrun(commits[where[position]], item, f"deployment {deployment} cannot be run: {error}")
            return
        placed = [entry for entry in placed if not self._behind(entry[1], commits[where[entry[0]]])]
        view = View(
            tenant, self.state.load, product=lambda name: self.product(tenant, name),
            secret=lambda name: self.secret(tenant, name), progress=self.progress,
        )  # fmt: skip
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

    def complete(self, commits: dict[int, Commit]) -> None:
        """Add to each commit what is only known at the end: its lanes and its points."""
        for commit in commits.values():
            commit.lines += lane_lines(commit)
            commit.lines = point_lines(commit) + commit.lines
            if not commit.points:
                # Nobody has to wait for a store that gets nothing.
                commit.lines += commit.after_store
                commit.after_store = []
