"""proc.failpoint: the target runs with a failpoint armed."""

from __future__ import annotations

from chaos.nemesis.injectors.base import Injector
from consensus import failpoints


class Failpoint(Injector):
    """Restarts the target with the point armed; at the end without."""

    async def strike(self) -> None:
        """See ``Injector``."""
        point, action = self.option("point", str), self.option("action", str)
        nth = self.option("nth", int)
        if action == "delay":
            text = f"{point}=delay:{self.option('delay_ms', int)}@{nth}+"
        else:
            text = f"{point}={action}@{nth}"
        self._seen = f"failpoint {point}: {action}"
        self._logged = {victim: self._log_size(victim) for victim in self.victims}
        await self.cluster.kill(self.victims, self)
        await self.cluster.restart(self.victims, self, {failpoints.VARIABLE: text})

    async def evidence(self) -> str:
        """The process says so itself, just before it strikes."""
        for victim in self.victims:
            process = self.cluster.processes[victim]
            with process.log_path.open("rb") as log:
                log.seek(self._logged[victim])
                if self._seen.encode() in log.read():
                    code = process.exit_code
                    return f"{victim}: {self._seen}{'' if code is None else f', exit code {code}'}"
        return ""

    async def mend(self) -> None:
        """See ``Injector``."""
        await self.cluster.kill(self.victims, self)
        await self.cluster.restart(self.victims, self)

    def _log_size(self, member: str) -> int:
        return self.cluster.processes[member].log_path.stat().st_size
