// Several models of one chapter, asked the same: by a question, or by a word and a dial that moves its letters. As the
// other panel, this one loads nothing until it is touched.
document.addEventListener("DOMContentLoaded", () => {
  const { make } = Live, LETTERS = "abcdefghijklmnopqrstuvwxyz";
  const moved = (word, by) => [...word].map(c => LETTERS[(LETTERS.indexOf(c) + by) % 26]).join("");
  for (const [number, box] of [...document.querySelectorAll(".live-several")].entries()) panel(box, `several-${number}`);

  function panel(box, id) {
    const cipher = box.dataset.kind === "cipher", prompts = JSON.parse(box.dataset.prompts);
    let models = null, loading = null, wait = 0, speak = 0;
    const text = make("input", { type: "text", id: `${id}-asked`, value: cipher ? "dragon" : prompts[0], autocomplete: "off", spellcheck: false });
    const words = make("ul", { id: `${id}-words`, className: "live-words", hidden: true, aria: { role: "listbox", label: "Words that the models know" } });
    const top = [make("div", { className: "live-question" }, make("label", { htmlFor: text.id }, cipher ? "Your word" : "Ask them all"), text, words)];
    let turned = null; // by how much letters are moved, or how much of a shift is taken out
    const dial = (name, label, settings) => {
      turned = make("input", { type: "range", ...settings, dataset: { dial: name } });
      const out = make("output", { textContent: settings.value });
      turned.addEventListener("input", () => { out.textContent = turned.value; soon(); });
      top.push(make("div", { className: "live-dials" }, make("label", {}, `${label} `, turned, out)));
    };
    if (cipher) {
      text.addEventListener("input", soon);
      dial("shift", "moved by", { min: 1, max: 25, value: 13 });
    } else {
      for (const [name, value] of Object.entries({ role: "combobox", "aria-autocomplete": "list", "aria-expanded": false, "aria-controls": words.id }))
        text.setAttribute(name, value);
      const complete = Live.completed(text, words, id, () => Object.values(models ?? {})[0]?.words, go, soon);
      top.push(make("div", { className: "live-chips" }, ...prompts.map(p =>
        make("button", { type: "button", textContent: p, onclick: () => { text.value = p; complete.close(); go(); } }))));
      if (box.dataset.dial) dial("part", box.dataset.dial, { min: 0, max: 100, step: 5, value: 0 });
    }
    text.addEventListener("focus", () => { if (!models) go(); });
    const wake = make("button", { type: "button", className: "live-wake", textContent: "Wake the models", onclick: () => go() });
    const status = make("p", { className: "live-status", aria: { role: "status" } });
    const aloud = make("p", { className: "live-aloud", aria: { live: "polite" } });
    const answers = make("table", { className: "live-answers", hidden: true }), still = box.querySelector(".live-still");
    box.prepend(...top, make("p", {}, wake), status, answers, aloud);

    function go() {
      loading ||= Live.fetched(box.dataset.folder, box.dataset.live).then(({ models: shapes, words, weights, between }) => {
        models = Object.fromEntries(Object.entries(shapes).map(([name, shape]) =>
          [name, Object.assign(new Live.Model(shape, words, weights[name], 256, between), { asked: shape })]));
        wake.hidden = true;
        if (still) still.hidden = true;
        answers.hidden = false;
      });
      loading.then(answer, error => { loading = null; status.textContent = `The models could not be loaded: ${error.message}`; });
    }
    function soon() { clearTimeout(wait); wait = setTimeout(go, 60); }

    function answer() {
      const said = text.value.trim(), first = Object.values(models)[0];
      if (!said || cipher && !/^[a-z]{1,10}$/.test(said)) {
        status.textContent = cipher ? "Type a word of small letters, ten at most." : "Ask something.";
        return;
      }
      const by = Number(turned?.value), hidden = cipher ? moved(said, by) : "", prompt = cipher ? `${String(by).padStart(2, "0")}${hidden}=` : said;
      const unknown = first.between ? [...new Set(said.split(/\s+/).filter(w => !first.ids.has(w)))] : [];
      const started = performance.now();
      const rows = Object.entries(models).map(([name, model]) => {
        const change = model.asked.shift && Live.without(model, model.asked.shift, by / 100);
        const reply = model.decode(model.reply(model.row(prompt, model.asked.template), { most: model.asked.room, change }));
        const found = model.asked.form === "steps" ? reply.split("00")[1] ?? "" : reply;
        const mark = cipher ? (found === said ? " ✓" : " ✗") : "";
        return make("tr", {}, make("th", { scope: "row", textContent: name }), make("td", { dataset: { model: name, reply }, textContent: `${found || "nothing"}${mark}` }));
      });
      answers.replaceChildren(make("caption", { textContent: cipher ? `What each makes of “${hidden}”, moved by ${by}` : "What each answers" }), make("tbody", {}, ...rows));
      status.textContent = unknown.length
        ? Live.unread(unknown)
        : cipher && (said.length < 4 || said.length > 6) ? "Their pages had words of 4 to 6 letters." : `${Math.round(performance.now() - started)} ms, in this page.`;
      clearTimeout(speak);
      speak = setTimeout(() => { aloud.textContent = rows.map(r => r.textContent).join(". "); }, 900);
    }
  }
});
