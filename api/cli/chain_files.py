"""`rulemill chain check`, `test`, `schema`: the verbs on chain files that need no server."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from api.cli.chain_reading import CASES, beside, chain_files, missing_calls, name_of, read_chain_file
from engine.errors import Finding, InvalidDocument

if TYPE_CHECKING:
    from chains.cases import Case
    from chains.testing import Outcome, Report
    from engine.plan import Plan
    from nodes.catalogue import Catalogue

TENANT: Final = "test"
"""Whose chains the tested ones are."""

_PATHS: Final = click.argument(
    "paths", nargs=-1, required=True, metavar="FILE|FOLDER...", type=click.Path(exists=True, path_type=Path)
)


@click.command()
@_PATHS
@click.option("--json", "as_json", is_flag=True, help="Tell it as JSON.")
def check(paths: tuple[Path, ...], as_json: bool) -> None:
    """Say everything that is wrong with chain files; exit code 1 if anything is.

    \b
    Chains that lie in the same folder may call each other; a call of any other
    chain is taken on trust. Advice is worth a second look, and no error.
    A FOLDER stands for its chain files, or for those of the folders in it.
    """
    catalogue = _catalogue()
    checked = [_checked(path, catalogue) for path in chain_files(paths)]
    if as_json:
        click.echo(json.dumps(checked, indent=2, ensure_ascii=False))
    else:
        for one in checked:
            _tell(one)
    if any(one["errors"] for one in checked):
        raise SystemExit(1)


@click.command()
@_PATHS
@click.option("--cases", "cases_path", type=click.Path(exists=True, dir_okay=False, path_type=Path),
              help=f"The cases, if they are not in {CASES} beside the chain.")  # fmt: skip
@click.option("-v", "--verbose", is_flag=True, help="Tell the way of the messages of every case.")
def test(paths: tuple[Path, ...], cases_path: Path | None, verbose: bool) -> None:
    """Run the test cases of chains; exit code 1 unless all of them hold.

    \b
    No server runs and nothing is called: real nodes work under the clock of the
    case, local time being UTC. FILE is a chain with cases.json beside it;
    a FOLDER holds chain.json and cases.json, or folders that do.
    Examples:
      rulemill chain test examples/
      rulemill chain test -v examples/thermostat
      rulemill chain test greenhouse.json --cases greenhouse.cases.json
    """
    files = chain_files(paths, called=False)
    if cases_path is not None and len(files) > 1:
        raise click.UsageError("--cases goes with one chain")
    # Scripts that tell local time must tell the same everywhere.
    os.environ["TZ"] = "UTC"
    time.tzset()
    catalogue = _catalogue()
    good = bad = 0
    for path in files:
        cases = cases_path or path.parent / CASES
        try:
            reports = run_cases(path, cases, catalogue)
        except InvalidDocument as error:
            click.echo(f"{path}: cannot be tested")
            _tell_findings(error.findings)
            bad += 1
            continue
        click.echo(f"{path}")
        for report in reports:
            _tell_report(report, verbose)
        good += sum(not report.findings for report in reports)
        bad += sum(bool(report.findings) for report in reports)
    click.echo(f"{good} passed, {bad} failed")
    if bad:
        raise SystemExit(1)


@click.command()
def schema() -> None:
    """Print the JSON Schema of chain files, for editors and other tools.

    \b
    Example:
      rulemill chain schema > chain.schema.json
    """
    from chains.schema import chain_schema

    click.echo(json.dumps(chain_schema(_catalogue()), indent=2, ensure_ascii=False))


def run_cases(chain: Path, cases: Path, catalogue: Catalogue) -> list[Report]:
    """Run the cases of a file against the chain of another; raises InvalidDocument when either cannot be used.

    Every secret is taken to exist; a case gives those that its messages need.
    """
    from chains.cases import read_cases
    from chains.compiler import compile_tenant

    document = read_chain_file(chain)
    if not cases.exists():
        raise InvalidDocument([Finding("", f"there are no cases: {cases} is missing")])
    try:
        wanted = read_cases(cases.read_bytes())
    except InvalidDocument as error:
        findings = [Finding(place, f"{cases.name}: {message}") for place, message in error.findings]
        raise InvalidDocument(findings) from error
    if not wanted:
        raise InvalidDocument([Finding("", f"there are no cases: {cases} is an empty list")])
    name = name_of(document) or chain.stem
    documents = {other: (1, text) for other, text in beside(chain).items()}
    documents[name] = (1, document)
    plan = compile_tenant(TENANT, 1, name, documents, catalogue, secrets=lambda secret: secret)
    return asyncio.run(_run(plan, wanted))


async def _run(plan: Plan, cases: Sequence[Case]) -> list[Report]:
    from chains.testing import run_case
    from engine.node import CallNode

    try:
        return [await run_case(plan, case) for case in cases]
    finally:
        for node in {id(place.node): place.node for place in plan.nodes}.values():
            if isinstance(node, CallNode):
                await node.close()


def _catalogue() -> Catalogue:
    """All kinds, those of plug-ins that the settings name among them."""
    from engine.config import load
    from nodes.catalogue import Catalogue

    return Catalogue().with_plugins(load().settings.plugins)


def _checked(path: Path, catalogue: Catalogue) -> dict[str, Any]:
    """What is to be said of a file: `errors`, `advice` if there are none, and the chains it calls `on_trust`."""
    from chains.compiler import check_chain
    from chains.lint import lint_chain

    errors: Sequence[Finding]
    advice: Sequence[Finding] = []
    trusted: list[str] = []
    try:
        document = read_chain_file(path)
        others = beside(path)
        trusted = missing_calls(document, others)
        errors = check_chain(document, catalogue, None if trusted else others)
        if not errors:
            advice = lint_chain(document, catalogue)
    except InvalidDocument as error:
        errors = error.findings
    return {
        "file": str(path),
        "errors": [finding._asdict() for finding in errors],
        "advice": [finding._asdict() for finding in advice],
        "on_trust": trusted,
    }


def _tell(checked: dict[str, Any]) -> None:
    count = len(checked["errors"])
    click.echo(f"{checked['file']}: " + ("holds" if not count else f"{count} error{'s' if count > 1 else ''}"))
    _tell_findings([Finding(**error) for error in checked["errors"]])
    for advice in checked["advice"]:
        click.echo(f"  advice: {advice['pointer'] or '/'}: {advice['message']}")
    for name in checked["on_trust"]:
        click.echo(f"  note: calls {name!r}, which is not in this folder; that was taken on trust")


def _tell_findings(findings: Sequence[Finding], indent: str = "  ") -> None:
    for place, message in findings:
        click.echo(f"{indent}{place or '/'}: {message}")


def _tell_report(report: Report, verbose: bool) -> None:
    click.echo(f"  {'FAIL' if report.findings else 'ok  '}  {report.case}")
    _tell_findings(report.findings, " " * 10)
    if report.findings or verbose:
        _tell_outcome(report.outcome, " " * 10)


def _tell_outcome(outcome: Outcome, indent: str) -> None:
    for node, relation in outcome.trace:
        click.echo(f"{indent}{node} → {relation}")
    for letter in outcome.dead:
        click.echo(f"{indent}dead letter of {letter['node']}: {letter['reason']}")
