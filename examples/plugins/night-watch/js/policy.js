// Restarts a VM a few times, then waits for a person.
//
// Settings, with their defaults: {"max_restarts": 3, "delay_ms": 1000}

const DEFAULTS = { max_restarts: 3, delay_ms: 1000 };

function settingsOf(json) {
  return { ...DEFAULTS, ...JSON.parse(json) };
}

export const plugin = {
  describe() {
    return {
      name: "night-watch",
      version: "0.1.0",
      summary: "Restarts a VM a few times, then waits for a person",
      attributes: [],
    };
  },

  // What is thrown is shown to the operator, and the settings are not stored.
  validateSettings(json) {
    const settings = settingsOf(json);
    for (const key of Object.keys(settings)) {
      if (!(key in DEFAULTS)) throw `there is no setting ${key}`;
    }
    const { max_restarts, delay_ms } = settings;
    if (!Number.isInteger(max_restarts) || max_restarts < 0 || max_restarts > 10) {
      throw "max_restarts is 0 to 10";
    }
    if (!Number.isInteger(delay_ms) || delay_ms < 1 || delay_ms > 60_000) {
      throw "delay_ms is 1 to 60000";
    }
  },
};

export const recovery = {
  decide(facts) {
    const { max_restarts, delay_ms } = settingsOf(facts.context.settings);
    const { desired } = facts.vm;
    if (desired === "stopped" || desired === "deleted") {
      return { action: { tag: "leave-stopped" }, reason: `its user wants it ${desired}` };
    }
    if (facts.attempts >= max_restarts) {
      return {
        action: { tag: "leave-stopped" },
        reason: `it needs a person: ${facts.incident.detail}`,
      };
    }
    // The seed keeps VMs that failed together from coming back together. It has 64 bits, of which
    // a Number keeps 53: enough for that.
    const jitter = facts.context.seed % delay_ms;
    return {
      action: { tag: "restart-after", val: delay_ms * 2 ** facts.attempts + jitter },
      reason: `restart ${facts.attempts + 1} of ${max_restarts}`,
    };
  },
};
