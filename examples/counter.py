"""A replicated counter on three real processes: `python examples/counter.py`."""

from pathlib import Path

from consensus import MethodMachine, command, query
from consensus.localgroup import LocalGroup


class Counter(MethodMachine):
    def __init__(self) -> None:
        self.value = 0

    @command
    def add(self, amount: int) -> int:
        self.value += amount
        return self.value

    @query
    def read(self) -> int:
        return self.value


def main() -> None:
    with LocalGroup("counter:Counter", Path(__file__).parent) as group:
        for count in range(1, 11):
            applied = group.client.propose(Counter.encode("add", amount=1), timeout_s=20)
            print(f"add(1) -> {applied.result}   (index {applied.index}, term {applied.term})")
            if count == 5:
                leader = group.leader()
                print(f"killing the leader, {leader} ...")
                group.kill(leader)
        print(f"read() -> {group.client.query(Counter.encode('read'))}: nothing was lost")


if __name__ == "__main__":
    main()
