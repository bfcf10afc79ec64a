
// Added by `roost plugin build`: what a policy throws while it decides is left where its host looks
// for it, since a component that fails can't be asked any more. It is a note in memory: marks, the
// length of the text in bytes, the text.
{
  const notes = [];
  const textOf = (error) => {
    const frame = String((error && error.stack) || "").trim().split("\n")[0];
    return frame ? `${error} (${frame})` : String(error);
  };
  // A surrogate without its other half has no UTF-8.
  const utf8 = (text) => {
    const start = Array.from(text).slice(0, 1024).join("").replace(/[\ud800-\udfff]/gu, "\ufffd");
    return Array.from(unescape(encodeURIComponent(start)), (c) => c.charCodeAt(0)).slice(0, 1024);
  };
  const leave = (error) => {
    const bytes = utf8(textOf(error));
    const note = new Uint8Array(24 + bytes.length);
    // In halves, so that the marks stand nowhere but in a note.
    Array.from("1-roostp" + "nic:note", (c) => c.charCodeAt(0)).forEach((byte, at) => (note[at] = byte));
    note[16] = bytes.length & 0xff;
    note[17] = bytes.length >> 8;
    note.set(bytes, 24);
    notes.push(note);
  };
  const noted = (decide) =>
    function (...facts) {
      try {
        return decide.apply(this, facts);
      } catch (error) {
        leave(error);
        throw error;
      }
    };
  for (const policy of [
    typeof admission === "object" && admission,
    typeof cleanup === "object" && cleanup,
    typeof recovery === "object" && recovery,
    typeof billing === "object" && billing,
    typeof observer === "object" && observer,
  ]) {
    for (const name of ["decide", "observe"]) {
      if (policy && typeof policy[name] === "function") policy[name] = noted(policy[name]);
    }
  }
}
