// Small helpers: elements are made, never parsed, so that no text from the chain can become markup.

export const $ = (id) => document.getElementById(id);

export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name.startsWith("data-") || name.startsWith("aria-")) node.setAttribute(name, value);
    else node[name] = value;
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function svg(tag, props = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(props)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Write a text only when it is another one: screen readers announce what is written. */
export function say(node, text, className) {
  if (node.textContent !== text) node.textContent = text;
  if (className !== undefined && node.className !== className) node.className = className;
}

/** A table's row; `cells` are [label, content, class]. */
export function row(cells, props = {}) {
  return el("tr", props, ...cells.map(([label, content, className]) =>
    el("td", { className: className ?? "", "data-label": label }, content ?? "")));
}

export function emptyRow(columns, text) {
  return el("tr", {}, el("td", { colSpan: columns, className: "empty", textContent: text }));
}
