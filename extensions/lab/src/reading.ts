/** A section that draws a state document, read again whenever the samples say that it is another one by now. */

import { Monitor } from './monitor';
import { IHead, INow } from './protocol';
import { Section } from './section';

export interface ISource<T> {
  document: string;
  /** Another value whenever the document is another; null where there is none. */
  revision: (now: INow) => string | number | null;
  /** Null where nothing is to be seen of it. */
  draw: (found: T, dismiss: () => void) => Node[] | null;
}

export class DocumentSection<T extends IHead> extends Section {
  constructor(title: string, private readonly _monitor: Monitor, private readonly _source: ISource<T>) {
    super(title);
    _monitor.sampled.connect((_, now) => void this._refresh(now));
  }

  private async _refresh(now: INow): Promise<void> {
    const revision = this._source.revision(now);
    const wanted = revision === null ? null : `${now.ring} ${revision}`; // of this kernel, and this life of it
    if (wanted === this._drawn || this._asking) {
      return;
    }
    if (wanted === null) {
      this._drawn = null;
      return this.show(false);
    }
    this._asking = true;
    const found = await this._monitor.document<T>(this._source.document);
    this._asking = false;
    if (found === null) {
      return; // it could not be had now; the next sample asks again
    }
    this._drawn = wanted;
    const drawn = this._source.draw(found, () => this.show(false));
    this.body.replaceChildren(...(drawn ?? []));
    this.show(drawn !== null);
  }

  private _drawn: string | null = null;
  private _asking = false;
}
