/** The section *Diagnosis*: it appears after an exception, and offers to explain it. */

import { h } from './dom';
import { Monitor } from './monitor';
import { IDiagnosis, INow } from './protocol';
import { Section } from './section';

export class Diagnosis extends Section {
  constructor(private readonly _monitor: Monitor, private readonly _run: (code: string) => void) {
    super('Diagnosis');
    _monitor.sampled.connect((_, now) => void this._refresh(now));
  }

  private async _refresh(now: INow): Promise<void> {
    const wanted = now.error === null ? null : `${now.ring} ${now.error}`;
    if (wanted === this._drawn || this._asking) {
      return;
    }
    this._asking = true;
    const found = wanted === null ? null : await this._monitor.document<IDiagnosis>('diagnosis');
    this._asking = false;
    if (wanted !== null && !found) {
      return;
    }
    this._drawn = wanted;
    const error = found?.error;
    if (!error) {
      return this.show(false);
    }
    const where = error.line === null ? '' : ` in line ${error.line} of its cell`;
    const explain = h('button', { class: 'mlsys-button jp-mod-styled', type: 'button', title: 'Writes and runs a cell: %mlsys diagnose' }, 'Diagnose');
    explain.addEventListener('click', () => this._run('%mlsys diagnose'));
    const dismiss = h('button', { class: 'mlsys-button jp-mod-styled', type: 'button' }, 'Dismiss');
    dismiss.addEventListener('click', () => this.show(false));
    this.body.replaceChildren(
      h('div', { class: 'mlsys-title mlsys-wrap' }, `${error.type}${where}`),
      h('p', { class: 'mlsys-error' }, error.text),
      h('div', { class: 'mlsys-actions' }, error.explained ? explain : null, dismiss)
    );
    this.show(true);
  }

  private _drawn: string | null = null;
  private _asking = false;
}
