"""Restarts a VM a few times, then waits for a person.

Settings, with their defaults: {"max_restarts": 3, "delay_ms": 1000}
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports.plugin import Description
from wit_world.exports.recovery import (
    Action_LeaveStopped,
    Action_RestartAfter,
    Decision,
    Facts,
)

DEFAULTS = {"max_restarts": 3, "delay_ms": 1000}


class Plugin(exports.Plugin):
    def describe(self) -> Description:
        return Description(
            name="night-watch",
            version="0.1.0",
            summary="Restarts a VM a few times, then waits for a person",
            attributes=[],
        )

    def validate_settings(self, settings: str) -> None:
        """What is raised is shown to the operator, and the settings are not stored."""
        try:
            values = DEFAULTS | json.loads(settings)
        except ValueError as error:
            raise Err(str(error))
        for key in values:
            if key not in DEFAULTS:
                raise Err(f"there is no setting {key}")
        if type(values["max_restarts"]) is not int or not 0 <= values["max_restarts"] <= 10:
            raise Err("max_restarts is 0 to 10")
        if type(values["delay_ms"]) is not int or not 1 <= values["delay_ms"] <= 60_000:
            raise Err("delay_ms is 1 to 60000")


class Recovery(exports.Recovery):
    def decide(self, facts: Facts) -> Decision:
        settings = DEFAULTS | json.loads(facts.context.settings)
        if facts.vm.desired in ("stopped", "deleted"):
            return Decision(Action_LeaveStopped(), f"its user wants it {facts.vm.desired}")
        if facts.attempts >= settings["max_restarts"]:
            return Decision(Action_LeaveStopped(), f"it needs a person: {facts.incident.detail}")
        # The seed keeps VMs that failed together from coming back together.
        jitter = facts.context.seed % settings["delay_ms"]
        delay = settings["delay_ms"] * 2**facts.attempts + jitter
        return Decision(
            Action_RestartAfter(delay),
            f"restart {facts.attempts + 1} of {settings['max_restarts']}",
        )
