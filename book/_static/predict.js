// A place for the reader's guess at each question of "Predict first": the choices that the question lists, a slider
// where the answer is the height of a figure, else a line of text. Guesses stay in this browser. They stand again in or
// below the figure that answers the question and above its answer below the ledger, and are printed with the page.
document.addEventListener("DOMContentLoaded", () => {
  const questions = [...document.querySelectorAll(".admonition.predict ol > li")];
  const answers = [...document.querySelectorAll(".admonition.answered ol > li")];
  if (!questions.length) return;
  const key = `guesses:${location.pathname.split("/").pop()}`;
  const read = () => { try { return JSON.parse(localStorage.getItem(key)) ?? {}; } catch { return {}; } };
  const make = (tag, settings) => Object.assign(document.createElement(tag), settings);
  let guesses = read();
  const cells = (kind, i) => document.querySelectorAll(`.tag_${kind}-${i + 1}`);

  // A level across a figure, where its axis has it: the ticks say how heights are drawn. Shares, or marks out of ten.
  const draw = (cell, share, said) => {
    const svg = cell.querySelector("svg.plot"), axis = svg?.querySelector('[id$="matplotlib.axis_2"]');
    const ticks = [...axis?.querySelectorAll('[id*="ytick"]') ?? []].map(t => [parseFloat(t.textContent), parseFloat(t.querySelector("use").getAttribute("y"))]);
    if (ticks.length < 2 || Number.isNaN(share)) return; // words, kept from when the question asked for them
    const [low, high] = [ticks[0], ticks[ticks.length - 1]], ground = svg.querySelector('[id$="-patch_2"]').getBBox();
    const value = share * (high[0] > 2 ? 10 : 1), y = low[1] + (value - low[0]) / (high[0] - low[0]) * (high[1] - low[1]);
    const part = (tag, settings) => {
      const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, v] of Object.entries(settings)) node.setAttribute(name, v);
      return node;
    };
    const group = part("g", { class: "you-said-line" });
    const word = part("text", { x: ground.x + ground.width - 2, y: y + (share > 0.9 ? 12 : -4), "text-anchor": "end" });
    word.textContent = `you said ${said}`;
    group.append(part("line", { x1: ground.x, x2: ground.x + ground.width, y1: y, y2: y }), word);
    svg.append(group);
  };

  const show = () => {
    for (const note of document.querySelectorAll(".you-said, .you-said-line")) note.remove();
    questions.forEach((_, i) => {
      if (!guesses[i]) return;
      const note = begin => {
        const said = make("p", { className: "you-said", textContent: begin });
        said.append(make("em", { textContent: guesses[i] }));
        return said;
      };
      for (const cell of cells("answers", i))
        (cell.querySelector("figcaption") ?? cell).append(note(`You said to question ${i + 1}: `));
      answers[i]?.prepend(note("You said: "));
      for (const cell of cells("drawn", i)) draw(cell, parseFloat(guesses[i]) / 100, guesses[i]);
    });
  };
  const keep = (i, said) => {
    guesses = { ...read(), ...guesses, [i]: said };
    try { localStorage.setItem(key, JSON.stringify(guesses)); } catch { /* a private window: this page only */ }
    show();
  };
  questions.forEach((question, i) => {
    const list = question.querySelector("ul");
    const asked = [...question.childNodes].filter(n => n !== list).map(n => n.textContent).join(" ").trim().replace(/\s+/g, " ");
    const name = `Your guess: ${asked}`;
    if (list) {
      list.classList.add("guess", "guess-choices");
      list.setAttribute("role", "radiogroup");
      list.setAttribute("aria-label", name);
      for (const item of list.children) {
        const said = item.textContent.trim(), label = make("label", {});
        const input = make("input", { type: "radio", name: `guess-${i}`, value: said, checked: guesses[i] === said, autocomplete: "off" });
        input.addEventListener("change", () => keep(i, said));
        label.append(input, ...item.childNodes);
        item.setAttribute("role", "none");
        item.replaceChildren(label);
      }
      return;
    }
    const label = make("label", { className: "guess", textContent: "Your guess " });
    const slider = cells("drawn", i).length > 0, out = make("output", { textContent: guesses[i] ?? "" });
    const input = make("input", slider
      ? { type: "range", min: 0, max: 100, value: parseFloat(guesses[i] ?? 50), autocomplete: "off" }
      : { type: "text", value: guesses[i] ?? "", autocomplete: "off" });
    input.setAttribute("aria-label", name);
    input.addEventListener("input", () => {
      const said = slider ? `${input.value}%` : input.value.trim();
      out.textContent = slider ? said : "";
      keep(i, said);
    });
    label.append(input, ...slider ? [out] : []);
    question.append(label);
  });
  show();
});
