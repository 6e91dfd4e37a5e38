"""The report of one run: one HTML page that needs nothing else, no network and no second file.

The page is made from a template; the style and the script are put into it, and what the script
draws is a JSON document in it. Without a script everything but the timeline is still there.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import attrs

from chaos.checkers.pipeline import Report, check_history
from chaos.history.format import History
from chaos.history.reader import read_history
from chaos.report.diagram import Diagram, draw
from chaos.report.explain import Explanation, first_violation
from chaos.report.templates import render, script_json
from chaos.report.timeline import OPERATIONS_SHOWN_MAX, timeline, whole
from chaos.verdict import Verdict

REPORT_NAME: Final = "report.html"
FINDINGS_SHOWN_MAX: Final = 100


@attrs.frozen(slots=True)
class Fact:
    """A line of the page's head: a name and its value."""

    name: str
    value: str


def write_report(history_path: Path, report: Report | None = None) -> Path:
    """Write the page of a history beside it, and return its path.

    Args:
        history_path: of the history file.
        report: what the checks said of it, if that is known; else they are run.

    Raises:
        HistoryError: the history cannot be read.
        WorkloadFailed: it names a workload that cannot be found.
        OSError: the page cannot be written.
    """
    history = read_history(history_path)
    if report is None:
        report = check_history(history)
    path = history_path.with_name(REPORT_NAME)
    path.write_text(page(history, report, str(history_path)), encoding="utf-8")
    return path


def page(history: History, report: Report, source: str) -> str:
    """Return the HTML page of a history and what the checks said of it; ``source`` names it."""
    violation = first_violation(history, report)
    data = timeline(history, violation.window if violation is not None else None)
    data["accused"] = sorted(violation.accused) if violation is not None else []
    counts = dict.fromkeys(("ok", "fail", "info"), 0)
    for operation in history.operations:
        counts[operation.outcome.value] += 1
    return render(
        "report.html.j2",
        title=title_of(history),
        verdict=report.verdict.value,
        verdict_text=_VERDICT_TEXTS[report.verdict],
        facts=facts_of(history),
        counts=counts,
        violation=violation,
        diagram=_diagram(history, violation),
        results=report.results,
        findings=report.findings[:FINDINGS_SHOWN_MAX],
        findings_in_all=sum(report.counts.values()),
        replay=history.header.get("replay", ""),
        check_again=f"chaos check {source}",
        data=script_json(data),
        operations_in_all=data["operations_in_all"],
        operations_shown=data["operations_shown"],
        operations_shown_max=OPERATIONS_SHOWN_MAX,
        header=json.dumps(history.header, ensure_ascii=False, indent=2),
    )


_VERDICT_TEXTS: Final = {
    Verdict.OK: "every promise that was checked was kept",
    Verdict.VIOLATED: "a promise was broken",
    Verdict.UNKNOWN: "nothing wrong was found, but a check could not decide",
    Verdict.INVALID: "this run proves nothing: see the assumptions",
}


def title_of(history: History) -> str:
    """What ran, in a few words: target, workload and faults."""
    header = history.header
    faults = " + ".join(header.get("faults", ()))
    if not faults:
        faults = "a plan of faults" if header.get("faults_expected") else "no faults"
    workload = header.get("workload", "register")
    return f"{header.get('target', 'a history')}: {workload} under {faults}"


def facts_of(history: History) -> list[Fact]:
    """The head's lines: what ran and how."""
    header = history.header
    run = whole(history)
    cluster = header.get("cluster", {})
    facts = [
        Fact("target", f"{header.get('target', '?')} {header.get('target_version', '')}".strip()),
        Fact("seed", str(header.get("seed", "?"))),
        Fact("recorded", f"{(run.end - run.begin) / 1e9:.2f} s"),
        Fact("faults planned", str(len(header.get("plan", {}).get("fault", ())))),
        Fact("faults begun", str(sum(fault.phase == "start" for fault in history.faults))),
        Fact("proxies", str(header.get("proxies", "?"))),
    ]
    if cluster:
        facts.append(
            Fact(
                "cluster",
                f"{cluster.get('nodes', '?')} members, heartbeat {cluster.get('heartbeat_ms')} ms, "
                f"election {cluster.get('election_ms')} ms",
            )
        )
    return facts


def _diagram(history: History, violation: Explanation | None) -> Diagram | None:
    if violation is None or not violation.operations:
        return None
    return draw(violation.operations, violation.accused, whole(history).begin)
