// Terms and citations say on a card what they are: when pointed at, when reached by keyboard, and at the first touch.
document.addEventListener("DOMContentLoaded", () => {
  const links = document.querySelectorAll("article a.term[title], article .bibtex-citation a[title]");
  if (!links.length) return;
  const card = Object.assign(document.createElement("div"), { className: "card-of-link", id: "card-of-link", hidden: true });
  card.setAttribute("role", "tooltip");
  document.body.append(card);
  let shown = null, touched = false;
  const hide = () => { card.hidden = true; shown?.removeAttribute("aria-describedby"); shown = null; };
  const place = () => {
    const at = shown.getClientRects()[0], room = document.documentElement.clientWidth - card.offsetWidth - 8;
    const below = at.bottom + card.offsetHeight + 12 < innerHeight;
    card.style.left = `${Math.max(8, Math.min(at.left, room))}px`;
    card.style.top = `${below ? at.bottom + 6 : at.top - card.offsetHeight - 6}px`;
  };
  const show = link => {
    if (shown === link) return;
    hide();
    card.textContent = link.dataset.card;
    card.hidden = false;
    link.setAttribute("aria-describedby", card.id);
    shown = link;
    place();
  };
  for (const link of links) {
    link.dataset.card = link.title; // the browser's own hint would stand beside the card
    link.removeAttribute("title");
    link.addEventListener("pointerenter", e => e.pointerType === "mouse" && show(link));
    link.addEventListener("pointerleave", e => e.pointerType === "mouse" && document.activeElement !== link && hide());
    link.addEventListener("focus", () => touched || show(link));
    link.addEventListener("blur", hide);
    link.addEventListener("pointerdown", e => { touched = e.pointerType === "touch"; });
    link.addEventListener("click", e => {
      if (touched && shown !== link) { e.preventDefault(); show(link); } // the second touch follows the link
      touched = false;
    });
  }
  addEventListener("keydown", e => e.key === "Escape" && hide());
  addEventListener("scroll", () => shown && (document.activeElement === shown ? place() : hide()), { passive: true });
});
