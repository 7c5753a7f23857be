/** The section *Kernels*: all that run on this server, what they hold, and the ways to see or end them. */

import { Dialog, showDialog } from '@jupyterlab/apputils';
import { Session } from '@jupyterlab/services';
import { h, setText } from './dom';
import { Monitor } from './monitor';
import { IKernels } from './protocol';
import { Section } from './section';
import { bytes } from './units';

const EVERY_MS = 5_000;

export class Kernels extends Section {
  constructor(
    private readonly _monitor: Monitor,
    private readonly _sessions: Session.IManager,
    private readonly _open: (path: string) => void
  ) {
    super('Kernels');
    this._list = h('ul', { class: 'mlsys-kernels' });
    this.body.append(this._list);
    _sessions.runningChanged.connect(() => this._draw());
    _monitor.sampled.connect(() => void this._measure());
    this._draw();
  }

  private _draw(): void {
    const models = [...this._sessions.running()];
    this.show(models.length > 0);
    const ids = models.map(model => `${model.id} ${model.path}`).join('\n');
    if (ids === this._drawn) {
      return;
    }
    this._drawn = ids;
    this._sizes.clear();
    this._list.replaceChildren(...models.map(model => this._row(model)));
  }

  private _row(model: Session.IModel): HTMLElement {
    const name = model.path || model.name;
    const size = h('span', { class: 'mlsys-value' }, '–');
    this._sizes.set(model.kernel?.id ?? '', size);
    const open = h('button', { class: 'mlsys-link', type: 'button', title: `Open ${name}` }, name);
    open.addEventListener('click', () => this._open(model.path));
    const end = h('button', { class: 'mlsys-button jp-mod-styled', type: 'button', title: `Shut down the kernel of ${name}`, 'aria-label': `Shut down the kernel of ${name}` }, 'Shut down');
    end.addEventListener('click', () => void this._shutDown(model, name));
    return h('li', {}, open, size, end);
  }

  private async _shutDown(model: Session.IModel, name: string): Promise<void> {
    const asked = await showDialog({
      title: 'Shut down the kernel?',
      body: `${name} loses its variables.`,
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Shut down' })]
    });
    if (asked.button.accept) {
      await this._sessions.shutdown(model.id);
    }
  }

  /** Asked of the followed kernel, for those on its machine. */
  private async _measure(): Promise<void> {
    if (!this.shown || document.hidden || Date.now() - this._asked < EVERY_MS) {
      return;
    }
    this._asked = Date.now();
    const ids = [...this._sizes.keys()].filter(id => id !== '');
    const found = await this._monitor.document<IKernels>('kernels', { ids });
    for (const [id, node] of this._sizes) {
      const kernel = found?.kernels[id];
      const gpu = kernel === undefined || kernel.gpu === null ? '' : `, GPU ${bytes(kernel.gpu)}`;
      setText(node, kernel === undefined ? '–' : bytes(kernel.memory) + gpu);
    }
  }

  private _asked = 0;
  private _drawn = '';
  private readonly _list: HTMLElement;
  private readonly _sizes = new Map<string, HTMLElement>();
}
