// One switch for all folded code of a page, remembered for the next chapter.
document.addEventListener("DOMContentLoaded", () => {
  const folds = document.querySelectorAll("article details.hide.above-input");
  const title = document.querySelector("article h1");
  if (!folds.length || !title) return;
  const remembered = () => { try { return localStorage.getItem("code") === "open"; } catch { return false; } };
  const button = Object.assign(document.createElement("button"), { type: "button", className: "code-switch" });
  const set = open => {
    for (const fold of folds) fold.open = open;
    button.textContent = open ? "Fold code" : "Show all code";
    button.setAttribute("aria-pressed", open);
  };
  button.addEventListener("click", () => {
    const open = button.getAttribute("aria-pressed") !== "true";
    try { localStorage.setItem("code", open ? "open" : "folded"); } catch { /* a private window: this page only */ }
    set(open);
  });
  set(remembered());
  title.after(button);
  // The theme names every fold alike; what it says on it is the better name.
  for (const fold of folds) fold.querySelector("summary")?.removeAttribute("aria-label");
});
