// Small repairs that need to know the finished page. The pages read well without them.
document.addEventListener("DOMContentLoaded", () => {
  // What scrolls sideways must be reachable by keyboard.
  const boxes = "article .ledger-box, article .output, article .explorer, article pre, article .formula, " +
    "article .pst-scrollable-table-container";
  const reach = () => {
    for (const box of document.querySelectorAll(boxes)) {
      if (box.scrollWidth <= box.clientWidth || getComputedStyle(box).overflowX === "visible") continue;
      if (box.querySelector("a[href], button, select, input") || box.hasAttribute("tabindex")) continue;
      box.tabIndex = 0;
    }
  };
  reach();
  addEventListener("resize", reach);
});
