/** A saved profile as a document (`.mlsys.json`), and as an output of its MIME type. Anybody may have written it. */

import { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import { Widget } from '@lumino/widgets';
import { h } from './dom';
import { drawProfile } from './profile';
import { ICause, IFinding, IProfile } from './protocol';

const MIME = 'application/vnd.mlsys.profile+json';
const FORMAT = 'mlsys.profile';
const LONGEST = 2_000;

class ProfileView extends Widget implements IRenderMime.IRenderer {
  constructor(private readonly _type: string) {
    super();
    this.addClass('mlsys-panel');
    this.addClass('mlsys-document');
  }

  async renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    let drawn: HTMLElement[];
    try {
      drawn = drawProfile(fromJson(model.data[this._type]));
    } catch (error) {
      drawn = [h('p', { class: 'mlsys-detail' }, error instanceof NoProfile ? error.message : 'This profile has parts missing; save it again.')];
    }
    this.node.replaceChildren(...drawn);
  }
}

class NoProfile extends Error {}

/* eslint-disable-next-line @typescript-eslint/no-explicit-any -- what is missing throws, and is told */
export function fromJson(data: any): IProfile {
  if (typeof data !== 'object' || data === null || data.format !== FORMAT) {
    throw new NoProfile(`This is no profile of mlsys-studio: its format is not "${FORMAT}".`);
  }
  const { ledger, steps } = data;
  const walls: number[] = [steps.clean, steps.window, steps.warmup].find(group => group.length > 0) ?? [0];
  const sums = new Map<string, number>();
  for (const entry of ledger?.entries ?? []) {
    sums.set(text(entry.cause), (sums.get(text(entry.cause)) ?? 0) + number(entry.nanoseconds));
  }
  const causes: ICause[] = [...sums].map(([cause, ns]) => ({ cause, ns: ns / ledger.steps, share: ns / ledger.wall_ns }));
  const findings: IFinding[] = data.findings.map((found: IFinding & { key: string }, i: number) => ({
    number: i + 1,
    title: text(found.title),
    evidence: text(found.evidence),
    advice: text(found.advice),
    predicted: measured(found.predicted),
    remedy: null,
    applied: false,
    trials: data.trials
      .filter((trial: { finding: string }) => trial.finding === found.key)
      .map((trial: IFinding['trials'][0]) => ({
        kept: Boolean(trial.kept),
        measured: measured(trial.measured),
        low: measured(trial.low),
        high: measured(trial.high),
        reason: text(trial.reason)
      }))
  }));
  const excluded = Object.values(steps.excluded as Record<string, number[]>).reduce((sum, group) => sum + group.length, 0);
  return {
    revision: '',
    title: text(data.title),
    created: text(data.created),
    unit: text(steps.unit),
    steps: steps.warmup.length + steps.clean.length + steps.window.length + excluded + number(steps.dropped),
    median: [...walls].sort((a, b) => a - b)[Math.floor(walls.length / 2)],
    mfu: ledger?.basis?.peak_flops ? (sums.get('useful') ?? 0) / ledger.wall_ns : null,
    device: ledger ? text(ledger.basis.device) : null,
    causes,
    findings,
    notes: data.notes.map(text)
  };
}

function text(value: unknown): string {
  return String(value).slice(0, LONGEST);
}

function number(value: unknown): number {
  if (typeof value !== 'number') {
    throw new NoProfile('This profile has a text where a number should be; save it again.');
  }
  return value;
}

function measured(value: unknown): number | null {
  return value === null ? null : number(value);
}

const extension: IRenderMime.IExtension = {
  id: 'mlsys-studio-lab:profile',
  description: 'Profiles saved as JSON, as documents.',
  rendererFactory: { safe: true, mimeTypes: [MIME], createRenderer: options => new ProfileView(options.mimeType) },
  rank: 50,
  dataType: 'json',
  fileTypes: [{ name: 'mlsys-profile', displayName: 'mlsys-studio profile', extensions: ['.mlsys.json'], mimeTypes: [MIME] }],
  documentWidgetFactoryOptions: {
    name: 'mlsys-studio profile',
    primaryFileType: 'mlsys-profile',
    fileTypes: ['mlsys-profile', 'json'],
    defaultFor: ['mlsys-profile']
  }
};

export default extension;
