"""A bank: transfers move money, so every reader sees the same total, and no debt.

``transfer`` has in ``input`` ``{"from", "to", "amount"}``; ``read`` has in ``output`` every
account's balance by name. The header's ``bank`` says the accounts and the total.
"""

from __future__ import annotations

from typing import Final

from chaos.history.format import History, Outcome
from chaos.verdict import CheckResult, Findings, Kind, Verdict

CHECKER: Final = "bank"


def check_bank(history: History) -> CheckResult:
    """Add up every read; ``unknown`` if there was none, or the header says no total."""
    findings = Findings()
    terms = history.header.get("bank")
    if terms is None:
        findings.note(Kind.UNDECIDED, "the history's header does not say the bank's total")
        return findings.result(CHECKER, Verdict.UNKNOWN)
    accounts, total = set(terms["accounts"]), terms["total"]
    reads = 0
    for operation in history.operations:
        if operation.f != "read" or operation.outcome is not Outcome.OK:
            continue
        reads += 1
        balances: dict[str, int] = operation.output
        wrong = accounts.symmetric_difference(balances)
        if wrong:
            findings.add(
                Kind.WRONG_READ,
                f"read {operation.id} of {operation.node} has other accounts than there are: "
                f"{', '.join(sorted(wrong))}",
                (operation.id,),
                operation.revision,
            )
            continue
        found = sum(balances.values())
        if found != total:
            findings.add(
                Kind.WRONG_TOTAL,
                f"read {operation.id} of {operation.node} adds up to {found}, not {total}: "
                f"{balances}",
                (operation.id,),
                operation.revision,
            )
        negative = {name: balance for name, balance in balances.items() if balance < 0}
        if negative:
            findings.add(
                Kind.WRONG_TOTAL,
                f"read {operation.id} of {operation.node} has debts: {negative}",
                (operation.id,),
                operation.revision,
            )
    return findings.result(CHECKER, Verdict.OK if reads else Verdict.UNKNOWN)
