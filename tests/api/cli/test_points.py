"""`rulemill points`, on a served demo and past it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from pathlib import Path

import httpx
import pytest

from tests.api.cli.serving import Demo, Ran, rulemill
from tests.api.test_up import COMMAND, environment
from tests.services import influx_bucket, shared_influx

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+00:00")
AT = 1_700_000_000_000
"""2023-11-14T22:13:20Z."""


def sent(demo: Demo, name: str, values: list[dict[str, object]], step_ms: int = 1000) -> str:
    """A new device with points, one a step from AT on; its id, when they can be read."""
    headers = {"Authorization": f"Bearer {demo.facts['operator_token']}"}
    with httpx.Client(base_url=f"{demo.facts['http']}/flow/v1/tenants/demo", headers=headers) as api:
        made = api.post("/devices", json={"name": name, "credentials": [{"kind": "ACCESS_TOKEN"}]}).json()
        demo.send(
            made["secrets"][0]["value"], [{"ts": AT + n * step_ms, "values": one} for n, one in enumerate(values)]
        )
        last = AT + (len(values) - 1) * step_ms
        deadline = time.monotonic() + 20
        while True:
            points = api.get(f"/devices/{made['id']}/points/latest").json()["points"]
            if points and all(one["ts_ms"] == last for one in points):
                return str(made["id"])
            assert time.monotonic() < deadline
            time.sleep(0.01)


class TestLatest:
    def test_of_one_device(self, demo: Demo) -> None:
        token = demo.new_device("measuring")
        assert "rulemill tail --device measuring" in demo("points", "latest", "measuring").out
        demo.send(token, {"temperature": 21.5, "text": "a\u001b[31mb", "on": True})
        ran = demo.until(lambda ran: "temperature" in ran.out, "points", "latest", "measuring")
        assert {row[1]: row[2] for row in ran.rows} == {
            "on": "true", "temperature": "21.5", "text": r'"a\u001b[31mb"',
        }  # fmt: skip
        assert all(ISO.fullmatch(row[0]) for row in ran.rows)
        assert [one["key"] for one in demo("points", "latest", "measuring", "-k", "on", "--json").json] == ["on"]
        nothing = demo("points", "latest", "measuring", "-k", "nothing").out
        assert nothing == "measuring: no points of nothing yet. What there is: rulemill points latest measuring\n"

    def test_of_several_and_of_a_pattern(self, demo: Demo) -> None:
        for name in ("several-1", "several-2", "other-several"):
            sent(demo, name, [{"n": 1}, {"n": 2}])
        for devices in (("several-1", "several-2"), ("several-*",), ("several-?", "several-2")):
            ran = demo("points", "latest", *devices)
            assert [row[1:] for row in ran.rows] == [["several-1", "n", "2"], ["several-2", "n", "2"]]
        ran = demo("points", "latest", "several-1", "--count", "5")
        assert [row[2] for row in ran.rows] == ["2", "1"]

    def test_devices_that_there_are_not(self, demo: Demo) -> None:
        ran = demo("points", "latest", "nobody", "demo-thermometer", "noone")
        assert (ran.code, ran.err) == (1, "rulemill: no device 'nobody'\nrulemill: no device 'noone'\n")
        assert "is named like x*" in demo("points", "latest", "x*").err


class TestQuery:
    def test_range(self, demo: Demo) -> None:
        sent(demo, "ranging", [{"n": n, "m": -n} for n in range(5)])
        a_time = ("--from", "2023-11-14T22:13:21Z", "--to", "2023-11-14T22:13:24+00:00")
        ran = demo("points", "query", "ranging", "-k", "n", *a_time)
        assert [(row[0], row[2]) for row in ran.rows] == [
            ("2023-11-14T22:13:21.000+00:00", "1"), ("2023-11-14T22:13:22.000+00:00", "2"),
            ("2023-11-14T22:13:23.000+00:00", "3"),
        ]  # fmt: skip
        newest = demo("points", "query", "ranging", "-k", "n", "--newest-first", "--limit", "2", "--json")
        assert [one["value"] for one in newest.json] == [4, 3]
        assert "more than 2" in newest.err
        exactly = demo("points", "query", "ranging", "-k", "n", "--limit", "5", "--json")
        assert (len(exactly.json), exactly.err) == (5, "")
        assert len(demo("points", "query", "ranging", "--json").json) == 10
        assert "no points of that time" in demo("points", "query", "ranging", "--from", "-1h").out

    def test_as_csv_and_as_lines_of_json(self, demo: Demo) -> None:
        id = sent(demo, "streaming", [{"n": n, "t": f"={n}"} for n in range(3)])
        rows = list(csv.DictReader(io.StringIO(demo("points", "query", "streaming", "--csv").out)))
        assert [(row["name"], row["key"], row["value"]) for row in rows][:2] == [
            ("streaming", "n", "0"), ("streaming", "t", "'=0"),
        ]  # fmt: skip
        lines = demo("points", "query", "streaming", "-k", "n", "--ndjson", "--newest-first", "--limit", "2").out
        assert [json.loads(line) for line in lines.splitlines()] == [
            {"device": id, "name": "streaming", "key": "n", "ts_ms": AT + n * 1000, "value": n} for n in (2, 1)
        ]

    def test_aggregates(self, demo: Demo) -> None:
        for name in ("adding-1", "adding-2"):
            sent(demo, name, [{"n": n} for n in range(4)], step_ms=1_800_000)
        a_time = ("--from", "2023-11-14T22:00Z", "--to", "2023-11-15T01:00Z", "--zone", "UTC")
        ran = demo("points", "query", "adding-1", "--every", "1h", "--fn", "mean", "--fn", "count", *a_time)
        assert [row[1:] for row in ran.rows] == [["n", "0.5", "2"], ["n", "2.5", "2"]]
        ran = demo("points", "query", "adding-*", "--every", "all", *a_time, "--fn", "p50")
        assert [row[1:] for row in ran.rows] == [["adding-1", "n", "1"], ["adding-2", "n", "1"]]
        ran = demo("points", "query", "adding-1", "--every", "1h", "--fill", "null", "--csv", *a_time)
        assert [row["mean"] for row in csv.DictReader(io.StringIO(ran.out))] == ["0.5", "2.5", ""]
        made = demo(
            "points", "query", "adding-1", "--every", "1d", "--json", *a_time[:4], "--zone", "Europe/Berlin"
        ).json
        assert [window["values"]["mean"] for window in made["series"][0]["windows"]] == [0.5, 2.5]

    def test_what_does_not_hold(self, demo: Demo) -> None:
        for arguments, reason in (
            (("--from", "x"), "'x' is no time"),
            (("--from", "now", "--to", "-1h"), "--from is later than --to"),
            (("--fn", "mean"), "--fn, --zone and --fill go with --every"),
            (("--every", "1h", "--limit", "5"), "do not go with --every"),
            (("--every", "1y"), "query parameter window: not a length of windows: '1y'"),
            (("--every", "1h", "--zone", "Mars/Base"), "query parameter zone: not a time zone: 'Mars/Base'"),
            (("--every", "1d", "--fn", "median"), "query parameter function: not a function: 'median'"),
        ):
            ran = demo("points", "query", "demo-sensor", *arguments)
            assert ran.code > 0
            assert reason in ran.err


class TestTail:
    def test_points_of_a_pattern(self, demo: Demo) -> None:
        tokens = [demo.new_device(name) for name in ("tailed-1", "untailed", "tailed-2")]
        process = subprocess.Popen(
            [*COMMAND, "points", "tail", "tailed-*", "-k", "n"],
            env=environment(demo.folder, TZ="UTC", PYTHONUNBUFFERED="1"), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            # Whoever runs the tests in the background has told them, and so their children, to ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert process.stderr is not None
        assert process.stdout is not None
        assert process.stderr.readline() == "Watching points of tailed-* of tenant demo; Ctrl-C ends it.\n"
        seen = b""
        deadline = time.monotonic() + 20
        while not (b"tailed-1" in seen and b"tailed-2" in seen):
            assert time.monotonic() < deadline, seen
            for token in tokens:
                demo.send(token, {"n": "\u001b[31m", "m": 1})
            if select.select([process.stdout], [], [], 0.1)[0]:
                seen += os.read(process.stdout.fileno(), 100_000)
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")
        for line in (seen.decode() + rest).splitlines():
            time_, name, key, value = line.split("  ")
            assert ISO.fullmatch(time_)
            assert (name in ("tailed-1", "tailed-2"), key, value) == (True, "n", r'"\u001b[31m"')

    def test_a_device_that_there_is_not(self, demo: Demo) -> None:
        ran = demo("points", "tail", "nobody")
        assert (ran.code, ran.err) == (1, "rulemill: no device 'nobody'\n")


class TestPlot:
    def test_a_chart(self, demo: Demo) -> None:
        sent(demo, "drawn", [{"up": n, "down": -n, "text": "x"} for n in range(20)], step_ms=60_000)
        a_time = ("--from", "2023-11-14T22:13Z", "--to", "2023-11-14T22:34Z", "--zone", "UTC")
        ran = demo("points", "plot", "drawn", "-k", "up", *a_time, "--width", "60", "--height", "8")
        *rows, axis, times, legend = ran.out.splitlines()
        assert (ran.code, len(rows)) == (0, 8)
        assert all(len(row) <= 60 for row in (*rows, axis, times))
        assert [row.split(" ")[0] for row in rows if "┤" in row] != []
        assert legend == "━━ up  min 0  max 19  last 19"
        assert times.split()[0] == "22:13"
        assert ran.err == "mean of every 15s, UTC\n"
        # The line climbs: what is drawn in the top row lies right of what is drawn in the bottom row.
        dots = [[x for x, char in enumerate(row) if "\u2800" < char <= "\u28ff"] for row in (rows[0], rows[-1])]
        assert min(dots[0]) > max(dots[1])

    def test_several_lines_without_colours_stand_below_each_other(self, demo: Demo) -> None:
        sent(demo, "drawn-2", [{"up": n, "down": -n} for n in range(20)])
        ran = demo(
            "points", "plot", "drawn-2", "--from", "2023-11-14T22:13Z", "--to", "2023-11-14T22:14Z", "--height", "5"
        )
        assert len(ran.out.splitlines()) == 2 * 8
        assert [line for line in ran.out.splitlines() if line.startswith("━━")] == [
            "━━ down  min -19  max 0  last -19", "━━ up  min 0  max 19  last 19",
        ]  # fmt: skip

    def test_nothing_to_draw(self, demo: Demo) -> None:
        sent(demo, "undrawable", [{"text": "x"}])
        ran = demo("points", "plot", "undrawable", "--from", "2023-11-14")
        assert (ran.code, "no numbers of that time to draw" in ran.err) == (1, True)


class TestDelete:
    def test_a_time(self, demo: Demo) -> None:
        sent(demo, "forgetful", [{"n": n, "m": n} for n in range(5)])
        a_time = ("--from", str(AT + 1000), "--to", str(AT + 3000))
        ran = demo("points", "delete", "forgetful", "-k", "n", *a_time)
        assert (ran.code, "Say --yes" in ran.err) == (1, True)
        ran = demo("points", "delete", "forgetful", "-k", "n", *a_time, "--yes")
        assert ran.out.startswith("Forgot all points of n of forgetful from 2023-11-14T22:13:21+00:00 to ")
        left = demo("points", "query", "forgetful", "--json").json
        assert [one["value"] for one in left if one["key"] == "n"] == [0, 3, 4]
        assert [one["value"] for one in left if one["key"] == "m"] == [0, 1, 2, 3, 4]
        assert "Missing option '--from'" in demo("points", "delete", "forgetful").err


class TestFiles:
    """Another folder is another server's: nothing runs there."""

    @pytest.fixture(scope="class")
    @staticmethod
    def filled(demo: Demo) -> str:
        values: list[dict[str, object]] = [{"d": 42.0, "l": n, "s": f"=a\nb{n}", "j": {"n": [n]}} for n in range(50)]
        return sent(demo, "exported", values)

    def copied(self, demo: Demo, folder: Path) -> list[str]:
        """The points in a folder's store, as sorted lines of JSON."""
        made = rulemill(folder, "points", "export", "--form", "ndjson")
        assert made.code == 0, made.err
        return sorted(made.out.splitlines())

    @pytest.mark.parametrize("name", ["p.lp.gz", "p.parquet"])
    def test_there_and_back(self, demo: Demo, filled: str, tmp_path: Path, name: str) -> None:
        other = tmp_path / "other"
        ran = demo("points", "export", "exported", "-o", str(tmp_path / name))
        assert ran.code == 0, ran.err
        assert re.match(r"Exported 200 points in .* of 1 devices, as", ran.err)
        assert sorted(os.listdir(tmp_path)) == [name]
        for _ in range(2):
            ran = rulemill(other, "points", "import", str(tmp_path / name))
            assert ran.code == 0, ran.err
            assert "Imported 200 points" in ran.err
            assert "devices are taken for ids as they stand" in ran.err
        theirs = self.copied(demo, other)
        assert theirs == sorted(demo("points", "export", "exported", "--form", "ndjson").out.splitlines())
        assert len(theirs) == 200
        assert {json.loads(line)["device"] for line in theirs} == {filled}

    def test_by_standard_output_and_input(self, demo: Demo, filled: str, tmp_path: Path) -> None:
        out = demo("points", "export", "exported", "-k", "l", "--from", str(AT + 10_000), "--to", str(AT + 20_000)).out
        assert len(out.splitlines()) == 10
        assert out.startswith(f'ts_kv,device={filled},key=l,tenant=demo l=10i,t="l" {AT + 10_000}\n')
        ran = rulemill(tmp_path / "other", "points", "import", "-", text=out)
        assert "Imported 10 points" in ran.err

    def test_without_a_server_ids_are_what_devices_are_called(self, demo: Demo, filled: str, tmp_path: Path) -> None:
        lines = demo("points", "export", "exported", "-k", "l").out
        other = tmp_path / "other"
        assert rulemill(other, "points", "import", "-", text=lines).code == 0
        assert len(rulemill(other, "points", "export", filled).out.splitlines()) == 50
        assert len(rulemill(other, "points", "export", f"{filled[:8]}*", "--tenant", "demo").out.splitlines()) == 50
        ran = rulemill(other, "points", "export", "exported")
        assert (ran.code, "no points of a device with the id exported" in ran.err) == (1, True)
        assert "no points of a tenant 'x'" in rulemill(other, "points", "export", "--tenant", "x").err
        ran = rulemill(tmp_path / "none", "points", "export")
        assert (ran.code, "there is no " in ran.err, "telemetry.db" in ran.err) == (1, True, True)

    def test_devices_by_name_and_bad_lines(self, demo: Demo, tmp_path: Path) -> None:
        demo.new_device("imported")
        text = "device,key,time,value\n" + "".join(
            f"imported,n,2026-01-31T12:00:{s:02}Z,{s}\n" for s in range(30)
        ) + "nobody,n,2026-01-31T12:00:00Z,1\n" + "imported,n,yesterday,1\n" * 25  # fmt: skip
        (tmp_path / "h.csv").write_text(text)
        ran = demo("points", "import", "h.csv", "--tenant", "demo", "--bad", "bad.txt", cwd=tmp_path)
        assert ran.code == 1
        assert "Imported 30 points" in ran.err
        faults = [line for line in ran.err.splitlines() if line.startswith("rulemill: ")]
        assert faults[0] == "rulemill: line 32: no device 'nobody'"
        assert faults[1].startswith("rulemill: line 33: 'yesterday' is no time")
        assert faults[-2:] == ["rulemill: … and 6 more", "rulemill: 26 bad lines were left out"]
        assert len((tmp_path / "bad.txt").read_text().splitlines()) == 26
        assert len(demo("points", "query", "imported", "--json").json) == 30
        ran = demo("points", "import", "h.csv", cwd=tmp_path)
        assert (ran.code, ran.err.splitlines()[-1]) == (
            1, "rulemill: line 2 names no tenant: say whose points these are with --tenant"
        )  # fmt: skip
        ran = demo("points", "import", "h.csv", "--tenant", "nobodys", "--from-line", "57", cwd=tmp_path)
        assert "line 57: 'yesterday' is no time" in ran.err
        assert "Imported 0 points" in ran.err

    def test_files_that_are_none(self, demo: Demo, tmp_path: Path) -> None:
        (tmp_path / "x.csv").write_text("a,b\n1,2\n")
        (tmp_path / "x.parquet").write_bytes(b"PAR1 not")
        (tmp_path / "x.lp.gz").write_bytes(gzip.compress(b"ts_kv")[:-4])
        for name, reason in (
            (
                "x.csv",
                "x.csv: the first line has no title device and no title key and no title value and no title ts_ms",
            ),
            ("x.parquet", "x.parquet: is no Parquet: "),
            ("x.lp.gz", "x.lp.gz: is damaged, or not whole: "),
            ("none", "none cannot be read: No such file or directory"),
        ):
            ran = demo("points", "import", name, cwd=tmp_path)
            assert (ran.code, reason in ran.err) == (1, True), ran.err
        ran = demo("points", "export", "-o", "no/such/folder/x.csv", cwd=tmp_path)
        assert (ran.code, "no/such/folder/x.csv cannot be written: No such file or directory" in ran.err) == (1, True)

    def test_a_person_sees_how_it_goes(self, demo: Demo, filled: str, tmp_path: Path) -> None:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [*COMMAND, "points", "export", "-o", str(tmp_path / "p.lp")], env=environment(demo.folder),
            stdout=subprocess.PIPE, stderr=theirs,
        )  # fmt: skip
        os.close(theirs)
        process.communicate(timeout=30)
        said = os.read(ours, 100_000).decode()
        os.close(ours)
        assert process.returncode == 0
        assert "Exporting" in said
        assert "100%" in said
        assert "Exported " in said


class TestMove:
    def test_from_sqlite_to_influxdb_and_back(self, demo: Demo, tmp_path: Path) -> None:
        lines = "".join(
            f'ts_kv,device=d{d},key=k,tenant=t{d % 3} d={n}.5,t="dg",lat=1.5,lon=-2.5 {n}\n'
            for d in range(9)
            for n in range(20)
        )
        one, other = tmp_path / "one", tmp_path / "other"
        assert rulemill(one, "points", "import", "-", text=lines).code == 0
        with influx_bucket(shared_influx()) as server:
            given = {
                "RULEMILL_INFLUX_URL": server.url, "RULEMILL_INFLUX_TOKEN": server.token,
                "RULEMILL_INFLUX_ORG": server.org, "RULEMILL_INFLUX_BUCKET": server.bucket,
            }  # fmt: skip
            # Interrupted after the first of these devices, by tenant: it goes on behind it.
            (one / "points-move.json").write_text(
                json.dumps({"move": "sqlite to influxdb", "only": None, "tenant": "t1", "device": "d4"})
            )
            ran = rulemill(one, "points", "move", **given)
            assert ran.code == 0, ran.err
            assert "Going on: 5 of 9 devices are done." in ran.err
            assert "Moved 80 points in " in ran.err
            assert " of 4 devices, sqlite to influxdb." in ran.err
            assert not (one / "points-move.json").exists()
            ran = rulemill(one, "points", "move", **given)
            assert "Moved 180 points in " in ran.err
            assert len(rulemill(one, "points", "export", **given).out.splitlines()) == 180
            ran = rulemill(other, "points", "move", "--back", "--tenant", "t2", **given)
            assert "Moved 60 points in " in ran.err
            ran = rulemill(other, "points", "move", "--back", **given)
            assert "Moved 180 points in " in ran.err
            ran = demo("points", "export", **given)
            assert (ran.code, "keeps its points in sqlite, and these settings say influxdb" in ran.err) == (1, True)
            assert "start it with influxdb, and move again" in demo("points", "move", "--tenant", "demo", **given).err
        moved = rulemill(other, "points", "export")
        assert sorted(moved.out.splitlines()) == sorted(rulemill(one, "points", "export").out.splitlines())
        assert sorted(moved.out.splitlines()) == sorted(lines.splitlines())

    def test_two_stores_are_needed(self, demo: Demo, tmp_path: Path) -> None:
        ran = demo("points", "move")
        assert (ran.code, "no InfluxDB is set: RULEMILL_INFLUX_URL" in ran.err) == (1, True)
        ran = rulemill(tmp_path / "none", "points", "move", RULEMILL_INFLUX_URL="http://127.0.0.1:1")
        assert (ran.code, "there is no " in ran.err) == (1, True)
        ran = demo("points", "export", RULEMILL_INFLUX_URL="http://127.0.0.1:1")
        assert (ran.code, ran.err.startswith("rulemill: influxdb http://127.0.0.1:1 rulemill: ")) == (1, True)


def test_help_teaches(demo: Demo) -> None:
    for verb in ("latest", "query", "tail", "plot", "delete", "export", "import", "move"):
        helped: Ran = demo("points", verb, "--help")
        assert "Example" in helped.out
        assert f"rulemill points {verb}" in helped.out
        assert max(map(len, helped.out.splitlines())) <= 100
