/** The section *Findings*: the last profile of this notebook. "Apply fix" writes a cell and runs it, for all to see. */

import { h } from './dom';
import { Monitor } from './monitor';
import { drawProfile } from './profile';
import { IFindings, INow } from './protocol';
import { Section } from './section';

export class Findings extends Section {
  constructor(private readonly _monitor: Monitor, private readonly _run: (code: string) => void) {
    super('Findings');
    _monitor.sampled.connect((_, now) => void this._refresh(now));
  }

  private async _refresh(now: INow): Promise<void> {
    const wanted = now.findings === null ? null : `${now.ring} ${now.findings}`;
    if (wanted === this._drawn || this._asking) {
      return;
    }
    if (wanted === null) {
      this._drawn = null;
      return this.show(false);
    }
    this._asking = true;
    const found = await this._monitor.document<IFindings>('findings');
    this._asking = false;
    if (found?.profile) {
      this._drawn = wanted;
      this.body.replaceChildren(
        ...drawProfile(found.profile, finding => {
          if (finding.applied) {
            return [this._button('Undo', `%mlsys fix ${finding.number} --undo`, finding.title)];
          }
          return finding.remedy === null ? [] : [this._button('Apply fix', `%mlsys fix ${finding.number}`, finding.title)];
        })
      );
      this.show(true);
    }
  }

  private _button(label: string, code: string, title: string): HTMLElement {
    const button = h('button', { class: 'mlsys-button jp-mod-styled', type: 'button', title: `Writes and runs a cell: ${code}`, 'aria-label': `${label}: ${title}` }, label);
    button.addEventListener('click', () => this._run(code));
    return button;
  }

  private _drawn: string | null = null;
  private _asking = false;
}
