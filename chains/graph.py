"""One walk over a directed graph: its topological order, and every connection that closes a loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

_MAX_LOOPS = 100


class Hop(NamedTuple):
    """A vertex and which of its outgoing edges was taken."""

    vertex: int
    edge: int


def walk(edges: Sequence[Sequence[int]], roots: Iterable[int]) -> tuple[list[int], list[list[Hop]]]:
    """Order all vertices so that edges lead forward, except those that close a loop; give those loops.

    `edges[v]` are the vertices that v leads to; `roots` say where to begin. A loop is the hops that make it, the
    closing one last. Depth first and without recursion; at most 100 loops are told.
    """
    fresh, open_, done = 0, 1, 2
    state = [fresh] * len(edges)
    depth = [0] * len(edges)
    finished: list[int] = []
    loops: list[list[Hop]] = []
    for root in [*roots, *range(len(edges))]:
        if state[root] != fresh:
            continue
        state[root], depth[root] = open_, 0
        path = [Hop(root, 0)]
        while path:
            vertex, edge = path[-1]
            if edge == len(edges[vertex]):
                state[vertex] = done
                finished.append(vertex)
                path.pop()
                if path:
                    path[-1] = Hop(path[-1].vertex, path[-1].edge + 1)
                continue
            to = edges[vertex][edge]
            if state[to] == fresh:
                state[to], depth[to] = open_, len(path)
                path.append(Hop(to, 0))
                continue
            if state[to] == open_ and len(loops) < _MAX_LOOPS:
                loops.append(path[depth[to] :])
            path[-1] = Hop(vertex, edge + 1)
    finished.reverse()
    return finished, loops
