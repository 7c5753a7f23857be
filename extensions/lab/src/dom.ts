/** Elements without markup: a text from a kernel is only ever set as text, so no name can become a script. */

type Child = Node | string | null;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children.filter((child): child is Node | string => child !== null));
  return node;
}

/** A sentence, with what stands in backticks as code. */
export function prose(text: string): Node[] {
  return text.split(/`([^`]+)`/).map((part, i) => (i % 2 === 1 ? h('code', {}, part) : document.createTextNode(part)));
}

/** `does` is told on pointing at it; `says` to those who hear the page, where the label alone would not tell which one. */
export function button(label: string, does: string, pressed: () => void, says: string = label): HTMLButtonElement {
  const node = h('button', { class: 'mlsys-button jp-mod-styled', type: 'button', title: does, 'aria-label': says }, label);
  node.addEventListener('click', pressed);
  return node;
}

/** Only where it is another one: a page that is not touched is not laid out. */
export function setText(node: Node, text: string): void {
  if (node.textContent !== text) {
    node.textContent = text;
  }
}

export function setAttribute(node: Element, name: string, value: string): void {
  if (node.getAttribute(name) !== value) {
    node.setAttribute(name, value);
  }
}
