// A place for the reader's guess at each question of "Predict first". Guesses stay in this browser; below the ledger
// they stand beside what was measured, and are printed with the page.
document.addEventListener("DOMContentLoaded", () => {
  const questions = [...document.querySelectorAll("section#predict-first > ol > li")];
  const ledger = document.querySelector("section#the-ledger");
  if (!questions.length || !ledger) return;
  const key = `guesses:${location.pathname.split("/").pop()}`;
  const read = () => { try { return JSON.parse(localStorage.getItem(key)) ?? {}; } catch { return {}; } };
  let guesses = read();
  const box = document.createElement("div");
  box.className = "guesses";
  const show = () => {
    const said = questions.map((q, i) => [q.dataset.asked, guesses[i]]).filter(([, guess]) => guess);
    box.hidden = !said.length;
    const head = Object.assign(document.createElement("p"), { className: "guesses-title", textContent: "What you said before" });
    const list = document.createElement("dl");
    for (const [asked, guess] of said)
      list.append(Object.assign(document.createElement("dt"), { textContent: asked }),
        Object.assign(document.createElement("dd"), { textContent: guess }));
    box.replaceChildren(head, list);
  };
  questions.forEach((question, i) => {
    question.dataset.asked = question.textContent.trim().replace(/\s+/g, " ");
    const label = Object.assign(document.createElement("label"), { className: "guess", textContent: "Your guess " });
    const input = Object.assign(document.createElement("input"), { type: "text", value: guesses[i] ?? "", autocomplete: "off" });
    input.setAttribute("aria-label", `Your guess: ${question.dataset.asked}`);
    input.addEventListener("input", () => {
      guesses = { ...read(), ...guesses, [i]: input.value.trim() };
      try { localStorage.setItem(key, JSON.stringify(guesses)); } catch { /* a private window: this page only */ }
      show();
    });
    label.append(input);
    question.append(label);
  });
  show();
  const verdicts = [...ledger.querySelectorAll("table.ledger")].pop();
  (verdicts?.closest(".cell") ?? ledger.querySelector("h2")).after(box);
});
