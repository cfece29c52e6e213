// The panel around the live models: a question, the replies of base and aligned model, and the shift between them.
// Nothing is loaded until the panel is touched. Without this script the replies that the book holds stand there.
document.addEventListener("DOMContentLoaded", () => {
  const { make } = Live;
  const KINDS = [[1, "unshifted"], [3, "marginal"], [Infinity, "shifted"]];
  const kind = rank => KINDS.find(([most]) => rank <= most)[1];
  const spelt = word => word === "<eos>" ? "end" : word;

  for (const [number, box] of [...document.querySelectorAll(".live:not(.live-several)")].entries()) panel(box, `live-${number}`);

  function panel(box, id) {
    const prompts = JSON.parse(box.dataset.prompts), rules = JSON.parse(box.dataset.rules || "null");
    let models = null, loading = null, draw = 1, wait = 0, speak = 0;

    const question = make("input", {
      type: "text", id: `${id}-question`, value: prompts[0], autocomplete: "off", spellcheck: false,
      aria: { role: "combobox", autocomplete: "list", expanded: false, controls: `${id}-words` },
    });
    const words = make("ul", { id: `${id}-words`, className: "live-words", hidden: true, aria: { role: "listbox", label: "Words that the models know" } });
    const chips = make("div", { className: "live-chips" }, ...prompts.map(p =>
      make("button", { type: "button", textContent: p, onclick: () => { question.value = p; complete.close(); go(); } })));
    const begun = make("input", { type: "text", id: `${id}-begun`, autocomplete: "off", spellcheck: false, placeholder: "sure !" });
    const dials = make("div", { className: "live-dials" });
    const dial = (name, label, most, step, value) => {
      const out = make("output", { textContent: value });
      const input = make("input", { type: "range", min: 0, max: most, step, value, dataset: { dial: name } });
      input.addEventListener("input", () => { out.textContent = input.value; soon(); });
      dials.append(make("label", {}, `${label} `, input, out));
      return input;
    };
    const dialled = rules && {
      end: dial("end", "end: added to the end’s logit", 40, 1, rules.end),
      words: dial("words", "words: times the biases", 2, 0.1, 1),
      seen: dial("seen", "seen: taken from what was said", 6, 0.5, rules.seen),
    };
    const warmth = dial("temperature", "temperature", 1.5, 0.1, 0);
    const again = make("button", { type: "button", textContent: "Draw again", hidden: true, onclick: () => { draw++; go(); } });
    dials.append(make("label", { htmlFor: begun.id }, "begin the reply for them ", begun), again);

    const said = {
      base: make("p", { className: "live-reply", dataset: { model: "base" } }),
      aligned: make("p", { className: "live-reply", dataset: { model: "aligned" } }),
    };
    const status = make("p", { className: "live-status", aria: { role: "status" } });
    const aloud = make("p", { className: "live-aloud", aria: { live: "polite" } });
    const choices = make("div", { className: "live-choices" });
    const legend = make("p", { className: "live-legend" }, "In the aligned reply, the base’s own first choice is plain; ",
      make("span", { className: "live-marginal", textContent: "rank 2 or 3" }), ", ",
      make("span", { className: "live-shifted", textContent: "rank 4 and beyond" }), ". Choose a word to see what the base would have said.");
    const wake = make("button", { type: "button", className: "live-wake", textContent: "Wake the two models", onclick: () => go() });
    const still = box.querySelector(".live-still");
    const live = make("div", { className: "live-answers", hidden: true },
      make("p", { className: "live-name" }, rules ? "Base model with the rules" : "Base model"), said.base,
      make("p", { className: "live-name" }, "Aligned model"), said.aligned, legend, choices);
    box.prepend(
      make("div", { className: "live-question" }, make("label", { htmlFor: question.id }, "Ask both models"), question, words),
      chips, dials, make("p", {}, wake), status, live, aloud);

    function load() {
      const name = box.dataset.live;
      status.textContent = "Loading the weights …";
      return Live.fetched(box.dataset.folder, name).then(({ models: shapes, words, weights }) => {
        models = Object.fromEntries(["base", "aligned"].map(m => [m, new Live.Model(shapes[m], words, weights[m])]));
        wake.hidden = true;
        if (still) still.hidden = true;
        live.hidden = false;
      });
    }
    function go() {
      loading ||= load();
      loading.then(answer, error => { loading = null; status.textContent = `The models could not be loaded: ${error.message}`; });
    }
    function soon() { clearTimeout(wait); wait = setTimeout(go, 60); }

    function answer() {
      const { base, aligned } = models, started = performance.now(), temperature = Number(warmth.value);
      const unknown = [...new Set(`${question.value} ${begun.value}`.split(/\s+/).filter(w => w && !base.ids.has(w)))];
      again.hidden = !temperature;
      if (!question.value.trim()) { status.textContent = "Ask something."; return; }
      const change = dialled && Live.rules({
        end: Number(dialled.end.value), seen: Number(dialled.seen.value), length: rules.length,
        words: Object.fromEntries(Object.entries(rules.words).map(([w, b]) => [w, b * dialled.words.value])),
      }, base);
      const how = { most: Live.files[box.dataset.live].room, temperature, random: Live.stream(draw) }, start = base.row(question.value, false, begun.value);
      const own = base.reply(start, { ...how, change });
      const other = aligned.reply(aligned.row(question.value, true, begun.value), { ...how, random: Live.stream(draw) });
      let logits = base.start(start), steps = start.length * 3 + own.length + other.length;
      said.base.replaceChildren(...own.flatMap(i => [make("span", { textContent: spelt(base.words[i]), className: base.words[i] === "<eos>" ? "live-end" : "" }), " "]));
      const spans = [];
      for (const token of other) {
        const p = Live.softmax(logits), rank = p.filter(v => v > p[token]).length + 1, word = spelt(aligned.words[token]);
        const show = () => list(p, token, word, rank);
        spans.push(make("button", {
          type: "button", textContent: word, className: `live-${kind(rank)}${word === "end" ? " live-end" : ""}`, onclick: show, onfocus: show,
          dataset: { rank }, title: `rank ${rank} for the base`, aria: { label: `${word}, rank ${rank} for the base` },
        }));
        if (base.length >= base.room) break;
        logits = base.read(token);
        steps++;
        if (spans.length === 1) show();
      }
      said.aligned.replaceChildren(...spans.flatMap(s => [s, " "]));
      const took = performance.now() - started;
      box.dataset.speed = Math.round(steps / took * 1000);
      status.textContent = unknown.length
        ? Live.unread(unknown)
        : `${steps} tokens in ${Math.round(took)} ms, in this page.`;
      clearTimeout(speak);
      speak = setTimeout(() => { aloud.textContent = `Base model: ${said.base.textContent}. Aligned model: ${said.aligned.textContent}.`; }, 900);
    }

    function list(p, token, word, rank) {
      const best = [...p.keys()].sort((a, b) => p[b] - p[a]).slice(0, 5);
      const row = (i, note) => make("tr", {}, make("td", { textContent: spelt(models.base.words[i]) }),
        make("td", { textContent: p[i].toFixed(3) }), make("td", {}, make("span", { className: "live-bar", style: `width:${(p[i] * 8).toFixed(2)}rem` }), note));
      choices.replaceChildren(make("table", {},
        make("caption", { textContent: `In place of “${word}” (rank ${rank}) the base would have said` }),
        make("tbody", {}, ...best.map(i => row(i, i === token ? " ← said" : "")), ...(best.includes(token) ? [] : [row(token, " ← said")]))));
    }

    const complete = Live.completed(question, words, id, () => models?.base.words, go, soon);
    question.addEventListener("focus", () => { if (!models) go(); });
    begun.addEventListener("input", soon);
  }
});
