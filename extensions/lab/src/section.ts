/** A part of the panel with a heading that folds it; hidden until its source exists. */

import { h, setAttribute } from './dom';

export class Section {
  readonly node: HTMLElement;
  readonly body: HTMLElement;

  constructor(readonly title: string) {
    const id = `mlsys-section-${title.toLowerCase()}-${count++}`;
    this.body = h('div', { class: 'mlsys-section-body', id });
    this._heading = h('button', { class: 'mlsys-heading', type: 'button', 'aria-expanded': 'true', 'aria-controls': id }, title);
    this._heading.addEventListener('click', () => this.fold(!this.body.hidden));
    this.node = h('section', { class: 'mlsys-section', 'aria-label': title, 'data-section': title.toLowerCase() }, h('h3', {}, this._heading), this.body);
    this.show(false);
  }

  show(shown: boolean): void {
    this.node.hidden = !shown;
  }

  get shown(): boolean {
    return !this.node.hidden && !this.body.hidden;
  }

  fold(folded: boolean): void {
    this.body.hidden = folded;
    setAttribute(this._heading, 'aria-expanded', String(!folded));
  }

  private _heading: HTMLElement;
}

let count = 0;
