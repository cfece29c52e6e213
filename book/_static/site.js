// Small repairs that need to know the finished page. The pages read well without them.
document.addEventListener("DOMContentLoaded", () => {
  // What scrolls sideways must be reachable by keyboard.
  const boxes = "article .ledger-box, article .output, article .explorer, article pre, article .formula, " +
    "article .pst-scrollable-table-container";
  const reach = () => {
    for (const box of document.querySelectorAll(boxes)) {
      if (box.scrollWidth <= box.clientWidth || getComputedStyle(box).overflowX === "visible") {
        box.removeAttribute("tabindex"); // the theme gives one to each; a stop where nothing scrolls leads nowhere
        continue;
      }
      if (box.querySelector("a[href], button, select, input") || box.hasAttribute("tabindex")) continue;
      box.tabIndex = 0;
    }
  };
  reach();
  addEventListener("resize", reach);

  // A figure as large as the screen, or larger: then its box scrolls.
  for (const figure of document.querySelectorAll("article figure:has(figcaption)")) {
    const picture = figure.querySelector("img, svg"), name = figure.querySelector(".caption-number")?.textContent.trim();
    if (!picture) continue;
    const button = Object.assign(document.createElement("button"), { className: "enlarge", textContent: "Enlarge" });
    button.setAttribute("aria-label", `Enlarge ${name || "this figure"}`);
    button.addEventListener("click", () => {
      const box = Object.assign(document.createElement("dialog"), { className: "enlarged" });
      const close = Object.assign(document.createElement("button"), { textContent: "Close" });
      box.append(close, picture.cloneNode(true));
      box.addEventListener("click", () => box.close());
      box.addEventListener("close", () => box.remove());
      document.body.append(box);
      box.showModal();
    });
    figure.querySelector("figcaption").append(button);
  }

  // What the search finds is opened at the first section that has all the words: the index knows pages only.
  const results = document.getElementById("search-results");
  const words = (new URLSearchParams(location.search).get("q") ?? "").toLowerCase().split(/\s+/).filter(Boolean);
  const has = node => words.every(word => node.textContent.toLowerCase().includes(word));
  const narrow = async link => {
    const page = new DOMParser().parseFromString(await (await fetch(link.href)).text(), "text/html");
    let found = page.querySelector("article section[id]"); // the page itself
    for (let next = found; next; next = [...next.querySelectorAll("section[id]")].find(has)) found = next;
    const title = found?.querySelector("h2, h3, h4");
    if (!found?.parentElement.closest("section") || !title) return;
    link.hash = found.id;
    link.append(` › ${title.textContent.replace(/#$/, "").trim()}`);
  };
  if (results && location.protocol !== "file:") // a page from a folder cannot read another one
    new MutationObserver(changes => {
      for (const item of changes.flatMap(change => [...change.addedNodes])) {
        const link = item.tagName === "LI" ? item.querySelector("a[href]") : null;
        if (link && !link.hash) narrow(link);
      }
    }).observe(results, { childList: true, subtree: true });

  // On paper every solution is open.
  const solutions = [...document.querySelectorAll("details.solution")];
  let folded = [];
  addEventListener("beforeprint", () => { folded = solutions.filter(d => !d.open); folded.forEach(d => { d.open = true; }); });
  addEventListener("afterprint", () => folded.forEach(d => { d.open = false; }));

  // Back to a page: the browser may have kept a choice and forgotten what it shows.
  addEventListener("pageshow", () => {
    for (const control of document.querySelectorAll("article .explorer :is(select[onchange], input[type=range][oninput])"))
      control.dispatchEvent(new Event(control.tagName === "SELECT" ? "change" : "input"));
  });

  // A row becomes a card on a narrow screen (custom.css): each cell then needs the name of its column. The ledgers of
  // the chapters bring them; a table of Sphinx cannot.
  for (const table of document.querySelectorAll("table.scoreboard, table.exceptions, table.robustness")) {
    const heads = [...table.querySelectorAll("thead th")].map(th => th.textContent.trim());
    for (const row of table.querySelectorAll("tbody tr"))
      [...row.children].forEach((cell, i) => cell.dataset.label = heads[i] ?? "");
  }

  // From a ledger's row to its line on the scoreboard, and from a verdict to what it means.
  const chapter = location.pathname.match(/\/notebooks\/([^/]+)\.html$/)?.[1];
  const book = document.querySelector("link[rel=index]")?.getAttribute("href")?.replace(/genindex\.html$/, "") ?? "";
  if (chapter) for (const id of document.querySelectorAll("table.ledger .claim-id")) {
    const link = Object.assign(document.createElement("a"), {
      className: "claim-id", textContent: "scoreboard",
      href: `${book}book/scoreboard.html#${chapter}-${id.textContent}`,
    });
    link.setAttribute("aria-label", `${id.textContent} on the scoreboard`);
    id.after(" ", link);
  }
  for (const mark of document.querySelectorAll("article td .verdict")) {
    if (mark.closest("a")) continue;
    const link = document.createElement("a");
    link.className = "verdict-link";
    link.href = `${book}book/how-to-run.html#reading-a-ledger`;
    mark.replaceWith(link);
    link.append(mark);
  }
});
