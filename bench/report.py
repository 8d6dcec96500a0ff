"""Medians of runs, as text."""

import statistics

median = statistics.median


def intact(ledger):
    """Whether nothing acknowledged was lost, doubled, reordered or half done."""
    return (
        not (ledger["lost"] or ledger["duplicated"] or ledger["reordered"]) and ledger["processed"] == ledger["stored"]
    )


def middle(runs, field):
    """Median of a figure over the runs."""
    return median([run[field] for run in runs])


def _by_role(runs, field, form="{:.1f}"):
    roles = {role: median([run[field].get(role, 0.0) for run in runs]) for role in sorted(runs[0][field])}
    return "  ".join(f"{role} {form.format(roles[role])}" for role in sorted(roles, key=roles.get, reverse=True))


def _total(runs):
    return median([sum(run["cpu_us"].values()) for run in runs])


def _rates(runs):
    rates = sorted(run["rate"] for run in runs)
    return f"{median(rates):,.0f}/s [{rates[0]:,.0f}-{rates[-1]:,.0f}]"


def _others(runs):
    """What else ran on the machine meanwhile, in cores; the figures hold only if that is next to nothing."""
    worst = max(run["others"] for run in runs)
    return f"others took {middle(runs, 'others'):.2f} cores, {worst:.2f} at worst"


def _latency(runs):
    return f"p50 {middle(runs, 'p50_ms'):.2f} p99 {middle(runs, 'p99_ms'):.2f} ms"


def telemetry(name, result):
    """Lines about A or B of one system."""
    most, half = result["most"], result["half"]
    seen = [run["visible"] for run in half if run.get("visible")]
    late = max(run["late_ms"] for run in half)
    yield f"  {name}"
    yield f"    maximum      {_rates(most)}   sending held back {middle(most, 'held'):.0%} of the time"
    yield f"    CPU us       {_total(most):.1f} a message: {_by_role(most, 'cpu_us')}"
    yield f"                 (the generator: {middle(most, 'generator_us'):.1f})"
    yield f"    disturbance  {_others([*most, *half])}"
    yield f"    cores busy   {_by_role(most, 'busy', '{:.2f}')}"
    yield f"    memory MB    {_by_role(most, 'memory_mb', '{:.0f}')}"
    yield f"    at 50 %      {middle(half, 'rate'):,.0f}/s: acknowledged {_latency(half)}"
    if seen:
        p50, p99 = median([pair[0] for pair in seen]), median([pair[1] for pair in seen])
        yield f"                 stored p50 {p50:.2f} p99 {p99:.2f} ms"
    yield f"                 CPU us {_total(half):.1f} a message: {_by_role(half, 'cpu_us')}"
    yield f"                 (the generator was late by {late:.0f} ms at most)"
    yield f"    ledger       {'  '.join(f'{word} {count:,}' for word, count in result['ledger'].items())}"


def calls(name, result):
    """Lines about C of one system."""
    yield f"  {name}"
    for count, runs in result.items():
        yield f"    {count:>2} connections  {_rates(runs)}   {_latency(runs)}"
        yield f"                    CPU {_total(runs):.0f} us a call: {_by_role(runs, 'cpu_us', '{:.0f}')}"
    yield f"    disturbance     {_others([run for runs in result.values() for run in runs])}"


def ratio(ours, theirs):
    """How many times the other's rate and CPU."""
    rate, cpu = middle(ours, "rate") / middle(theirs, "rate"), _total(ours) / _total(theirs)
    return f"{rate:.2f} x the rate, {cpu:.2f} x the CPU"


def show(ours, theirs):
    """Print everything, and the ratios of what both have."""
    for key, title in (("A", "A  MQTT QoS 1 telemetry"), ("B", "B  HTTP telemetry")):
        if key not in ours and key not in theirs:
            continue
        print(title)
        if key in ours:
            print(*telemetry("Rulemill, durable", ours[key]), sep="\n")
        for name, label in ((key, "joined by 100"), (f"{key} single", "one by one")):
            if name in theirs:
                print(*telemetry(f"Node-RED, {label}, nothing durable", theirs[name]), sep="\n")
            if name in theirs and key in ours:
                print(f"  Rulemill to Node-RED {label}: {ratio(ours[key]['most'], theirs[name]['most'])}")
    if "C" in ours or "C" in theirs:
        print("C  RPC request of a device over HTTP, answered by a chain")
    for name, results in (("Rulemill", ours), ("Node-RED", theirs)):
        if "C" in results:
            print(*calls(name, results["C"]), sep="\n")
    if "C" in ours and "C" in theirs:
        for count, runs in ours["C"].items():
            slower = middle(runs, "p50_ms") / middle(theirs["C"][count], "p50_ms")
            print(f"  Rulemill to Node-RED, {count}: {ratio(runs, theirs['C'][count])}, {slower:.2f} x the p50")
