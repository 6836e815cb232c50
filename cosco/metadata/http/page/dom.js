// Makes and changes elements. What comes from the service is text, never markup.

const SVG = "http://www.w3.org/2000/svg";

// Return an element. Attributes: `on` has listeners by event, `class` and others are as in HTML;
// false and null leave one out. Children: nodes, texts, lists of them; null is none.
export function h(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

// The same of SVG.
export function s(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "on") {
      for (const [event, listener] of Object.entries(value)) node.addEventListener(event, listener);
    } else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value === true ? "" : String(value));
    }
  }
  node.append(...children.flat(3).filter((one) => one !== null && one !== undefined));
  return node;
}

// Have an element say a text; what says it already is left alone, for those who read it aloud.
export function put(node, text) {
  const said = String(text);
  if (node.textContent !== said) node.textContent = said;
}

// Have an attribute, or none for null.
export function attr(node, name, value) {
  if (value === null || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, String(value));
}

// Have a list have one child for each item, in their order. Children of items that stay stay, so
// that the focus does, too. `make(item)` returns a child, `update(child, item)` changes it.
export function keyed(parent, items, keyOf, make, update) {
  const before = parent.keyedChildren ?? new Map();
  const now = new Map();
  let place = parent.firstChild;
  for (const item of items) {
    const key = String(keyOf(item));
    if (now.has(key)) continue;
    const child = before.get(key) ?? make(item);
    update?.(child, item);
    now.set(key, child);
    if (child === place) place = place.nextSibling;
    else parent.insertBefore(child, place);
  }
  while (place) {
    // all that stays is before it by now
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
  parent.keyedChildren = now;
}

// A path of the interface, with an id as one segment.
export const segment = (id) => encodeURIComponent(id);

let ids = 0;
// An id of an element that no other has.
export const newId = (prefix) => `${prefix}-${++ids}`;
